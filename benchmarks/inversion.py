"""Inversion of one stack by our solver and by peers, beside the speed of memory.

60 dates, 174 pairs (3 nearest neighbours), 300 x 300 pixels, float32, with truth:
without gaps, with gaps alike in squares, with gaps of each pixel's own, and the latter
with weights. MintPy, insar-rs and dolphin run in environments that this makes under
``~/.cache/cube_denoise-benchmarks``. Every solver is a process of its own that has its
inputs in memory and has warmed up; they solve in turn, on one core and on all. Then
from store to store, 512 x 1024 pixels: our inversion of a cube beside MintPy's command
on HDF5, and beside a pass through the cube that reads the pairs and writes series
without solving. Then our solver on other networks.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.inversion_networks import NETWORKS
from benchmarks.inversion_networks import measure as measure_networks
from benchmarks.inversion_peers import (
    ENVIRONMENT,
    PEERS,
    PeerError,
    Runner,
    environment,
)
from benchmarks.inversion_stack import GAPS, Stack, neighbours, simulate
from benchmarks.inversion_store import reference_pixel, write_cube, write_hdf5
from benchmarks.inversion_worker import ROUND
from benchmarks.report import Row, options, report

log = logging.getLogger(__name__)

SLOW = 2.0
"""Seconds of a run from which a side solves fewer times."""
WEIGHTED = "irregular gaps, weights"
CASES = (*GAPS, WEIGHTED)
STORE = "store to store, irregular gaps, weights"
OURS, OWN_STORE, FLOOR = "cube_denoise", "invert_cube", "memory pass"
STORE_FLOOR = "store pass"
TAKES = {
    "MintPy": CASES,
    "insar-rs": GAPS,
    "dolphin": (GAPS[0], WEIGHTED),
}
"""Cases of each peer: insar-rs has no weights; gaps need weights in dolphin."""
SAMPLE = 200
"""Pixels solved by dense least squares in float64, to compare with."""


@dataclass(frozen=True)
class Size:
    """What is inverted, and how often."""

    cases: Sequence[str]
    dates: int
    pixels: int
    rounds: int
    few: int
    """Rounds of a slow side."""
    peers: bool
    store: tuple[int, int]
    """Rows and columns of what goes from store to store, once if that is slow."""


SIZES = {
    False: Size(CASES, 60, 300, 15, 3, True, (512, 1024)),
    True: Size((WEIGHTED,), 12, 40, 2, 1, False, (40, 40)),
}
"""By ``--quick``."""

Key = tuple[str, str, int]
"""Case, side, threads."""


@dataclass(frozen=True)
class Goal:
    """One ratio to reach."""

    what: str
    value: float
    limit: float
    unit: str = "1"
    most: bool = False
    """The value must stay below the limit, not above."""

    @property
    def line(self) -> str:
        """The verdict."""
        good = self.value <= self.limit if self.most else self.value >= self.limit
        unit = "" if self.unit == "1" else f" {self.unit}"
        bound = "at most" if self.most else "at least"
        if np.isnan(self.value):
            return f"not measured: {self.what}, {bound} {self.limit:g}{unit}."
        return (
            f"{'reached' if good else 'MISSED'}: {self.what} {self.value:.4g}{unit}, "
            f"{bound} {self.limit:g}{unit}."
        )


class Bench:
    """All runs, by case, side and threads."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.cores = len(os.sched_getaffinity(0))
        self.notes: list[str] = []
        self.runs: dict[Key, Runner] = {}
        self.rows: list[Row] = []
        self.pythons: dict[str, Path] = {}
        pairs = neighbours(size.dates, 3)
        self.stack = simulate(pairs, (size.pixels, size.pixels))

    def install(self) -> None:
        """Make the environments of the peers; note those that cannot be made."""
        for peer in PEERS:
            try:
                self.pythons[peer] = environment(peer)
            except PeerError as error:
                self.notes.append(f"Left out: {error}")

    def solvers(self) -> None:
        """All cases with arrays in memory."""
        for gaps in GAPS:
            stack, folder = self.stack.with_gaps(gaps), self.folder / gaps
            stack.save(folder)
            if "MintPy" in self.pythons:
                write_hdf5(stack, folder / "ifgramStack.h5")
            self.notes.append(
                f"{gaps}: {stack.patterns} patterns, {stack.gappy:.0%} of the pixels "
                f"gappy, {stack.linked().mean():.1%} with all dates linked."
            )
            for case in self.size.cases:
                if case.removesuffix(", weights") != gaps:
                    continue
                sides = [OURS, FLOOR, *(p for p, c in TAKES.items() if case in c)]
                self.measure(case, sides, stack, folder)

    def stores(self) -> None:
        """From store to store."""
        stack = simulate(neighbours(self.size.dates, 3), self.size.store)
        stack, folder = stack.with_gaps(GAPS[2]), self.folder / "stores"
        stack.save(folder)
        write_cube(stack, folder)
        if "MintPy" in self.pythons:
            write_hdf5(stack, folder / "ifgramStack.h5")
        row, column = reference_pixel(stack)
        stack = stack.referenced(row * stack.width + column)
        sides = [OWN_STORE, STORE_FLOOR, "ifgram_inversion.py"]
        self.measure(STORE, sides, stack, folder)

    def measure(
        self, case: str, sides: Sequence[str], stack: Stack, folder: Path
    ) -> None:
        """Solve in turn; add rows."""
        started = list(self.start(case, sides, folder))
        live = [r for _, r in started]
        for number in range(self.size.rounds):
            for runner in list(live):
                slow = runner.runs and runner.runs[0]["seconds"] > SLOW
                if slow and number >= (1 if case == STORE else self.size.few):
                    continue
                try:
                    runner.run()
                except PeerError as error:
                    self.notes.append(f"Left out: {error}")
                    live.remove(runner)
        judge = Judge(stack, weighted="weights" in case)
        for key, runner in started:
            if runner in live:
                rows = rows_of(key, runner, stack, judge)
                self.rows += rows
                self.runs[key] = runner
                runner.stop()
                log.info("%s: %s", key, "; ".join(r.cell for r in rows[:2]))

    def start(
        self, case: str, sides: Sequence[str], folder: Path
    ) -> Iterator[tuple[Key, Runner]]:
        """Processes of the sides that run here, on one core and on all."""
        for side in sides:
            peer = ENVIRONMENT.get(side)
            if peer is not None and peer not in self.pythons:
                continue
            threads = {1, self.cores} | ({2} if peer is None else set())
            if case == STORE:
                threads = {self.cores}
            for count in sorted(n for n in threads if n <= self.cores):
                where = {"python": self.pythons[peer]} if peer else {}
                try:
                    runner = Runner.start(
                        side, folder, count, weighted="weights" in case, **where
                    )
                except PeerError as error:
                    self.notes.append(f"Left out: {error}")
                    continue
                yield (case, side, count), runner

    def seconds(self, case: str, side: str, threads: int) -> list[float]:
        """Of all runs, for all pixels of the stack; empty where it did not run."""
        runner = self.runs.get((case, side, threads))
        if runner is None:
            return []
        whole = runner.pixels if case == STORE else self.stack.phase.shape[1]
        share = whole / runner.pixels
        return [share * r["seconds"] for r in runner.runs]

    def ratio(self, case: str, side: str, threads: int) -> float:
        """Time of a side over that of ours, on as many threads; medians."""
        mine = OWN_STORE if case == STORE else OURS
        theirs, ours = (self.seconds(case, s, threads) for s in (side, mine))
        return median(theirs) / median(ours) if theirs and ours else float("nan")

    def lead(self, case: str, side: str) -> float:
        """Our rate on all cores over the better one of a peer, of one core and all."""
        mine = OWN_STORE if case == STORE else OURS
        ours = self.seconds(case, mine, self.cores)
        theirs = [self.seconds(case, side, n) for n in {1, self.cores}]
        best = min((median(t) for t in theirs if t), default=float("nan"))
        return best / median(ours) if ours else float("nan")

    def ratios(self) -> list[Row]:
        """How many times the rate of every other side ours is."""
        sides = dict.fromkeys((case, side) for case, side, _ in self.runs)
        return [
            Row("ours, times the rate of", f"{side}, {case}", metric, value, "1")
            for case, side in sides
            if side not in (OURS, OWN_STORE)
            for metric, count in (("one thread", 1), ("all cores", self.cores))
            for value in [self.ratio(case, side, count)]
        ]

    def paired(
        self, case: str, above: tuple[str, int], below: tuple[str, int]
    ) -> float:
        """Median of the ratios of the same rounds: of two that load hits alike."""
        times = (self.seconds(case, *key) for key in (above, below))
        ratios = [a / b for a, b in zip(*times, strict=False)]
        return median(ratios) if ratios else float("nan")

    def goals(self) -> list[Goal]:
        """What issue 5 wants, on all cores."""
        plain, _, irregular = GAPS
        extra = [
            run["extra"]
            for (_, side, _), runner in self.runs.items()
            for run in runner.runs
            if side == OURS and run["extra"] is not None
        ]
        memory = max(extra) / 1e6 if extra else float("nan")
        floor = self.paired(WEIGHTED, (OURS, self.cores), (FLOOR, self.cores))
        scaling = self.paired(WEIGHTED, (OURS, 1), (OURS, 2))
        command = self.lead(STORE, "ifgram_inversion.py")
        return [
            Goal("gaps and weights, x MintPy", self.lead(WEIGHTED, "MintPy"), 700),
            Goal("gaps and weights, x memory pass", floor, 6, most=True),
            Goal("irregular gaps, x insar-rs", self.lead(irregular, "insar-rs"), 250),
            Goal("no gaps, x insar-rs", self.lead(plain, "insar-rs"), 4),
            Goal("no gaps, x dolphin", self.lead(plain, "dolphin"), 4),
            Goal("extra memory of a block", memory, 50, "MB", most=True),
            Goal("two threads over one", scaling, 1.8),
            Goal("store to store, x MintPy's command", command, 100),
        ]


class Judge:
    """How far a series is from the truth, and from dense least squares."""

    def __init__(self, stack: Stack, *, weighted: bool) -> None:
        self.stack = stack
        self.pixels = np.flatnonzero(stack.linked())
        sample = np.linspace(0, self.pixels.size - 1, SAMPLE).astype(int)
        self.sample = np.unique(self.pixels[sample])
        self.exact = stack.exact(self.sample, weighted=weighted)

    def of(self, series: np.ndarray) -> Mapping[str, float]:
        """RMS over all pixels it has whose dates are linked, rad."""
        inside = self.pixels[self.pixels < series.shape[1]]
        known = self.sample < series.shape[1]
        series = series - series[:1]
        found = series[:, self.sample[known]]
        return {
            "error": rms(series[:, inside] - self.stack.truth[:, inside]),
            "from dense": rms(found - self.exact[:, known]),
        }


def rms(values: np.ndarray) -> float:
    """Root mean square; NaN if any is."""
    return float(np.sqrt(np.mean(np.square(values, dtype="float64"))))


def rows_of(key: Key, runner: Runner, stack: Stack, judge: Judge) -> list[Row]:
    """Rows of one side: medians, with the range of rate and time."""
    case, side, threads = key
    name = f"{side}, {threads} thread{'s' * (threads > 1)}"
    if runner.pixels < stack.phase.shape[1]:
        name += f" ({runner.pixels} pixels)"
    work = 1e-6 * stack.work * runner.pixels / stack.phase.shape[1]
    seconds = [r["seconds"] for r in runner.runs]
    low, middle, high = min(seconds), median(seconds), max(seconds)
    busy = median(r["processor"] for r in runner.runs)
    rows = [
        Row(case, name, "rate", work / middle, "M/s", work / high, work / low),
        Row(case, name, "time", middle, "s", low, high),
        Row(case, name, "processor time", busy, "s"),
    ]
    extra = [r["extra"] for r in runner.runs if r["extra"] is not None]
    if extra:
        rows.append(Row(case, name, "extra memory", max(extra) / 1e6, "MB"))
    if side not in (FLOOR, STORE_FLOOR):
        found = judge.of(runner.series())
        rows += [Row(case, name, metric, v, "rad") for metric, v in found.items()]
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    size = SIZES[asked.quick]
    with tempfile.TemporaryDirectory(prefix="cube-inversion-") as name:
        bench = Bench(Path(name), size)
        if size.peers:
            bench.install()
        bench.solvers()
        bench.stores()
    networks, linear = measure_networks(NETWORKS[asked.quick], bench.cores)
    goals = bench.goals()
    rows = bench.rows + bench.ratios() + networks
    for goal in goals:
        rows.append(Row("goals", goal.what, "is", goal.value, goal.unit))
        rows.append(Row("goals", goal.what, "limit", goal.limit, goal.unit))
    versions = {runner.side: runner.version for runner in bench.runs.values()}
    told = [
        f"{size.dates} dates, {bench.stack.first.size} pairs, {size.pixels} x "
        f"{size.pixels} pixels, {bench.cores} cores; M/s is million pixels x pairs a "
        f"second; medians and ranges of {size.rounds} rounds of {ROUND:g} s or one "
        f"solution, {size.few} of what takes over {SLOW:g} s.",
        "; ".join(f"{s} {v}" for s, v in versions.items()) + ".",
        "Peers are judged by their better rate, of one core and all. "
        "MintPy on more cores is a box of rows for each in processes, its command as "
        "many Dask workers; HDF5 is read in either. insar-rs has no weights; gaps need "
        "weights in dolphin, which then solves a part of the rows.",
        *([] if size.peers else ["Left out: the peers, by --quick."]),
        *bench.notes,
        *(goal.line for goal in goals),
        linear,
    ]
    report(rows, asked.out, notes="\n".join(told))
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
