"""Scores of one corrected stack, by the names of `columns.SCORES`."""

import warnings
from collections.abc import Sequence

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR, TIME, X, Y, phase_to_displacement
from cube_denoise.evaluate.consistency import (
    elevation_correlation,
    inversion_summary,
    triplet_closure_rms,
)
from cube_denoise.evaluate.recovery import Recovery, by_kind, smallest_detectable
from cube_denoise.evaluate.scores import (
    amplitude_slope,
    bias,
    percentile_error,
    reduction,
    rms_error,
)
from cube_denoise.evaluate.similarity import correlation, ssim, ssim_poster
from cube_denoise.evaluate.station_misfit import station_misfit
from cube_denoise.evaluate.structure import DISTANCES_KM
from cube_denoise.evaluate.uncertainty import coverage
from cube_denoise.reference_area import ReferenceArea

MM = 1e3


def against_truth(
    cube: xr.Dataset,
    inversion: xr.Dataset,
    truth: xr.Dataset,
    area: ReferenceArea,
    raw: xr.Dataset | None,
) -> dict[str, float]:
    """Scores of velocity, displacement and pairs; `raw` is what the raw pairs gave."""
    velocity, std = (inversion[n].values for n in ("velocity", "velocity_std"))
    true = truth["velocity"].transpose(Y, X).values
    before = velocity if raw is None else raw["velocity"].values
    at_rest = true - np.nanmean(area.cut(true))
    scores = {
        "velocity slope": amplitude_slope(velocity, true),
        "velocity rms error": MM * rms_error(velocity, true),
        "velocity reduction": 100 * reduction(velocity, before, true),
        "velocity 95 %": MM * percentile_error(velocity, true),
        "velocity bias": MM * bias(velocity, true),
        "velocity correlation": correlation(velocity, true),
        "velocity ssim": ssim(velocity, true),
        "velocity ssim, poster": ssim_poster(velocity, true),
        "68 % covers": 100 * coverage(velocity, std, at_rest, level=0.68),
        "95 % covers": 100 * coverage(velocity, std, at_rest, level=0.95),
    }
    moved = truth["displacement"].transpose(TIME, Y, X)
    days = moved[TIME].values.astype("datetime64[s]")
    found = inversion["displacement"].transpose(TIME, Y, X)
    position = _positions(days, found[TIME].values)
    start = found.attrs.get("reference_time", found[TIME].values[0])
    origin = int(_positions(days, np.array([start], "datetime64[s]"))[0])
    errors = [
        rms_error(found[k].values, (moved[p] - moved[origin]).values)
        for k, p in enumerate(position)
    ]
    scores["displacement rms error"] = MM * float(
        np.sqrt(np.nanmean(np.square(errors)))
    )
    ends = (
        _positions(days, cube[n].values) for n in ("reference_time", "secondary_time")
    )
    slopes, rms = [], []
    phase = cube["corrected_phase"].transpose(PAIR, Y, X)
    for k, (early, late) in enumerate(zip(*ends, strict=True)):
        estimate = phase_to_displacement(phase[k].values, cube.attrs["wavelength"])
        target = (moved[late] - moved[early]).values
        slopes.append(amplitude_slope(estimate, target))
        rms.append(rms_error(estimate, target))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: no deformation
        scores["pair slope"] = float(np.nanmedian(slopes))
        scores["pair rms error"] = MM * float(np.nanmedian(rms))
    return scores


def _positions(days: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Where dates stand in the truth."""
    asked = asked.astype("datetime64[s]")
    missing = np.setdiff1d(asked, days)
    if missing.size:
        raise ValueError(
            f"truth lacks the dates {', '.join(map(str, missing))} of the cube"
        )
    return np.array([int(np.flatnonzero(days == one)[0]) for one in asked])


def without_truth(
    cube: xr.Dataset,
    inversion: xr.Dataset,
    structure: xr.DataArray,
    raw: xr.Dataset | None,
) -> dict[str, float]:
    """Scores of pairs and inversion; `raw` is what the raw pairs gave."""
    summary = inversion_summary(inversion)
    velocity = inversion["velocity"].values
    scores = {
        "closure": triplet_closure_rms(cube, "corrected_phase").rms,
        "residual": summary.residual_rms,
        "temporal coherence": summary.temporal_coherence,
        "slope on raw velocity": amplitude_slope(
            velocity, velocity if raw is None else raw["velocity"].values
        ),
    }
    if "elevation" in cube:
        scores["elevation correlation"] = elevation_correlation(
            cube, "corrected_phase"
        ).rms
    for distance in DISTANCES_KM:
        scores[f"structure {distance:g} km"] = float(structure.sel(distance=distance))
    return scores


def against_stations(
    compared: xr.Dataset, reference_station: str | None
) -> dict[str, float]:
    """Misfit at stations (`stations.compare_with_stations`), as is and demeaned."""
    names = compared["station"].values
    misfit = station_misfit(
        compared["insar"],
        compared["gnss"],
        reference_station=reference_station if reference_station in names else None,
    )
    return {
        "avg": MM * misfit.avg,
        "avg, mean removed": MM * misfit.avg_demeaned,
        "l2": MM * misfit.l2,
        "l2, mean removed": MM * misfit.l2_demeaned,
        "GNSS correlation": misfit.correlation,
    }


def injected_scores(recoveries: Sequence[Recovery]) -> dict[str, float]:
    """Medians over all sources of all cases, steady and sudden apart."""
    scores = {}
    for history in ("steady", "step"):
        chosen = [r for r in recoveries if r.case.history == history]
        if not chosen:
            continue
        found = [smallest_detectable(group) for group in by_kind(chosen).values()]
        columns = {
            "slope": np.concatenate([r.slope for r in chosen]),
            "rms error": MM * np.concatenate([r.rms_error for r in chosen]),
            "detectable": MM * np.concatenate(found),
        }
        for name, values in columns.items():
            known = values[~np.isnan(values)]
            scores[f"{history} {name}"] = (
                float(np.median(known)) if known.size else float("nan")
            )
    return scores
