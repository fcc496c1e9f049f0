"""How often the intervals of a velocity hold the truth.

Series with noise that is white, seasonal or correlated from date to date; noise of
pairs that the network inversion turns into something like a random walk; and simulated
stacks, raw and corrected. Every way to state a standard deviation is a row, among them
the residual formula (Fattahi and Amelung 2015, equation 10).
"""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from benchmarks.atmosphere import corrected_by
from benchmarks.report import Row, options, report
from cube_denoise.conventions import phase_to_displacement, years_since
from cube_denoise.correction_errors import stated_errors
from cube_denoise.evaluate.held_out import uncorrected
from cube_denoise.evaluate.scores import amplitude_slope
from cube_denoise.evaluate.uncertainty import coverage
from cube_denoise.network import incidence_matrix
from cube_denoise.reference import find_reference
from cube_denoise.simulate import PairErrors, simulate_stack
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.time_models import Design, TimeModel
from cube_denoise.velocity import UNCERTAINTIES, fit_model

log = logging.getLogger(__name__)

MODELS = ("linear", "linear+annual")
PIXELS = {False: 10_000, True: 1000}
"""Independent series of a case; whole run and ``--quick``."""
DATES = (20, 60)
"""Dates of the series, 12 days apart."""
SCENES = {False: 16, True: 2}
STACK_DATES = {False: 40, True: 24}
SIZE = {False: 64, True: 24}
"""Pixels a side of the stacks, 200 m each."""
METHODS = ("raw", "temporal-filter", "common-scene", "pca", "dncnn", "stack")
LOOKS = {"high": 40.0, "low": 4.0}
"""Looks behind the decorrelation noise of the stacks."""
NETWORK = "effective + network"
"""With the covariance that the network inversion propagates."""
STATED = "effective + network + stated"
"""And with the errors that a correction states: as `invert` gives it."""
SEED_WORD = 520
CORNER = slice(0, 6)
"""Rows and columns of the reference area."""
JUDGED = slice(None, None, 2)
"""Rows and columns that are judged; neighbours share their errors."""


class Estimate(NamedTuple):
    """Errors of velocities and the standard deviations stated for them, m/yr."""

    error: np.ndarray
    std: dict[str, np.ndarray]


class Inverted(NamedTuple):
    """A series, and what decorrelation does to it by what the pairs say."""

    displacement: np.ndarray
    """m, shape (dates, pixels)."""
    covariance: np.ndarray
    """Shape (pixels or 1, dates, dates), to be multiplied by `scale`."""
    scale: np.ndarray
    """Weighted sum of squared pair residuals over what is expected of it, m^2."""


class Inverter:
    r"""Least squares weighted with the coherence, by dense matrices.

    The first date is the reference. With the variance S = (1 - g^2) / g^2 of pairs of
    coherence g (Cramer-Rao, up to a factor) the series has the covariance
    :math:`N^{-1} A^T W S W A N^{-1}, N = A^T W A`.

    Parameters
    ----------
    coherence : numpy.ndarray, shape (pairs, pixels), or (pairs, 1) where all share it
    incidence : numpy.ndarray, shape (pairs, dates)
        Of `network.incidence_matrix`.
    """

    def __init__(self, coherence: np.ndarray, incidence: np.ndarray) -> None:
        self.weight, self.B = np.clip(coherence, 0.05, 0.99), incidence[:, 1:]
        variance = (1 - self.weight**2) / self.weight**2
        normal, middle = (
            np.einsum("mi,mp,mj->pij", self.B, w, self.B, optimize=True)
            for w in (self.weight, self.weight**2 * variance)
        )
        self.inverse = np.linalg.inv(normal)
        product = self.inverse @ middle
        self.expected = (self.weight * variance).sum(0) - np.trace(product.T)
        inner = product @ self.inverse
        self.covariance = np.pad(inner, ((0, 0), (1, 0), (1, 0)))

    def __call__(self, observed: np.ndarray) -> Inverted:
        """Series of pairs observed, m, shape (pairs, pixels)."""
        right = (self.B.T @ (self.weight * observed)).T[..., None]
        series = (self.inverse @ right)[..., 0].T
        square = (self.weight * (observed - self.B @ series) ** 2).sum(0)
        displacement = np.pad(series, ((1, 0), (0, 0)))
        return Inverted(displacement, self.covariance, square / self.expected)


def estimates(
    displacement: np.ndarray,
    design: Design,
    truth: np.ndarray | float = 0.0,
    network: Inverted | None = None,
    stated: tuple[np.ndarray, np.ndarray] | None = None,
) -> Estimate:
    """Fit, and every way to state the error of the velocity.

    `stated` are the terms of the errors that a correction states, if it does
    (`StatedErrors.rate_terms`).
    """
    fits = {u: fit_model(displacement, design, uncertainty=u) for u in UNCERTAINTIES}
    if network is not None:
        g = design.rate @ np.linalg.pinv(design.matrix)
        P = np.eye(g.size) - design.matrix @ np.linalg.pinv(design.matrix)
        C = network.covariance
        terms = [
            network.scale * np.einsum("i,pij,j->p", g, C, g),
            network.scale * np.einsum("ij,pji->p", P, C),
        ]
        for name, more in ((NETWORK, (0.0, 0.0)), (STATED, stated)):
            if more is not None:
                fits[name] = fit_model(
                    displacement,
                    design,
                    propagated=terms[0] + more[0],
                    expected=terms[1] + more[1],
                )
    std = {name: fit.velocity_std for name, fit in fits.items()}
    return Estimate(fits["effective"].velocity - truth, std)


def regular_dates(count: int) -> np.ndarray:
    """Dates 12 days apart, datetime64[s]."""
    return np.datetime64("2020-01-01", "s") + 12 * 86400 * np.arange(count)


def correlated(days: np.ndarray, tau: float) -> np.ndarray:
    """Root of the covariance of noise with correlation time `tau`, days."""
    if tau == 0:
        return np.eye(days.size)
    return np.linalg.cholesky(np.exp(-np.abs(days[:, None] - days) / tau))


def noises(times: np.ndarray, *, quick: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Series of noise, m, shape (dates, pixels), by name."""
    rng = np.random.default_rng(split_seed("test", SEED_WORD, times.size))
    years, shape = years_since(times, times[0]), (times.size, PIXELS[quick])
    for tau in (0, 12, 30, 60, 120):
        name = f"correlation time {tau} d" if tau else "white"
        root = correlated(365.25 * years, tau)
        yield name, 0.01 * (root @ rng.normal(size=shape))
    phase = rng.uniform(0, 2 * np.pi, shape[1])
    cycle = np.cos(2 * np.pi * years[:, None] + phase)
    amplitude = np.abs(rng.normal(0, 0.01, shape[1]))
    yield "seasonal + white", amplitude * cycle + rng.normal(0, 0.005, shape)


def series_rows(*, quick: bool) -> Iterator[Row]:
    """Rows of series without a network."""
    for count in DATES:
        times = regular_dates(count)
        for name, noise in noises(times, quick=quick):
            for model in MODELS:
                design = TimeModel.parse(model).design(times)
                found = estimates(noise, design)
                yield from scores(f"{name}, {count} dates, {model}", [found])


def network_rows(*, quick: bool) -> Iterator[Row]:
    """Rows of decorrelation noise of pairs, with and without atmosphere."""
    times = regular_dates(60)
    days = 12.0 * np.arange(60)
    apart = days - days[:, None]
    first, second = np.nonzero((apart > 0) & (apart <= 36))
    incidence, _ = incidence_matrix(times[first], times[second])
    rng = np.random.default_rng(split_seed("test", SEED_WORD, 1))
    for level, start in (("low", 0.3), ("mid", 0.6), ("high", 0.9)):
        coherence = start * np.exp(-apart[first, second] / 90)[:, None]
        sigma = 4.4e-3 * np.sqrt((1 - coherence**2) / (2 * 20 * coherence**2))
        pairs = sigma * rng.normal(size=(first.size, PIXELS[quick]))
        inverted = Inverter(coherence, incidence)(pairs)
        for air, tau in ((0.0, 0), (0.005, 0), (0.005, 30)):
            noise = air * (
                correlated(days, tau) @ rng.normal(size=(60, pairs.shape[1]))
            )
            name = f"{1e3 * air:g} mm" + (f", {tau} d" if tau else "")
            for model in MODELS:
                found = estimates(
                    inverted.displacement + noise,
                    TimeModel.parse(model).design(times),
                    network=inverted,
                )
                yield from scores(
                    f"{level} coherence, atmosphere {name}, {model}", [found]
                )


def stack_rows(*, quick: bool) -> Iterator[Row]:
    """Rows of simulated stacks, raw and corrected: at rest, and in the sources."""
    found: dict[tuple[str, str, str, str], list[Estimate]] = {}
    slopes: dict[tuple[str, str], list[float]] = {}
    for number in range(SCENES[quick]):
        for looks, value in LOOKS.items():
            for state in ("at rest", "in sources"):
                scene = simulate_stack(
                    seed=split_seed("test", SEED_WORD, 2, number),
                    shape=(SIZE[quick], SIZE[quick]),
                    spacing=200.0,
                    dates=STACK_DATES[quick],
                    pair_errors=PairErrors(looks=value, unwrapping=0, gaps=0),
                    **({"amplitude": 0.0} if state == "at rest" else {"snr": 1.0}),
                )
                cube = scene.cube
                incidence, times = incidence_matrix(
                    cube["reference_time"].values, cube["secondary_time"].values
                )
                inverter = Inverter(_judged(cube["coherence"].values), incidence)
                for method in METHODS:
                    corrected = uncorrected(cube)
                    if method != "raw":
                        corrected = corrected_by(cube, method=method)
                    inverted = inverter(_observed(corrected))
                    for model in MODELS:
                        design = TimeModel.parse(model).design(times)
                        truth = _true_velocity(scene.truth, design)
                        one = estimates(
                            inverted.displacement,
                            design,
                            truth,
                            inverted,
                            _stated(corrected, design, times),
                        )
                        if state == "in sources":
                            slope = amplitude_slope(one.error + truth, truth)
                            slopes.setdefault((method, model), []).append(slope)
                            mask = _judged(scene.truth["source_mask"].values) > 0
                            std = {k: s[mask] for k, s in one.std.items()}
                            one = Estimate(one.error[mask], std)
                        found.setdefault((method, looks, state, model), []).append(one)
            log.info("stack %d, %s coherence", number, looks)
    for method, looks, state, model in found:
        case = f"{method}, {looks} coherence, {state}, {model}"
        yield from scores(case, found[method, looks, state, model], scenes=True)
    for (method, model), values in slopes.items():
        yield Row(f"kept by {method}", model, "slope", float(np.median(values)), "1")


def _observed(cube: xr.Dataset) -> np.ndarray:
    """Pairs relative to the corner, m, shape (pairs, pixels)."""
    phase = cube["corrected_phase"]
    return phase_to_displacement(_relative(phase.values), cube.attrs["wavelength"])


def _stated(
    cube: xr.Dataset, design: Design, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Terms of the errors that the correction states, of the pixels judged."""
    area = find_reference(cube, {"y": CORNER, "x": CORNER})
    stated = stated_errors(cube, "corrected_phase", area, times)
    if stated is None:
        return None
    shape = tuple(cube.sizes[d] for d in ("y", "x"))
    window = {d: slice(0, cube.sizes[d]) for d in ("y", "x")}
    series = np.zeros((times.size, shape[0] * shape[1]))
    rate, scatter = stated.rate_terms(cube, window, series, design)
    return _judged(rate.reshape(shape)), _judged(scatter.reshape(shape))


def _true_velocity(truth: xr.Dataset, design: Design) -> np.ndarray:
    """Rate of the model fitted to the true displacement, relative to the corner."""
    moved = _relative(truth["displacement"].values)
    return fit_model(moved, design).velocity


def _relative(maps: np.ndarray) -> np.ndarray:
    """Maps less their mean over the corner, pixels judged, shape (maps, pixels)."""
    area = maps[:, CORNER, CORNER].astype("float64")
    return _judged(maps) - area.mean((1, 2))[:, None]


def _judged(maps: np.ndarray) -> np.ndarray:
    """Pixels judged of maps or a map, float64, the pixels in one dimension."""
    chosen = maps[..., JUDGED, JUDGED].astype("float64")
    return chosen.reshape(*maps.shape[:-2], -1)


def scores(
    case: str, found: Sequence[Estimate], *, scenes: bool = False
) -> Iterator[Row]:
    """Coverage and size of every standard deviation; pooled over the scenes."""
    names = found[0].std
    for name in names:
        for level in (0.68, 0.95):
            held = 100 * np.array(
                [
                    coverage(e.error, e.std[name], 0 * e.error, level=level)
                    for e in found
                ]
            )
            metric = f"{100 * level:.0f} % holds"
            if not scenes:
                yield Row(case, name, metric, held[0], "%")
                continue
            drawn = np.random.default_rng(0).choice(held, (2000, held.size)).mean(1)
            low, high = np.quantile(drawn, (0.025, 0.975))
            mean = float(held.mean())
            yield Row(case, name, metric, mean, "%", low, high, held.size)
        square = sum(float((e.error**2).sum()) for e in found)
        stated = sum(float((e.std[name] ** 2).sum()) for e in found)
        yield Row(case, name, "std / rms error", np.sqrt(stated / square), "1")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for part in (series_rows, network_rows, stack_rows):
            rows += part(quick=asked.quick)
    report(rows, asked.out, notes=NOTES)
    return rows


NOTES = """\
68 % holds, 95 % holds: how many of the true velocities are within 0.994 and 1.96
stated standard deviations. Of stacks: means over the stacks, with 95 % bootstrap
intervals over them; pixels of a stack share their errors. std / rms error: root mean
squares, pooled; over 1 where intervals hold what they say but the stated scatters.
residual: errors independent from date to date (Fattahi and Amelung 2015, equation 10).
effective: with the factor of the autocorrelation. bootstrap: blocks of dates.
effective + network: with the decorrelation that the network propagates; + stated: and
with the errors that a correction states, as `invert` gives it.
at rest: nothing moves, so all is noise. in sources: the same stacks with deformation,
inside the sources; a method that takes off deformation errs there by what it takes
off, of which no standard deviation knows. kept by: slope of the velocity on the true
one, of both coherences; 1 keeps the deformation, 0 loses it (median over stacks)."""


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    main()
