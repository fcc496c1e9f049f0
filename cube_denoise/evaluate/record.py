"""All numbers of an evaluation, as JSON."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cube_denoise.conventions import TIME, X, Y
from cube_denoise.evaluate.columns import SCORES
from cube_denoise.evaluate.gnss import STATION
from cube_denoise.evaluate.injection import AMPLITUDE_UNITS
from cube_denoise.evaluate.recovery import Recovery, by_kind, smallest_detectable

if TYPE_CHECKING:
    from cube_denoise.evaluate.judge import Evaluation, Verdict

FORMAT = "cube-denoise evaluation 1"
ABOUT = (
    "null: no value (NaN), or infinite. A smallest_detectable of null is one that was "
    "not found even at the largest amplitude where found is false, and one without "
    "data where found is null. Rows and columns are pixels of the part judged, the "
    "first is 0, the end of a range is not in it. Velocities and displacements are "
    "positive toward the satellite. Maps are in report.html only."
)
PACKAGES = ("cube-denoise", "numpy", "scipy", "xarray", "scikit-learn", "torch")
MM = 1e3


def record_of(evaluation: "Evaluation", *, title: str) -> dict[str, Any]:
    """All numbers of an evaluation, JSON-able: non-finite ones are None.

    Parameters
    ----------
    evaluation : Evaluation
    title : str
        What was judged.

    Returns
    -------
    dict
        "about" says what null means. "columns" explains the scores of "methods", raw
        first, of which each has its label (options, hash of the weights), "scores",
        "notes", and where they were judged "structure", "held_out", "injected" and
        "stations".
    """
    area = evaluation.reference
    shape = _shape(evaluation)
    found = {
        "format": FORMAT,
        "about": ABOUT,
        "title": title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "stack": {
            "pairs": evaluation.pairs,
            "rows": shape[0],
            "columns": shape[1],
            "spacing_m": {
                "rows": evaluation.spacing[0],
                "columns": evaluation.spacing[1],
            },
        },
        "reference": {
            "rows": [area.y.start, area.y.stop],
            "columns": [area.x.start, area.x.stop],
        },
        "weights": evaluation.weights,
        "folds": evaluation.folds,
        "seed": evaluation.seed,
        "truth": evaluation.truth is not None,
        "columns": {
            group: {n: {**asdict(s), "ranks": s.ranks} for n, s in scores.items()}
            for group, scores in SCORES.items()
        },
        "methods": [_method(v) for v in evaluation.verdicts],
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _shape(evaluation: "Evaluation") -> tuple[int, int]:
    maps = evaluation.verdicts[0].maps
    assert maps is not None
    return maps.sizes[Y], maps.sizes[X]


def _method(verdict: "Verdict") -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": verdict.method,
        "label": dict(verdict.label),
        "scores": verdict.scores,
        "notes": verdict.notes,
    }
    if verdict.structure is not None:
        found["structure"] = {
            "distance_km": verdict.structure["distance"].values,
            "root_mm": verdict.structure.values,
        }
    if verdict.held_out is not None:
        held = verdict.held_out
        found["held_out"] = {
            "ratio": held.ratio,
            "error_mm": held.error,
            "motion_mm": held.motion,
            "dates": _dates(held.dates),
            "never_hidden": held.kept.astype("datetime64[s]").astype(str),
        }
    if verdict.recoveries:
        found["injected"] = [_kind(g) for g in by_kind(verdict.recoveries).values()]
    if verdict.stations is not None:
        found["stations"] = _stations(verdict.stations)
    return found


def _dates(dates: xr.Dataset) -> list[dict[str, Any]]:
    names = {"ratio": "ratio", "error": "error_mm", "motion": "motion_mm"}
    names |= {"pixels": "pixels", "fold": "fold"}
    return [
        {"date": str(moment.astype("datetime64[s]"))}
        | {told: dates[name].values[k] for name, told in names.items()}
        for k, moment in enumerate(dates[TIME].values)
    ]


def _kind(group: list[Recovery]) -> dict[str, Any]:
    """Recoveries that differ in amplitude alone."""
    first, unit = group[0], AMPLITUDE_UNITS[group[0].case.history]
    least = smallest_detectable(group)
    return {
        "history": first.case.history,
        "shape": first.case.shape,
        "radius_m": first.case.radius,
        "unit": unit,
        "rows": first.rows,
        "columns": first.columns,
        "noise": MM * first.noise,
        "smallest_detectable": MM * least,
        "found": [None if np.isnan(v) else bool(np.isfinite(v)) for v in least],
        "cases": [
            {
                "amplitude": MM * one.case.amplitude,
                "slope": one.slope,
                "rms_error": MM * one.rms_error,
            }
            for one in group
        ],
    }


def _stations(compared: xr.Dataset) -> dict[str, Any]:
    return {
        "names": compared[STATION].values,
        "reference_station": compared.attrs["reference_station"],
        "times": compared[TIME].values.astype("datetime64[s]").astype(str),
        **{
            f"{name}_mm": MM * compared[name].transpose(STATION, TIME).values
            for name in ("insar", "gnss", "gnss_std")
        },
    }


def _plain(value: Any) -> Any:
    """Python numbers, text, lists and dicts; what is not finite is None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Iterable):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
