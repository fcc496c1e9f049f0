"""How much of the atmosphere is removed, and how much deformation with it.

Simulated pairs of the "test" split, which training never draws, by decade of the power
of the deformation over that of the noise; and pairs without deformation. Beside the
networks: doing nothing, and regression on elevation.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from benchmarks.report import Row, options, report
from cube_denoise.dataset import split_seed
from cube_denoise.evaluate import amplitude_slope, false_alarm, rms_error
from cube_denoise.models import zoo
from cube_denoise.simulate.pair import SimulatedPair, simulate_pair
from cube_denoise.train import denoise

log = logging.getLogger(__name__)

DECADES = (-2, -1, 0, 1)
"""Lower ends of the decades, log10 of the power ratio."""
SUITE = 100
"""First word of the seeds within the split; others are used elsewhere."""
SIZE = {False: 256, True: 160}
"""Pixels a side, whole run and ``--quick``."""
SCENES = {False: 24, True: 3}
"""Scenes per case."""

Method = Callable[[SimulatedPair], np.ndarray]
"""Estimate of the deformation of a pair: m, positive toward the satellite."""


def methods() -> dict[str, Method]:
    """All that can be compared, by name."""
    found: dict[str, Method] = {"raw": _raw, "phase-elevation": _phase_elevation}
    for name in zoo.shipped_models():
        found[name] = partial(_network, zoo.load_model(name).fused())
    return found


def _raw(pair: SimulatedPair) -> np.ndarray:
    return pair.noisy


def _phase_elevation(pair: SimulatedPair) -> np.ndarray:
    valid = np.isfinite(pair.noisy)
    slope = np.polyfit(pair.elevation[valid], pair.noisy[valid], 1)[0]
    return np.asarray(pair.noisy - slope * pair.elevation)


def _network(model: object, pair: SimulatedPair) -> np.ndarray:
    return denoise(model, pair.noisy, pair.elevation)  # type: ignore[arg-type]


def deforming_pairs(decade: int, *, count: int, size: int) -> Iterator[SimulatedPair]:
    """First `count` pairs of the suite whose power ratio lies in a decade.

    The ratio asked for is log-uniform in the decade. The simulator does not draw
    deformation beyond 30 cm, so that at high ratios some pairs fall short of it: those
    outside the decade are passed over, and what is left of 10-100 is quieter than the
    other decades.
    """
    number = found = 0
    while found < count:
        draw, ratio = split_seed("test", SUITE, decade + 2, number).spawn(2)
        number += 1
        snr = 10 ** np.random.default_rng(ratio).uniform(decade, decade + 1)
        pair = simulate_pair((size, size), seed=draw, snr=snr, deforming=True)
        if 10.0**decade <= pair.snr <= 10.0 ** (decade + 1):
            found += 1
            yield pair
    log.info("decade 1e%d: %d pairs of %d drawn", decade, count, number)


def quiet_pairs(*, count: int, size: int) -> Iterator[SimulatedPair]:
    """Pairs of the suite without deformation."""
    for number in range(count):
        seed = split_seed("test", SUITE, len(DECADES), number)
        yield simulate_pair((size, size), seed=seed, deforming=False)


def _rows(
    case: str, pairs: Iterator[SimulatedPair], scores: dict[str, tuple[str, Callable]]
) -> list[Row]:
    """Median and spread of each score of each method over the pairs."""
    compared = methods()
    values: dict[str, list[list[float]]] = {name: [] for name in compared}
    for pair in pairs:
        for name, method in compared.items():
            estimate = method(pair)
            values[name].append([f(estimate, pair) for _, f in scores.values()])
    rows = []
    for name, table in values.items():
        low, middle, high = np.quantile(table, (0.16, 0.5, 0.84), axis=0)
        for k, (metric, (unit, _)) in enumerate(scores.items()):
            numbers = (float(x[k]) for x in (middle, low, high))
            value, *spread = numbers
            rows.append(Row(case, name, metric, value, unit, *spread, len(table)))
    return rows


def _error(estimate: np.ndarray, pair: SimulatedPair) -> float:
    return 1e3 * rms_error(estimate, pair.truth)


def _reduction(estimate: np.ndarray, pair: SimulatedPair) -> float:
    return 100 * (1 - _error(estimate, pair) / _error(pair.noisy, pair))


def _slope(estimate: np.ndarray, pair: SimulatedPair) -> float:
    return amplitude_slope(estimate, pair.truth)


def _alarm(estimate: np.ndarray, pair: SimulatedPair) -> float:
    return 1e3 * false_alarm(estimate)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    size, count = SIZE[asked.quick], SCENES[asked.quick]
    rows = []
    for decade in DECADES:
        rows += _rows(
            f"snr {10.0**decade:g}-{10.0 ** (decade + 1):g}",
            deforming_pairs(decade, count=count, size=size),
            {
                "rms error": ("mm", _error),
                "reduction": ("%", _reduction),
                "slope": ("1", _slope),
            },
        )
    rows += _rows(
        "pure noise",
        quiet_pairs(count=count, size=size),
        {"false alarm": ("mm", _alarm)},
    )
    notes = (
        f"{count} pairs of {size} x {size} pixels per case: median (16th to 84th "
        "percentile).\nreduction: of the rms error of each pair. slope: of the "
        "estimated on the true deformation inside\nthe source; 1 keeps it, 0 loses it. "
        "false alarm: 99th percentile of what is left of pure noise."
    )
    if not zoo.shipped_models():
        notes += "\nNo trained network comes with this installation."
    report(rows, asked.out, notes=notes)
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
