"""Separations of stacks: do they find known sources, and what does it do to velocity.

Simulated stacks of one or two known deformation sources under stratified and turbulent
delay (`separation_stacks`): VAE-clustering, ICA, PCA and NMF by the same clustering and
rule, HDBSCAN in place of FISHDBC, beside raw, the elevation corrections, a ramp and
three shipped networks. Then the setting of the VAE-clustering paper: hundreds of pairs
of 6 to 24 days, one GNSS station as reference, another to compare with. Then pairs that
come one by one, and two real stacks.

Parts run alone: ``--part sources``, ``stations``, ``updates``, ``real``. With
``--resume FOLDER`` every stack that is done is kept there, and not done again.
"""

import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.atmosphere import in_processes, interval
from benchmarks.report import Row, parser, report
from benchmarks.separation_stacks import KnownStack, known_stack, station_stack
from cube_denoise.correct import correct
from cube_denoise.corrections import find_correction
from cube_denoise.corrections.correction import in_turn
from cube_denoise.evaluate.scores import amplitude_slope, rms_error
from cube_denoise.invert import invert
from cube_denoise.reference import choose_reference
from cube_denoise.separation.cluster_removal import ClusterRemoval, Decided, Separated
from cube_denoise.separation.clusters import Clusterer, cluster

log = logging.getLogger(__name__)

STACKS, SEEDS = {False: 20, True: 2}, {False: 3, True: 1}
SIDE, DATES = {False: 96, True: 48}, {False: 35, True: 14}
EPOCHS, TILE = {False: 200, True: 2}, {False: 32, True: 16}
METHODS = ("vae-clustering", "ica-clustering", "pca-clustering", "nmf-clustering")
HDBSCAN = "vae-clustering, hdbscan"
CLASSICAL = ("ramp", "phase-elevation", "local-phase-elevation", "pca", "ica")
NETWORKS = ("stack", "unet", "dncnn-dilated")
"""One that sees all dates and two that see one pair; all would take minutes a stack."""
RAW = "raw"
UNITS = {
    "velocity rms error": "mm/yr",
    "velocity reduction": "%",
    "velocity slope": "1",
    "source map r": "1",
    "source course r": "1",
    "clusters": "1",
    "time": "s",
}
NOTES = """\
Medians over stacks (and over seeds of the method within a stack, where it has any), in
brackets the 95 % bootstrap interval of the median. Velocity error and reduction are
those of maps less their means; negative = worse than raw. The slope inside the sources
is 1 where the deformation is kept. Source map r and course r: of each true source the
cluster whose map is most like it (absolute correlation, over the scene), and the
correlation of that cluster's course with the true one. A method that outputs zero would
have a slope of 0.
"""


def removal(name: str, seed: int, *, quick: bool) -> ClusterRemoval:
    """Correction by clusters as it is judged here."""
    method, _, clustering = name.partition(", ")
    options: dict[str, object] = {"seed": seed, "looks": 0}
    if clustering:
        options["clustering"] = clustering
    if method == "vae-clustering":
        options |= {"epochs": EPOCHS[quick], "tile": TILE[quick]}
    found = find_correction(method, **options)
    assert isinstance(found, ClusterRemoval)
    return found


def scores(known: KnownStack, *, quick: bool) -> dict[str, dict[str, float]]:
    """Scores of every method on one stack."""
    warnings.simplefilter("ignore", UserWarning)
    cube, truth = known.scene
    reference = choose_reference(cube, variable="unwrapped_phase")
    judged: dict[str, dict[str, float]] = {}
    truth_map = truth["velocity"].values

    def judge(name: str, phase: xr.DataArray) -> dict[str, float]:
        velocity = invert(
            cube.assign(corrected_phase=phase),
            variable="corrected_phase",
            reference=reference,
        )["velocity"].values
        error = 1e3 * rms_error(velocity, truth_map)
        raw = judged.get(RAW, {"velocity rms error": error})["velocity rms error"]
        return {
            "velocity rms error": error,
            "velocity reduction": 100 * (1 - error / raw),
            "velocity slope": amplitude_slope(velocity, truth_map),
        }

    judged[RAW] = judge(RAW, cube["unwrapped_phase"])
    others = (*CLASSICAL, *(() if quick else NETWORKS))
    for name in others:
        began = time.process_time()
        phase = correct(cube, name)["corrected_phase"].compute()
        used = time.process_time() - began
        judged[name] = judge(name, phase) | {"time": used}
    for name in METHODS:
        again = []
        for seed in range(SEEDS[quick]):
            began = time.process_time()
            correction = removal(name, seed, quick=quick)
            found = correction.separated(cube, in_turn)
            used = time.process_time() - began
            again.append(
                judge(name, _corrected(cube, correction, found))
                | found_sources(known, found)
                | {"time": used}
            )
            if name == "vae-clustering":
                other = removal(HDBSCAN, seed, quick=quick)
                labels = cluster(found.components, method="hdbscan")
                changed = other.judged(found.stack, found.components, labels, found.fit)
                judged.setdefault(HDBSCAN, {})
                again[-1]["hdbscan"] = judge(  # type: ignore[assignment]
                    HDBSCAN, _corrected(cube, other, changed)
                ) | found_sources(known, changed)
        if name == "vae-clustering":
            judged[HDBSCAN] = _middle([a.pop("hdbscan") for a in again])  # type: ignore[misc]
        judged[name] = _middle(again)
    return judged


def _corrected(
    cube: xr.Dataset, correction: ClusterRemoval, found: Separated
) -> xr.DataArray:
    decided = Decided(of=correction, found=found)
    return correct(cube, decided)["corrected_phase"].compute()


def _middle(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {n: float(np.nanmedian([s[n] for s in scores])) for n in scores[0]}


def found_sources(known: KnownStack, found: Separated) -> dict[str, float]:
    """How like its source the cluster is that is most like it; means over sources."""
    stack, clusters = found.stack, found.clusters
    if not len(clusters.maps):
        return {"source map r": 0.0, "source course r": 0.0, "clusters": 0.0}
    courses = stack.to_dates @ found.amplitudes
    looks = stack.looks
    in_map, in_course = [], []
    for map_, course in zip(known.maps, known.courses, strict=True):
        rows, columns = stack.known.shape
        cells = [
            np.add.reduceat(
                np.add.reduceat(a, np.arange(0, map_.shape[0], looks), 0),
                np.arange(0, map_.shape[1], looks),
                1,
            )
            for a in (map_, np.ones_like(map_))
        ]
        true = (cells[0] / cells[1])[:rows, :columns][stack.known]
        alike = [abs(np.corrcoef(true, m)[0, 1]) for m in clusters.maps]
        best = int(np.argmax(alike))
        in_map.append(alike[best])
        own = courses[:, best]
        in_course.append(abs(np.corrcoef(own, course)[0, 1]) if own.std() > 0 else 0.0)
    return {
        "source map r": float(np.mean(in_map)),
        "source course r": float(np.mean(in_course)),
        "clusters": float(len(clusters.maps)),
    }


def _kept(
    folder: Path | None, name: str, compute: Callable[[], dict[str, dict[str, float]]]
) -> dict[str, dict[str, float]]:
    """Scores that were computed before, or now."""
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and path.is_file():
        found: dict[str, dict[str, float]] = json.loads(path.read_text())
        return found
    made = compute()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made))
    return made


def source_rows(*, quick: bool, folder: Path | None) -> list[Row]:
    """Rows of the simulated stacks of known sources."""
    table: dict[str, list[dict[str, float]]] = {}
    began = time.monotonic()
    one = partial(_source_scores, quick=quick, folder=folder)
    numbers = range(1, STACKS[quick] + 1)
    for number, found in zip(
        numbers, in_processes(one, numbers, quick=quick), strict=True
    ):
        for name, values in found.items():
            table.setdefault(name, []).append(values)
        log.info("stack %d, %.0f s", number, time.monotonic() - began)
    return list(_rows("known sources", table))


def _source_scores(
    number: int, *, quick: bool, folder: Path | None
) -> dict[str, dict[str, float]]:
    """Scores of one stack, as `scores` gives them or gave them before."""

    def compute() -> dict[str, dict[str, float]]:
        known = known_stack(number, side=SIDE[quick], dates=DATES[quick])
        return scores(known, quick=quick)

    return _kept(folder, f"sources-{'quick-' * quick}{number}", compute)


def _rows(case: str, table: dict[str, list[dict[str, float]]]) -> Iterator[Row]:
    for name, many in table.items():
        for metric, unit in UNITS.items():
            values = [m[metric] for m in many if metric in m]
            if values:
                value, low, high = interval(values)
                yield Row(case, name, metric, value, unit, low, high, len(values))


STATION_SIDE, STATION_DATES = {False: 96, True: 48}, {False: 167, True: 20}
STATION_STACKS = {False: 3, True: 1}
COARSE_WEATHER = 40
"""Pixels over which the simulated weather model is averaged: 6 km."""


def station_rows(*, quick: bool, folder: Path | None) -> list[Row]:
    """Rows of the paper's setting: the velocity at a station, another as reference."""
    table: dict[str, list[dict[str, float]]] = {}
    for number in range(1, STATION_STACKS[quick] + 1):
        found = _kept(
            folder,
            f"stations-{'quick-' * quick}{number}",
            partial(_station_scores, number, quick=quick),
        )
        for name, values in found.items():
            table.setdefault(name, []).append(values)
    units = {"true": "mm/yr", "velocity": "mm/yr", "difference": "mm/yr"}
    return [
        Row(f"station of stack {k + 1}", name, metric, values[k][metric], unit)
        for k in range(STATION_STACKS[quick])
        for name, values in table.items()
        for metric, unit in units.items()
    ]


def _station_scores(number: int, *, quick: bool) -> dict[str, dict[str, float]]:
    warnings.simplefilter("ignore", UserWarning)
    known, places = station_stack(
        number, side=STATION_SIDE[quick], dates=STATION_DATES[quick]
    )
    cube, truth = known.scene
    base, station = places
    model = _coarse_weather(truth, COARSE_WEATHER if not quick else 12)
    phases: dict[str, Callable[[], xr.DataArray]] = {
        RAW: lambda: cube["unwrapped_phase"],
        "ramp": lambda: correct(cube, "ramp")["corrected_phase"].compute(),
        "phase-elevation": lambda: _method(cube, "phase-elevation"),
        "local-phase-elevation": lambda: _method(cube, "local-phase-elevation"),
        "weather model": lambda: _less_weather(cube, model),
        "vae-clustering": lambda: _by_clusters(cube, quick=quick),
    }
    rows, columns = (slice(base[k] - 2, base[k] + 3) for k in (0, 1))
    true = 1e3 * float(
        truth["velocity"][station] - truth["velocity"][rows, columns].mean()
    )
    found = {}
    for name, phase in phases.items():
        velocity = invert(
            cube.assign(corrected_phase=phase()),
            variable="corrected_phase",
            reference={"y": rows, "x": columns},
        )["velocity"].compute()
        near = velocity[
            station[0] - 1 : station[0] + 2, station[1] - 1 : station[1] + 2
        ]
        seen = 1e3 * float(near.median())
        found[name] = {"true": true, "velocity": seen, "difference": seen - true}
        log.info("stack %d, %s: %.1f mm/yr of %.1f", number, name, seen, true)
    return found


def _method(cube: xr.Dataset, name: str) -> xr.DataArray:
    return correct(cube, name)["corrected_phase"].compute()


def _by_clusters(cube: xr.Dataset, *, quick: bool) -> xr.DataArray:
    correction = removal("vae-clustering", 0, quick=quick)
    return _corrected(cube, correction, correction.separated(cube, in_turn))


def _coarse_weather(truth: xr.Dataset, size: int) -> np.ndarray:
    """True delay as a weather model sees it: smooth, m, shape (dates, y, x)."""
    from scipy import ndimage

    return np.stack(
        [ndimage.gaussian_filter(d, size / 2.355) for d in truth["delay"].values]
    )


def _less_weather(cube: xr.Dataset, delay: np.ndarray) -> xr.DataArray:
    from cube_denoise.network import pair_indices

    first, second, _ = pair_indices(
        cube["reference_time"].values, cube["secondary_time"].values
    )
    factor = 4 * np.pi / cube.attrs["wavelength"]
    return cube["unwrapped_phase"] - (factor * (delay[second] - delay[first])).astype(
        "float32"
    )


def update_rows(*, quick: bool) -> list[Row]:
    """Rows of pairs that come one by one: labels against those of a new clustering."""
    from sklearn.metrics import adjusted_rand_score

    known = known_stack(2, side=SIDE[quick], dates=DATES[quick])
    correction = removal("vae-clustering", 0, quick=quick)
    cube = known.scene.cube
    found = correction.separated(cube, in_turn)
    maps = found.components.maps
    count = maps.shape[0] // len(found.stack.pairs)
    start = len(found.stack.pairs) * 2 // 3 * count
    growing = Clusterer("fishdbc")
    growing.add(maps[:start])
    before = growing.labels()
    agreement, kept, seconds = [], [], []
    for first in range(start, len(maps), count):
        began = time.process_time()
        growing.add(maps[first : first + count])
        labels = growing.labels()
        seconds.append(time.process_time() - began)
        anew = Clusterer("fishdbc")
        anew.add(maps[: first + count])
        agreement.append(adjusted_rand_score(anew.labels(), labels))
        kept.append(adjusted_rand_score(before, labels[:start]))
    hdbscan = Clusterer("hdbscan")
    hdbscan.add(maps)
    case = f"{len(agreement)} pairs joining {start // count}"
    values = {
        "adjusted Rand index, least, against a refit": min(agreement),
        "the same, mean": float(np.mean(agreement)),
        "of the old components, last against first": kept[-1],
        "of fishdbc against hdbscan, all pairs": adjusted_rand_score(
            hdbscan.labels(), labels
        ),
    }
    rows = [Row(case, "fishdbc", n, float(v), "1") for n, v in values.items()]
    return [*rows, Row(case, "fishdbc", "time a pair", float(np.mean(seconds)), "s")]


def real_rows(*, quick: bool) -> list[Row]:
    """Rows of real stacks: slope of the corrected on the raw velocity in the bowl."""
    from benchmarks import mexico_city, real_stacks
    from cube_denoise.store import open_cube

    rows: list[Row] = []
    stacks = {}
    if mexico_city.FOLDER.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            url = mexico_city.mexico_cube(
                Path(folder) / "cube", catalog=Path(folder) / "catalog.json"
            )
            cube = open_cube(url).load()
        stacks["mexico-city-s1"] = (cube, mexico_city.REFERENCE)
    if real_stacks.ETNA.is_dir() and not quick:
        stacks["etna-envisat"] = (
            real_stacks.etna_cube().load(),
            real_stacks.ETNA_REFERENCE,
        )
    for name, (one, reference) in stacks.items():
        weights = "coherence" if "coherence" in one else "none"
        velocity_of = partial(invert, reference=reference, weights=weights)
        raw = velocity_of(one, variable="unwrapped_phase")["velocity"].compute()
        for method in ("pca-clustering", "ica-clustering", "vae-clustering"):
            correction = removal(method, 0, quick=quick)
            found = correction.separated(one, in_turn)
            phase = _corrected(one, correction, found)
            velocity = velocity_of(
                one.assign(corrected_phase=phase), variable="corrected_phase"
            )["velocity"]
            values = {
                "slope on raw": amplitude_slope(velocity.values, raw.values),
                "clusters": float(len(found.evidence)),
                "removed": float(sum(e.verdict == "removed" for e in found.evidence)),
            }
            rows += [Row(name, method, n, v, "1") for n, v in values.items()]
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run, print, and return the rows."""
    known = parser(__doc__)
    parts = ("sources", "stations", "updates", "real")
    known.add_argument("--part", choices=parts, action="append")
    known.add_argument("--resume", type=Path, metavar="FOLDER")
    asked = known.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    rows: list[Row] = []
    for part in asked.part or parts:
        if part == "sources":
            rows += source_rows(quick=asked.quick, folder=asked.resume)
        elif part == "stations":
            rows += station_rows(quick=asked.quick, folder=asked.resume)
        elif part == "updates":
            rows += update_rows(quick=asked.quick)
        else:
            rows += real_rows(quick=asked.quick)
    report(rows, asked.out, notes=NOTES)
    return rows


if __name__ == "__main__":
    main()
