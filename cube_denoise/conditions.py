"""Conditions of a search: on properties, on the time span, on the footprint."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pystac.utils import str_to_datetime

_QUERY = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "=": "eq", "!=": "neq"}

Interval = tuple[datetime | None, datetime | None]
"""Start and end of a time span, both included; None where it is open."""


@dataclass(frozen=True)
class Condition:
    """One comparison of a STAC property with a value."""

    name: str
    """Property, such as ``insar:perpendicular_baseline``."""
    operator: str
    """One of < <= > >= = !=."""
    value: float | str

    def holds(self, properties: Mapping[str, Any]) -> bool:
        """Tell whether `properties` has the property and meets the condition."""
        found = properties.get(self.name)
        if found is None:
            return False
        if self.operator in ("=", "!="):
            return (found == self.value) == (self.operator == "=")
        if isinstance(found, str) or isinstance(self.value, str):
            return False
        return bool(
            {
                "<": found < self.value,
                "<=": found <= self.value,
                ">": found > self.value,
                ">=": found >= self.value,
            }[self.operator]
        )


def parse_condition(text: str) -> Condition:
    """Read a condition such as ``"insar:temporal_baseline<=48"``.

    Examples
    --------
    >>> parse_condition("insar:temporal_baseline <= 48")
    Condition(name='insar:temporal_baseline', operator='<=', value=48.0)
    """
    match = re.fullmatch(
        r"\s*([^\s<>=!]+)\s*(<=|>=|!=|=|<|>)\s*([^\s<>=!].*?)\s*", text
    )
    if match is None:
        raise ValueError(
            f"filter {text!r} must be a property, one of < <= > >= = != and a value, "
            "such as 'insar:temporal_baseline<=48'"
        )
    name, operator, value = match.groups()
    try:
        return Condition(name, operator, float(value))
    except ValueError:
        if operator not in ("=", "!="):
            raise ValueError(
                f"filter {text!r} must compare with a number (text can only be = or !=)"
            ) from None
        return Condition(name, operator, value.strip("'\""))


def orbit_conditions(orbit: str | int) -> list[Condition]:
    """Conditions for a track (``"A005"``) or a relative orbit (``5``).

    Examples
    --------
    >>> [c.value for c in orbit_conditions("A005")]
    [5, 'ascending']
    """
    match = re.fullmatch(r"([AD]?)(\d{1,3})", str(orbit))
    if match is None:
        raise ValueError(f"{orbit=} must be a track such as 'A005' or a relative orbit")
    found = [Condition("sat:relative_orbit", "=", int(match[2]))]
    if match[1]:
        state = {"A": "ascending", "D": "descending"}[match[1]]
        found.append(Condition("sat:orbit_state", "=", state))
    return found


def as_query(conditions: Iterable[Condition]) -> dict[str, dict[str, float | str]]:
    """Write conditions for the query extension of a STAC API."""
    found: dict[str, dict[str, float | str]] = {}
    for condition in conditions:
        comparisons = found.setdefault(condition.name, {})
        comparisons[_QUERY[condition.operator]] = condition.value
    return found


def as_cql2(conditions: Iterable[Condition]) -> dict[str, Any]:
    """Write conditions for the filter extension of a STAC API, as cql2-json."""
    names = {"!=": "<>"}
    comparisons = [
        {
            "op": names.get(c.operator, c.operator),
            "args": [{"property": c.name}, c.value],
        }
        for c in conditions
    ]
    return {"op": "and", "args": comparisons}


def parse_interval(text: str | None) -> Interval:
    """Read a STAC time span: a date, or ``start/end`` with ``..`` for an open end.

    A year, a month or a day stands for all of it.

    Examples
    --------
    >>> start, end = parse_interval("2018-01/..")
    >>> start.isoformat(), end
    ('2018-01-01T00:00:00+00:00', None)
    """
    if text is None:
        return None, None
    start, _, end = text.partition("/")
    if "/" in end:
        raise ValueError(f"datetime={text!r} must be one date or start/end")
    spans = [_span(part, text) for part in (start, end or start)]
    if "/" in text and not end:
        spans[1] = (None, None)
    first, last = spans[0][0], spans[1][1]
    if first and last and first > last:
        raise ValueError(f"datetime={text!r} ends before it starts")
    return first, last


def overlaps(start: datetime, end: datetime, interval: Interval) -> bool:
    """Tell whether start..end and `interval` have a moment in common."""
    first, last = interval
    return (last is None or start <= last) and (first is None or end >= first)


def checked_bbox(bbox: Sequence[float]) -> list[float]:
    """Box with longitudes from -180 to 180; west > east across the antimeridian.

    Raises
    ------
    ValueError
        If it is not west, south, east, north.
    """
    wrong = ValueError(
        f"bbox={tuple(bbox)} must be west < east and south < north, in degrees; across "
        "the antimeridian west > east, or east > 180"
    )
    if isinstance(bbox, str) or len(bbox) != 4:
        raise wrong
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in bbox):
        raise wrong
    west, south, east, north = map(float, bbox)
    if west > east and not (-180 <= east <= west - 180 and west <= 180):
        raise wrong
    if not (-90 <= south < north <= 90 and -360 <= west != east <= 360):
        raise wrong
    if east - west >= 360:
        return [-180.0, south, 180.0, north]
    inside = [v if -180 <= v <= 180 else (v + 180) % 360 - 180 for v in (west, east)]
    return [inside[0], south, inside[1], north]


def _span(part: str, text: str) -> Interval:
    """First and last moment of a date as precise as it is written."""
    if part in ("", ".."):
        return None, None
    try:
        match = re.fullmatch(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", part)
        if match is None:
            moment = str_to_datetime(part)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return moment, moment
        year, month, day = (int(g) if g else 0 for g in match.groups())
        start = datetime(year, month or 1, day or 1, tzinfo=UTC)
        if day:
            end = start + timedelta(days=1)
        elif month:
            end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        else:
            end = datetime(year + 1, 1, 1, tzinfo=UTC)
        return start, end - timedelta(microseconds=1)
    except ValueError:
        raise ValueError(
            f"datetime={text!r} must be a date or start/end, such as "
            "'2018-01-01/2018-07-31'"
        ) from None
