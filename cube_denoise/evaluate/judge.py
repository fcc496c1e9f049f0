"""Judge methods on one stack: all that can be known of each, side by side with raw."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cube_denoise.conventions import (
    PAIR,
    X,
    Y,
    pair_label,
)
from cube_denoise.correct import correct
from cube_denoise.correction_errors import STATED
from cube_denoise.corrections import CLASSICAL, find_correction
from cube_denoise.evaluate.held_out import HeldOutError, held_out_dates, uncorrected
from cube_denoise.evaluate.injection import Case
from cube_denoise.evaluate.recovery import Recovery, recover
from cube_denoise.evaluate.scoring import (
    against_stations,
    against_truth,
    injected_scores,
    without_truth,
)
from cube_denoise.evaluate.stations import (
    compare_with_stations,
    project_on_line_of_sight,
    sample_at_stations,
)
from cube_denoise.evaluate.structure import DISTANCES_KM, pair_structure
from cube_denoise.grid import pixel_spacing
from cube_denoise.invert import invert
from cube_denoise.progress import progress
from cube_denoise.reference import find_reference
from cube_denoise.reference_area import Reference, ReferenceArea

if TYPE_CHECKING:
    from cube_denoise.corrections import Method

log = logging.getLogger(__name__)

RAW = "raw"
"""Name of doing nothing, which all others stand beside."""
MAX_VALUES = 4e8
"""Pairs times pixels that are judged at once; they are held in memory several times."""
LOS = ("los_east", "los_north", "los_up")


@dataclass
class Verdict:
    """What was found of one method."""

    method: str
    label: Mapping[str, str]
    """What exactly it was: `Correction.label`; empty for raw."""
    scores: dict[str, float] = field(default_factory=dict)
    """By the names of `SCORES`."""
    maps: xr.Dataset | None = None
    """``velocity`` and ``velocity_std`` (y, x), m/yr."""
    structure: xr.DataArray | None = None
    """Root of the structure function of the pairs, mm, dims (distance,)."""
    held_out: HeldOutError | None = None
    recoveries: list[Recovery] = field(default_factory=list)
    stations: xr.Dataset | None = None
    """As of `stations.compare_with_stations`, m."""
    notes: list[str] = field(default_factory=list)
    """Warnings, and why scores are missing."""


@dataclass
class Evaluation:
    """Verdicts on all methods, on one stack."""

    verdicts: list[Verdict]
    """Raw first."""
    reference: ReferenceArea
    """Reference area of all inversions, pixels."""
    pairs: list[str]
    """Dates of the pairs that were judged."""
    spacing: tuple[float, float]
    """Pixel spacing on the ground, m: of rows and of columns."""
    truth: xr.Dataset | None = None
    weights: str = "coherence"
    folds: int = 5
    seed: int = 0


def applicable_methods(cube: xr.Dataset) -> list[str]:
    """Names of all methods that need nothing that the cube lacks, and no option."""
    from cube_denoise.models import zoo

    found = []
    for name in CLASSICAL:
        try:
            needed = find_correction(name).needs
        except ValueError:
            continue  # needs an option: a file, a truth
        if all(n in cube for n in needed):
            found.append(name)
    for name in zoo.shipped_models():
        if all(n in cube for n in zoo.needed_variables(name)):
            found.append(name)
    return found


def evaluate_cube(
    cube: xr.Dataset,
    methods: "Sequence[Method] | Mapping[str, Method]",
    *,
    truth: xr.Dataset | None = None,
    stations: xr.Dataset | None = None,
    reference_station: str | None = None,
    cases: Sequence[Case] = (),
    reference: Reference = None,
    weights: str = "coherence",
    folds: int = 5,
    seed: int = 0,
) -> Evaluation:
    """Correct a stack by several methods and score each, beside the raw pairs.

    Parameters
    ----------
    cube : xarray.Dataset
        ``unwrapped_phase`` (pair, y, x), rad, and what methods and `weights` need; a
        stack that fits into memory several times: cut large ones.
    methods : sequence of str or mapping of str to method
        As for `correct.correct`; names of the rows where a mapping.
    truth : xarray.Dataset, optional
        ``displacement`` (time, y, x), m, and ``velocity`` (y, x), m/yr, on the grid and
        at the dates of the cube (`simulate`).
    stations : xarray.Dataset, optional
        GNSS, as `gnss` reads it; the cube must have its line-of-sight vectors.
    reference_station : str, optional
        Station whose displacement is subtracted from all.
    cases : sequence of Case, optional
        What to inject; none by default.
    reference : mapping, ReferenceArea, str or path, optional
        Reference area of all inversions, as for `invert`; chosen from the raw pairs by
        default.
    weights : {"coherence", "variance", "none"}
        Of all inversions.
    folds, seed : int
        Of the held-out dates; the seed also of the noise under what is injected.

    Returns
    -------
    Evaluation
        A method that cannot be applied to this stack has a verdict with a note that
        says why, and no scores.

    Raises
    ------
    ValueError
        If the cube is too large or lacks something, or truth or stations do not fit.
    """
    chosen = _named(methods)
    if folds < 2:
        raise ValueError(f"{folds=} must be at least 2")
    _check(cube, truth, stations)
    cube = cube.drop_vars([n for n in ("corrected_phase", *STATED) if n in cube]).load()
    if weights != "none" and "coherence" not in cube:
        raise ValueError(f"{weights=} needs the variable coherence: add it or use none")
    area = find_reference(cube, reference, variable="unwrapped_phase")
    pairs = [pair_label(cube, k) for k in range(cube.sizes[PAIR])]
    found = Evaluation(
        [], area, pairs, pixel_spacing(cube), truth, weights, folds, seed
    )
    judge = _Judge(cube, found, stations, reference_station, cases)
    with progress("evaluate", len(chosen) + 1, unit="methods") as advance:
        for name, method in {RAW: None, **chosen}.items():
            log.info("evaluate %s", name)
            found.verdicts.append(judge.verdict(name, method))
            advance(1)
    return found


def _named(
    methods: "Sequence[Method] | Mapping[str, Method]",
) -> "dict[str, Method]":
    pairs = (
        methods.items()
        if isinstance(methods, Mapping)
        else (
            (m if isinstance(m, str) else find_correction(m).label["method"], m)
            for m in methods
        )
    )
    found: dict[str, Method] = {}
    for name, method in pairs:
        if name == RAW:
            continue  # always there
        if name in found:
            raise ValueError(f"methods has {name!r} twice: give a mapping with names")
        find_correction(method)
        found[name] = method
    return found


def _check(
    cube: xr.Dataset, truth: xr.Dataset | None, stations: xr.Dataset | None
) -> None:
    if "unwrapped_phase" not in cube or not cube.sizes.get(PAIR):
        raise ValueError("cube has no unwrapped_phase: ingest pairs first")
    if cube["unwrapped_phase"].size > MAX_VALUES:
        raise ValueError(
            f"cube has {cube['unwrapped_phase'].size:.3g} values of phase: judge a "
            f"part of at most {MAX_VALUES:.1g}, cut by isel (--rows and --columns)"
        )
    if not np.isfinite(cube["unwrapped_phase"]).any():
        raise ValueError("unwrapped_phase is NaN everywhere: there is nothing to judge")
    if truth is not None:
        for name in ("displacement", "velocity"):
            if name not in truth:
                raise ValueError(f"truth has no {name!r}; it has {list(truth)}")
        if truth["velocity"].sizes != {Y: cube.sizes[Y], X: cube.sizes[X]}:
            raise ValueError(
                f"truth has {dict(truth['velocity'].sizes)} pixels and the cube "
                f"{cube.sizes[Y]} x {cube.sizes[X]}: they must be on one grid"
            )
        for dim in (Y, X):
            if dim in truth.coords and dim in cube.coords:
                own, other = cube[dim].values, truth[dim].values
                if np.abs(own - other).max() > 0.01 * np.ptp(own) / own.size:
                    raise ValueError(
                        f"truth has {dim} of {other[0]:.8g} to {other[-1]:.8g} and the "
                        f"cube {own[0]:.8g} to {own[-1]:.8g}: they must be on one grid"
                    )
    if stations is not None and any(n not in cube for n in LOS):
        raise ValueError(
            f"cube has no {', '.join(LOS)}: stations cannot be projected on its line "
            "of sight"
        )


def _distances(cube: xr.Dataset) -> list[float]:
    """Those of the scores, and some between two pixels and the size of the scene."""
    spacing = pixel_spacing(cube)
    size = np.hypot(cube.sizes[Y] * spacing[0], cube.sizes[X] * spacing[1])
    between = np.geomspace(2 * max(spacing), max(size / 2, 4 * max(spacing)), 12) / 1e3
    apart = [
        round(float(r), 3)
        for r in between
        if min(abs(np.log(r / d)) for d in DISTANCES_KM) > 0.1
    ]
    return sorted({*DISTANCES_KM, *apart})


@dataclass
class _Judge:
    cube: xr.Dataset
    evaluation: Evaluation
    stations: xr.Dataset | None
    reference_station: str | None
    cases: Sequence[Case]

    def verdict(self, name: str, method: "Method | None") -> Verdict:
        """All scores of one method; `None` does nothing."""
        label = {} if method is None else find_correction(method).label
        verdict = Verdict(name, label)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                for group in self._scores(verdict, method):
                    verdict.scores |= group
            except ValueError as error:
                if method is None:
                    raise
                verdict.notes.append(f"not judged further: {error}")
                log.warning("%s is not judged further: %s", name, error)
        said = [str(w.message) for w in caught if w.category is UserWarning]
        verdict.notes += list(dict.fromkeys(said))
        return verdict

    def _scores(
        self, verdict: Verdict, method: "Method | None"
    ) -> Iterator[dict[str, float]]:
        correction = None if method is None else find_correction(method)

        def corrected(cube: xr.Dataset) -> xr.Dataset:
            if correction is None:
                return uncorrected(cube)
            return cube.assign(correct(cube, correction).data_vars)

        shared: dict[str, Any] = {
            "reference": self.evaluation.reference,
            "weights": self.evaluation.weights,
        }
        cube = corrected(self.cube).load()
        if correction is not None:
            # What it chose for the stack holds for what is made of it below.
            known = cube["corrected_phase"].attrs
            correction = correction.again(known) or correction
        inversion = invert(cube, variable="corrected_phase", **shared).compute()
        verdict.maps = inversion[["velocity", "velocity_std"]]
        raw = self.evaluation.verdicts[0].maps if self.evaluation.verdicts else None
        if self.evaluation.truth is not None:
            yield against_truth(
                cube,
                inversion,
                self.evaluation.truth,
                self.evaluation.reference,
                raw,
            )
        verdict.structure = pair_structure(
            cube, "corrected_phase", distances_km=_distances(cube)
        )
        yield without_truth(cube, inversion, verdict.structure, raw)
        if self.stations is not None:
            verdict.stations = self._compared(inversion)
            yield against_stations(verdict.stations, self.reference_station)
        try:
            verdict.held_out = held_out_dates(
                self.cube,
                corrected,
                folds=self.evaluation.folds,
                seed=self.evaluation.seed,
                **shared,
            )
            yield {"held-out ratio": verdict.held_out.ratio}
        except ValueError as error:
            verdict.notes.append(f"no held-out dates: {error}")
        if self.cases:
            verdict.recoveries = list(
                recover(
                    self.cube,
                    corrected,
                    self.cases,
                    seed=self.evaluation.seed,
                    **shared,
                )
            )
            yield injected_scores(verdict.recoveries)

    def _compared(self, inversion: xr.Dataset) -> xr.Dataset:
        assert self.stations is not None
        vectors = sample_at_stations(self.cube[list(LOS)], self.stations)
        return compare_with_stations(
            inversion["displacement"],
            project_on_line_of_sight(self.stations, *(vectors[n] for n in LOS)),
            reference_station=self.reference_station,
        )
