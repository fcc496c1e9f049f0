"""Keep a cube current with its source: new, reprocessed and withdrawn pairs."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cube_denoise.changes import Changes
from cube_denoise.pipeline import Allow, RunReport, carry_out, find

WITHDRAWN_SHARE = 0.5
"""Share of the cube's pairs above which a withdrawal is taken for a mistake."""


@dataclass
class UpdateReport(RunReport):
    """What an update did."""

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self.record)


def update(job: Mapping[str, Any], *, allow_withdrawn: bool = False) -> UpdateReport:
    """Bring a cube up to date with what its source has now.

    New pairs are added, late ones as well; reprocessed ones (`changes.compare`) are
    read anew in the place of the old; pairs that the same search finds no longer leave
    the cube, and stay in its older states (`store.history`). Only what changed is
    corrected, but where a method needs the whole stack. Then displacement and velocity
    are brought up to date, and readers are shown all of it at once. With nothing to do
    nothing is written.

    An interrupted update is taken up by the next. If the cube was changed meanwhile,
    the update starts over from there, up to `pipeline.ATTEMPTS` times.

    Parameters
    ----------
    job : mapping
        As for `pipeline.run`.
    allow_withdrawn : bool
        Whether more than `WITHDRAWN_SHARE` of the pairs may be withdrawn.

    Returns
    -------
    UpdateReport

    Raises
    ------
    ValueError
        As for `pipeline.run`; if too many pairs, or all, would be withdrawn.
    CubeChangedError
        If other jobs were always quicker.
    """
    allow = withdrawal_limit(allow_withdrawn)
    report = carry_out(job, find(job), step="update", allow=allow)
    return UpdateReport(report.ingest, report.correct, report.invert, report.record)


def withdrawal_limit(allow_withdrawn: bool) -> Allow:
    """What `update` allows to be withdrawn, for `pipeline.carry_out`."""
    return partial(_check_withdrawn, allowed=allow_withdrawn)


def _check_withdrawn(
    changes: Changes, items: Sequence[Mapping[str, Any]], *, allowed: bool
) -> None:
    count, total = len(changes.withdrawn), len(items)
    if count and count == total and not changes.new:
        raise ValueError(
            f"the search finds none of the {total} pairs of the cube: nothing would be "
            "left of it"
        )
    if count > WITHDRAWN_SHARE * total and not allowed:
        raise ValueError(
            f"the search finds {count} of the {total} pairs of the cube no longer, "
            f"such as {changes.withdrawn[0]['id']}: check the source, or insist with "
            "--allow-withdrawn (allow_withdrawn=True)"
        )


def write_record(report: UpdateReport, path: str | Path) -> Path:
    """Write the record of an update as JSON, a whole file or none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(run_record(report) + "\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def run_record(report: UpdateReport) -> str:
    """Record of an update as one line of JSON."""
    told = {"changed": report.changed, "failed": report.ingest.failed, **report.record}
    return json.dumps(told, default=str)
