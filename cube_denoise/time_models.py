"""Models of a displacement series in time: which terms, and their design matrix.

A series is modelled as an offset plus terms that are linear in their parameters. Time
is in years of 365.25 days.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cube_denoise.conventions import years_since

METRES, RATE = "m", "m year-1"
SEASON_ORIGIN = np.datetime64("2000-01-01", "s")
"""Cosine terms are 1 here: the phase of a cycle is a day of the year."""
DETERMINED = 1e-2
"""A column of the design that the earlier ones explain but for less than this part of
its length is not told from them."""

Relaxation = tuple[np.datetime64, float]
"""Onset and time constant (days)."""


@dataclass(frozen=True, kw_only=True)
class TimeModel:
    r"""Terms of a displacement series.

    .. math:: d(t) = c + v t + \sum_k (a_k \cos 2\pi k t + b_k \sin 2\pi k t)
        + \sum_j s_j H(t - t_j) + \sum_l e_l \left(1 - e^{-(t - t_l)/\tau_l}\right)
        + \sum_n g_n \ln\left(1 + (t - t_n)/\tau_n\right)

    with k = 1 (annual) and 2 (semi-annual); H is 1 from the step on and 0 before;
    relaxations are 0 before their onset. With `knots` the line is broken there and
    continuous, with a rate for every piece.

    Parameters
    ----------
    annual, semiannual : bool
        Whether there is a cycle of a year, of half a year.
    steps : sequence of datetime64
        First moment at which each step has happened.
    exponential, logarithmic : sequence of (datetime64, float)
        Onset and time constant in days of each relaxation.
    knots : sequence of datetime64
        Where the line is broken, increasing; none for a straight line.

    Raises
    ------
    ValueError
        If a time constant is not positive, knots do not increase, or a term is given
        twice.
    """

    annual: bool = False
    semiannual: bool = False
    steps: tuple[np.datetime64, ...] = ()
    exponential: tuple[Relaxation, ...] = ()
    logarithmic: tuple[Relaxation, ...] = ()
    knots: tuple[np.datetime64, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "knots"):
            dates = tuple(_date(name, d) for d in getattr(self, name))
            object.__setattr__(self, name, dates)
        for name in ("exponential", "logarithmic"):
            terms = tuple(
                (_date(name, d), float(tau)) for d, tau in getattr(self, name)
            )
            for _, tau in terms:
                if not 0 < tau < np.inf:
                    raise ValueError(
                        f"{name}: the time constant {tau:g} days must be positive"
                    )
            object.__setattr__(self, name, terms)
        if any(a >= b for a, b in pairwise(self.knots)):
            raise ValueError(
                f"knots={[_day(d) for d in self.knots]} must increase, each date once"
            )
        for name in ("steps", "exponential", "logarithmic"):
            terms = getattr(self, name)
            if len(set(terms)) < len(terms):
                raise ValueError(f"{name}: a term is given twice in {str(self)!r}")

    @classmethod
    def parse(cls, text: str) -> "TimeModel":
        """Make a model of its name.

        Parameters
        ----------
        text : str
            Terms joined by "+": ``linear`` or ``piecewise:DATE,DATE,...`` (one of
            them), ``annual``, ``semiannual``, ``step:DATE``, ``exp:DATE:90d`` and
            ``log:DATE:30d``, dates as 2020-06-01.

        Raises
        ------
        ValueError
            If a term is unknown, incomplete or given twice, or there is no rate.

        Examples
        --------
        >>> str(TimeModel.parse("annual + linear + step:2020-06-01"))
        'linear+annual+step:2020-06-01'
        """
        found: dict[str, Any] = {}
        seen: set[str] = set()
        for term in (t.strip() for t in text.split("+")):
            if term in seen:
                raise ValueError(f"the term {term!r} is in {text!r} more than once")
            seen.add(term)
            kind, *rest = term.split(":", 1)
            body = rest[0] if rest else None
            if kind not in _TERMS or (body is None) != (_TERMS[kind] == ""):
                forms = ", ".join(k + f for k, f in _TERMS.items())
                raise ValueError(f"{term!r} in {text!r} is no term: use {forms}")
            if kind in ("annual", "semiannual"):
                found[kind] = True
            elif body is not None:
                name, read = _READERS[kind]
                found[name] = (*found.get(name, ()), *read(body, term))
        lines = [t for t in seen if t.split(":")[0] in ("linear", "piecewise")]
        if len(lines) != 1:
            raise ValueError(
                f"{text!r} must hold linear or piecewise, one of them once"
            )
        return cls(**found)

    def __str__(self) -> str:
        line = "piecewise:" + ",".join(_day(d) for d in self.knots)
        terms = [line if self.knots else "linear"]
        terms += [n for n in ("annual", "semiannual") if getattr(self, n)]
        terms += [f"step:{_day(d)}" for d in self.steps]
        terms += [f"exp:{_day(d)}:{tau:g}d" for d, tau in self.exponential]
        terms += [f"log:{_day(d)}:{tau:g}d" for d, tau in self.logarithmic]
        return "+".join(terms)

    def design(self, times: Any) -> "Design":
        """Design matrix for given dates.

        Parameters
        ----------
        times : array_like of datetime64, shape (dates,)
            Increasing.

        Returns
        -------
        Design

        Raises
        ------
        ValueError
            If the dates do not increase, are fewer than the parameters, or leave a
            parameter undetermined: a step, knot or onset outside their span, a cycle
            that they do not sample.
        """
        times = np.asarray(times, "datetime64[s]")
        if times.ndim != 1 or not (np.diff(times) > 0 * _DAY).all():
            raise ValueError("times must be increasing dates")
        for name in ("steps", "knots", "exponential", "logarithmic"):
            for term in getattr(self, name):
                date = term[0] if isinstance(term, tuple) else term
                _check_inside(name, date, times)
        columns = self._columns(times)
        names, units, values = zip(*columns, strict=True)
        if times.size < len(columns):
            raise ValueError(
                f"the model {str(self)!r} has {len(columns)} parameters and there are "
                f"{times.size} dates: leave out terms"
            )
        matrix = np.stack(values, axis=1)
        _check_determined(matrix, names, str(self))
        rate = np.zeros(len(columns))
        lengths = np.diff(self._corners(times))
        rate[1 : 1 + lengths.size] = lengths / lengths.sum()
        return Design(names, units, matrix, rate, years_since(times, times[0]))

    def _columns(self, times: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
        """Name, unit and values of every parameter's term."""
        found = [("offset", METRES, np.ones(times.size))]
        t, corners = years_since(times, times[0]), self._corners(times)
        for k, (low, high) in enumerate(pairwise(corners), 1):
            name = f"rate_{k}" if self.knots else "rate"
            found.append((name, RATE, np.clip(t, low, high) - low))
        season = 2 * np.pi * years_since(times, SEASON_ORIGIN)
        for name, cycles in (("annual", 1), ("semiannual", 2)):
            if getattr(self, name):
                found.append((f"{name}_cosine", METRES, np.cos(cycles * season)))
                found.append((f"{name}_sine", METRES, np.sin(cycles * season)))
        for date in self.steps:
            found.append((f"step_{_label(date)}", METRES, (times >= date).astype("f8")))
        for kind, terms, shape in (
            ("exponential", self.exponential, lambda x: -np.expm1(-x)),
            ("logarithmic", self.logarithmic, np.log1p),
        ):
            for date, tau in terms:
                since = np.maximum((times - date) / _DAY, 0.0) / tau
                found.append((f"{kind}_{_label(date)}_{tau:g}d", METRES, shape(since)))
        return found

    def _corners(self, times: np.ndarray) -> np.ndarray:
        """First date, knots and last date, years after the first."""
        return years_since([times[0], *self.knots, times[-1]], times[0])


@dataclass(frozen=True, eq=False)
class Design:
    """A `TimeModel` at given dates."""

    names: tuple[str, ...]
    """Of the parameters: ``offset``, ``rate`` (``rate_1``, ... of the pieces),
    ``annual_cosine``, ``annual_sine``, ``step_20200601``, ...; the offset is that of
    the first date but for the other terms."""
    units: tuple[str, ...]
    """Of the parameters: "m" or "m year-1"."""
    matrix: np.ndarray
    """float64, shape (dates, parameters)."""
    rate: np.ndarray
    """Velocity = rate @ parameters: the rate, or the mean of the rates of the pieces
    over the dates' span; shape (parameters,)."""
    years: np.ndarray
    """Dates in years after the first, shape (dates,)."""


def linear_design(years: np.ndarray) -> Design:
    """Straight line over times in years, from any origin, in increasing order."""
    years = np.asarray(years, "float64") - years[0]
    matrix = np.stack([np.ones_like(years), years], axis=1)
    return Design(
        ("offset", "rate"), (METRES, RATE), matrix, np.array([0.0, 1.0]), years
    )


_DAY = np.timedelta64(86400, "s")
_TERMS = {
    "linear": "",
    "annual": "",
    "semiannual": "",
    "step": ":DATE",
    "exp": ":DATE:90d",
    "log": ":DATE:30d",
    "piecewise": ":DATE,DATE,...",
}


def _dates(body: str, term: str) -> tuple[np.datetime64, ...]:
    return tuple(_date(term, d) for d in body.split(","))


def _relaxation(body: str, term: str) -> tuple[Relaxation]:
    date, _, tau = body.rpartition(":")
    try:
        return ((_date(term, date), float(tau.removesuffix("d"))),)
    except ValueError:
        raise ValueError(f"{term!r} must be like exp:2020-06-01:90d") from None


_READERS: dict[str, tuple[str, Callable[[str, str], tuple[Any, ...]]]] = {
    "step": ("steps", _dates),
    "piecewise": ("knots", _dates),
    "exp": ("exponential", _relaxation),
    "log": ("logarithmic", _relaxation),
}


def _date(name: str, given: Any) -> np.datetime64:
    try:
        date = np.datetime64(given, "s")
    except ValueError:
        date = np.datetime64("NaT")
    if np.isnat(date):
        raise ValueError(f"{name}: {given!r} is no date; write it like 2020-06-01")
    return date


def _day(date: np.datetime64) -> str:
    """ISO date, with the time if it is not midnight."""
    day = date.astype("datetime64[D]")
    return str(day if day == date else date)


def _label(date: np.datetime64) -> str:
    return str(date.astype("datetime64[D]")).replace("-", "")


def _check_determined(matrix: np.ndarray, names: tuple[str, ...], model: str) -> None:
    """Error if a column is a combination of those before it, or close to one."""
    _, R = np.linalg.qr(matrix)
    left = np.abs(np.diag(R)) / np.linalg.norm(matrix, axis=0)
    if (left < DETERMINED).any():
        name = names[int(np.argmax(left < DETERMINED))]
        raise ValueError(
            f"the dates cannot tell {name} of the model {model!r} from its other "
            "terms: leave it out, or move it"
        )


def _check_inside(name: str, date: np.datetime64, times: np.ndarray) -> None:
    """Error unless there are dates on both sides; a relaxation may start with them."""
    relaxing = name in ("exponential", "logarithmic")
    early = times[0] <= date if relaxing else times[0] < date
    late = date <= times[-1] if name == "steps" else date < times[-1]
    if not (early and late):
        raise ValueError(
            f"{name}: {_day(date)} is outside the dates, {_day(times[0])} to "
            f"{_day(times[-1])}, or at their end: they cannot determine it"
        )
