"""The task of the stack network: the displacement of all dates of a stack."""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.special import expit

from cube_denoise import evaluate
from cube_denoise.conventions import X, Y, phase_to_displacement
from cube_denoise.corrections.correction import in_turn
from cube_denoise.corrections.series import dates_of, stack_of
from cube_denoise.halo import Tile
from cube_denoise.inference import Network
from cube_denoise.model_card import CardText
from cube_denoise.models.stack import FOUND, RECOVERED, recovery_gain
from cube_denoise.models.stack_loss import SHARE, stack_loss
from cube_denoise.series_inference import series_model, stack_displacement
from cube_denoise.simulate.assembly import Scene
from cube_denoise.simulate.seeds import child_seeds, split_seed
from cube_denoise.simulate.stack import simulate_stack
from cube_denoise.stack_samples import StackBatch, StackSampling, stack_batch
from cube_denoise.training.task import Setup
from cube_denoise.training.transplant import transplanted
from cube_denoise.training.trend_share import fitted_share, rate_excess

DATES = (12, 20, 30)
"""Of the stacks that are scored, in turn."""
RATIOS = (0.1, 1.0)
"""Their ratios of powers, deformation over noise (`simulate_stack`)."""
CASES = (-2, -1, 0, 1, None)
"""Of the stacks for calibration, in turn: log10 of the least ratio of powers, which is
at most ten times that; None = at rest."""
CALIBRATION = 4
"""Tells the random numbers of these stacks from others."""
SOME = 2000
"""Pixels on dates, drawn of each of them."""
SOFT, WEAK = 0.1, 0.3
"""Logarithm of the standard deviation over which an error goes from in to out; weight
of the logarithms of the factors, which pulls towards one: shares of single stacks
spread by 0.15, and with less weight the factors follow the stacks that were drawn."""
TRANSPLANT = 99
"""Tells the random numbers of a transplant from those of the stack it is made to."""


@dataclass(frozen=True, kw_only=True)
class StackTask:
    """Displacement and its spread from simulated stacks (`training.task`)."""

    sampling: StackSampling = field(default_factory=StackSampling)
    """What stacks are drawn."""

    def draw(self, setup: Setup, split: str, number: int) -> StackBatch:
        """See `Task.draw`; with the noise of `setup` where it has any of the split.

        Raises
        ------
        ValueError
            If a recipe is asked for: this task has its own samples.
        """
        if setup.recipe is not None:
            raise ValueError(
                f"recipe={setup.recipe!r}: a stack network is trained on stacks of its "
                "own simulation; give no recipe"
            )
        batch = stack_batch(number, self.sampling, split=split, seed=setup.seed)
        bank = setup.noise.get(split)
        if bank is None:
            return batch
        seed = split_seed(split, setup.seed, number, TRANSPLANT)
        return transplanted(batch, bank, np.random.default_rng(seed), seasonal=True)

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """See `Task.loss`: that of `models.stack_loss`."""
        displacement, std = model(*batch[:5])
        return stack_loss(
            displacement.float(),
            std.float(),
            batch.displacement,
            batch.series,
            batch.visible,
        )

    def calibrated(self, model: Any) -> Any:
        """See `Task.calibrated`: its amplitude and standard deviations."""
        return with_trend_share(calibrated(model))

    def scores(self, model: Any) -> dict[str, float]:
        """See `Task.scores`."""
        return held_out_scores(model)

    def card(self, model: Any) -> CardText:
        """See `Task.card`."""
        how = self.sampling
        return CardText(
            purpose="Estimates the displacement of every date of a stack, and its "
            "standard deviation, from all dates at once.",
            inputs="displacement series with gaps, times, elevation, mean coherence; "
            "in units of the stack's own noise",
            samples="simulated stacks only (`cube_denoise.stack_samples`)",
            batch=f"{how.volume:,} pixels times dates, {how.dates[0]} to "
            f"{how.dates[1]} dates of {min(how.sides)} to {max(how.sides)} pixels a "
            "side",
            objective="logarithm of the rms error of each stack in units of its noise, "
            "and a quantile loss of its standard deviation (`models.stack_loss`)",
            judged="Medians over simulated stacks of seeds that training never draws, "
            f"128 x 128 pixels, {', '.join(map(str, DATES))} dates, power of "
            f"deformation over power of noise from {RATIOS[0]:g} to {RATIOS[1]:g}; "
            "false alarms on stacks without deformation; each date less its mean over "
            "the map, each pixel less its mean over time",
            limits=(
                "Trained on simulated noise: another spectrum, amplitude or season "
                "than the simulator's makes it worse, and its standard deviation "
                "wrong.",
                "Its estimate is multiplied by a factor that is one where little is "
                "found or motion is plain, of strength `recovery` of the "
                f"configuration, {model.config.recovery}, its standard deviation by "
                f"`std_factor`, {model.config.std_factor}; `trend_share`, "
                f"{model.config.trend_share}, of the variance is said to be of a trend "
                "in time. They are fitted to simulated stacks of the validation split, "
                "so that plain motion keeps its size and 68 % of the errors of dates "
                "and of velocities are held; those of one stack share their fate.",
                "A mean over the map on a date is no deformation to it, nor is a "
                "constant in time.",
                "Steps and transients are smoothed where the noise hides them.",
            ),
        )


def held_out_scores(model: Any, *, count: int = 18) -> dict[str, float]:
    """Scores on simulated stacks of the test split, which training never draws.

    Parameters
    ----------
    model : torch.nn.Module
        Stack network in eval mode, on the CPU.
    count : int
        Deforming stacks; a third as many without deformation are added.

    Returns
    -------
    dict
        Medians: rms error of raw series and estimate (mm), its relative reduction,
        amplitude slope, false alarms of raw series and estimate (mm), and the share of
        errors within the standard deviation.
    """
    rows, held, quiet = [], [], []
    low, high = np.log(RATIOS)
    for k in range(count):
        seed = split_seed("test", 2, k)
        ratio = float(np.exp(np.random.default_rng(seed).uniform(low, high)))
        scene = simulate_stack(seed=seed, dates=DATES[k % len(DATES)], snr=ratio)
        raw, estimate, std = seen_by(model, scene)
        truth = centred(scene.truth["displacement"].values)
        errors = [1e3 * evaluate.rms_error(a, truth) for a in (raw, estimate)]
        slope = evaluate.amplitude_slope(estimate, truth)
        rows.append((*errors, 1 - errors[1] / errors[0], slope))
        missed = np.abs(estimate - truth)
        held.append(float((missed < std)[np.isfinite(missed)].mean()))
    for k in range(count // 3):
        scene = simulate_stack(
            seed=split_seed("test", 3, k), dates=DATES[k % len(DATES)], amplitude=0
        )
        raw, estimate, _ = seen_by(model, scene)
        quiet.append([1e3 * evaluate.false_alarm(a) for a in (raw, estimate)])
    names = (
        "rms_error_raw_mm",
        "rms_error_corrected_mm",
        "rms_error_reduction",
        "amplitude_slope",
        "false_alarm_raw_mm",
        "false_alarm_corrected_mm",
        "coverage_68",
    )
    values = (*np.median(rows, 0), *np.median(quiet, 0), np.mean(held))
    return {n: round(float(v), 4) for n, v in zip(names, values, strict=True)}


def calibrated(model: Any, *, count: int = 150, side: int = 96) -> Any:
    """Stack network with its amplitude, then its standard deviation, put right.

    On simulated stacks of the validation split, which neither training nor the scores
    draw. ``recovery``: so that the slope of estimate on truth is one in the median of
    stacks where motion is plain (the upper end of `models.stack.RECOVERED`).
    ``std_factor``: so that the standard deviation then holds 68 % of the errors in
    every decade of the ratio of powers, and at rest, as nearly as one factor for each
    of `models.stack.FOUND` can (least squares of the shares).

    Parameters
    ----------
    model : torch.nn.Module
        Stack network in eval mode, on the CPU; not changed.
    count : int
        Stacks, five or more.
    side : int
        Pixels a side.

    Returns
    -------
    torch.nn.Module
        The same with other ``config.recovery`` and ``config.std_factor``.
    """
    plain = _with(model, recovery=0.0, std_factor=1.0)
    seen = [_calibrating(plain, calibration_stack(k, side)) for k in range(count)]
    recovery = _recovery(seen)
    knots = np.log(FOUND)
    sure = np.log([s.sure for s in seen])
    cases = np.arange(count) % len(CASES)
    excess = np.array([_excess(s, recovery, k) for k, s in enumerate(seen)])

    def off(factors: np.ndarray) -> np.ndarray:
        over = excess - np.interp(sure, knots, factors)[:, None]
        held = expit(-over / SOFT).mean(1)
        return np.array([held[cases == c].mean() for c in np.unique(cases)]) - SHARE

    fit = least_squares(lambda f: np.append(off(f), WEAK * f), np.zeros(knots.size))
    factors = tuple(round(float(f), 3) for f in np.exp(fit.x))
    return _with(model, recovery=round(recovery, 3), std_factor=factors)


def with_trend_share(model: Any, *, count: int = 150, side: int = 96) -> Any:
    """Stack network with the part of its errors that is a trend in time put right.

    ``trend_share``: so that the standard deviation of a velocity holds 68 % of the
    errors in every decade, and at rest, as nearly as one for each of
    `models.stack.FOUND` can. Parameters and stacks are those of `calibrated`.
    """
    scenes = [calibration_stack(k, side) for k in range(count)]
    sure = np.array([float(_calibrating(model, s).sure) for s in scenes])
    excess = [rate_excess(model, s, k) for k, s in enumerate(scenes)]
    shares = fitted_share(sure, excess, np.arange(count) % len(CASES))
    return _with(model, trend_share=shares)


class _Seen(NamedTuple):
    """A stack for calibration, and what the plain network makes of it."""

    truth: np.ndarray
    """m, centred, NaN where there are no data: (dates, rows, columns), as the next."""
    estimate: np.ndarray
    std: np.ndarray
    sure: np.ndarray
    """Rms of the estimate over that of its standard deviation, 0-d."""


def _calibrating(plain: Any, scene: Scene) -> _Seen:
    _, estimate, std = seen_by(plain, scene)
    truth = centred(scene.truth["displacement"].values)
    there = np.isfinite(estimate)
    truth, std = (np.where(there, a, np.nan).astype("float32") for a in (truth, std))
    sure = np.asarray(_rms(estimate[there]) / _rms(std[there]))
    return _Seen(truth, estimate.astype("float32"), std, sure)


def _recovery(seen: Sequence[_Seen]) -> float:
    """`StackConfig.recovery`: half of the stacks where it applies need less, half more.

    0 if it applies to none.
    """
    moving = [s for s in seen if (np.abs(s.truth) > 0).any()]
    plain = [s for s in moving if s.sure > RECOVERED[1]]
    slopes = np.array([evaluate.amplitude_slope(s.estimate, s.truth) for s in plain])
    needed = (1 / slopes - 1) * np.array([s.sure for s in plain]) ** 2
    return float(np.median(needed).clip(0)) if plain else 0.0


def _excess(seen: _Seen, recovery: float, number: int) -> np.ndarray:
    """Logarithm of errors over the standard deviation, of some pixels on dates."""
    missed = np.abs(recovery_gain(seen.sure, recovery) * seen.estimate - seen.truth)
    there = np.isfinite(missed)
    some = np.random.default_rng(number).choice(int(there.sum()), SOME)
    return np.asarray(np.log(missed[there] / seen.std[there] + 1e-6)[some])


def calibration_stack(number: int, side: int) -> Scene:
    """Draw a stack of 12 to 40 dates (see `CASES`); the split is validation."""
    seed = split_seed("validation", CALIBRATION, number)
    # `simulate_stack` takes the first five.
    rng = np.random.default_rng(child_seeds(seed, 6)[5])
    case = CASES[number % len(CASES)]
    ratio = None if case is None else 10 ** float(rng.uniform(case, case + 1))
    return simulate_stack(
        seed=seed,
        shape=(side, side),
        dates=int(np.exp(rng.uniform(*np.log([12, 41])))),
        amplitude=0.0 if ratio is None else None,
        snr=ratio,
    )


def _with(model: Any, **changed: Any) -> Any:
    made = copy.deepcopy(model)
    made.config = dataclasses.replace(model.config, **changed)
    return made


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype="float64"))))


def seen_by(model: Any, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Series of a scene, the network's estimate and its standard deviation.

    Both centred; m, NaN where the series has no data, shape (dates, rows, columns).
    """
    cube = scene.cube
    stack = stack_of(cube)
    whole = Tile(slice(0, cube.sizes[Y]), slice(0, cube.sizes[X]))
    phase = dates_of(cube, {Y: whole.y, X: whole.x}, stack)
    series = phase_to_displacement(phase, float(cube.attrs["wavelength"]))
    network = Network(model, "", "float32", torch.get_num_threads())
    prepared = series_model(cube, network, stack, in_turn)
    estimate, std, _ = stack_displacement(cube, whole, prepared)
    seen = np.where(np.isfinite(series), estimate, np.nan)
    return centred(series), centred(seen), std


def centred(series: np.ndarray) -> np.ndarray:
    """Each date less its mean over the map, then each pixel less its mean over time."""
    there = np.isfinite(series)
    for axes in ((1, 2), (0,)):
        count = np.maximum(there.sum(axes, keepdims=True), 1)
        total = np.where(there, series, 0.0).sum(axes, keepdims=True)
        series = series - total / count
    return series
