"""Kill processes and break the network at random moments: nothing half, lost or wrong.

A small simulated cube goes through its life again and again, three times of four in
SeaweedFS (S3), else on local disk: ingest, correct, invert, and an update that adds,
replaces and withdraws pairs. Every step is a process of its own, and meets one fault:

- ``client``: the process is killed (SIGKILL);
- ``process``: it works with two processes (``--cluster processes``), one is killed;
- ``dask worker``, ``scheduler``: it works on a Dask scheduler and two workers, all
  processes; one worker, or the scheduler, is killed;
- ``refused``, ``500``, ``slow``, ``truncated``: for a while, a proxy between it and S3
  does that (`benchmarks.faulty_proxy`).

Moments are fractions, drawn from the seed, of the time that the step takes undisturbed.
After the fault a reader opens the cube: it must be, pair for pair, that of before the
step or that of after. Then the step is run until it ends well, and the cube must be
that of an undisturbed run, to 1e-6.

A fault that comes when the step has ended already, or that the network's user did not
meet, is not counted, and another is tried.
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.fault_runner import (
    KILLS,
    PATIENCE,
    STEPS,
    Material,
    Runner,
    end,
    planned,
    s3_port,
    strike,
)
from benchmarks.fault_states import SIZE, State, look, material, same
from benchmarks.faulty_proxy import FAULTS, FaultyProxy
from benchmarks.report import Row, report

log = logging.getLogger(__name__)

COUNT = {False: 200, True: 6}
"""Faults, whole run and ``--quick``."""
ZERO = ("half-visible", "lost pairs", "doubled pairs", "wrong in the end")
"""Metrics that must be 0."""
ATTEMPTS = 5
"""Runs after a fault."""


@dataclass
class Outcome:
    """What came of one fault."""

    slot: int
    """Number of the fault: which step of which life of the cube."""
    step: str
    kind: str
    place: str
    hit: bool
    """Whether the step was under way, and met the fault."""
    readers: int = 0
    """Times that a reader opened the cube."""
    half: int = 0
    """Of these, the cube was neither that of before nor that of after."""
    lost: int = 0
    """Pairs that a reader missed."""
    doubled: int = 0
    """Pairs that a reader saw twice."""
    wrong: int = 0
    """1 if the cube was not that of an undisturbed run in the end."""
    reruns: int = 0
    """Runs that it took after the one that met the fault; 0 if that ended well."""
    hung: int = 0
    """1 if the run that met the fault was killed after `PATIENCE`."""
    said: str = ""
    """Kind of the error that the run ended in."""
    seconds: float = 0.0


def meet(runner: Runner, slot: int, seed: int, url: str) -> Outcome:
    """One fault: strike, read, run again, compare."""
    step, kind, place, moments = planned(seed, slot)
    states = runner.given.states
    number = STEPS.index(step)
    old = states[STEPS[number - 1] if number else "nothing"]
    new = states[step]
    outcome = Outcome(slot, step, kind, place, hit=False)
    begin = time.monotonic()

    def read() -> State:
        state, doubled = look(url)
        outcome.readers += 1
        outcome.doubled += doubled
        outcome.half += not (same(state, old) or same(state, new))
        kept = set(old.versions) & set(new.versions)
        outcome.lost += len(kept - set(state.versions))
        return state

    child, outcome.hit = strike(runner, step, url, kind, place, moments)
    read()
    child.join(PATIENCE)
    if child.exitcode is None:
        outcome.hung = 1
    well = child.exitcode == 0
    outcome.said = "" if well or outcome.hung else runner.error().partition(":")[0]
    if not well and kind != "client" and not outcome.hung:
        log.info("   %s", runner.error())
    end(child)
    while not well and outcome.reruns < ATTEMPTS:
        outcome.reruns += 1
        again = runner.start(step, url)
        again.join(PATIENCE)
        well = again.exitcode == 0
        if not well:
            log.info("   rerun: %s", runner.error() or "hung")
        end(again)
    state = read()
    outcome.wrong = int(not (well and same(state, new)))
    outcome.lost += len(set(new.versions) - set(state.versions))
    outcome.seconds = time.monotonic() - begin
    return outcome


# --- the whole -------------------------------------------------------------------


def undisturbed(runner: Runner) -> None:
    """Fill in the states after each step, and how long each takes."""
    given = runner.given
    for place in ("disk", "S3"):
        url = _url(given.folder, place, f"undisturbed-{place}")
        # The first child waits for the fork server to have imported everything.
        if place == "disk":
            runner.finish("ingest", _url(given.folder, place, "warm"))
        for step in STEPS:
            given.seconds[place, step] = runner.finish(step, url)
            state, _ = look(url)
            if not same(state, given.states.setdefault(step, state)):
                raise RuntimeError(f"{step} in {place} differs from that on disk")
    told = (f"{p} {s} {t:.2f} s" for (p, s), t in given.seconds.items())
    log.info("undisturbed: %s", ", ".join(told))


def _url(folder: Path, place: str, name: str) -> str:
    return str(folder / name) if place == "disk" else f"s3://cubes/{name}"


def try_faults(
    count: int,
    *,
    seed: int = 0,
    record: Path | None = None,
    limit: float = float("inf"),
) -> list[Outcome]:
    """Let `count` faults meet steps, and see what comes of each.

    Parameters
    ----------
    count : int
        Faults.
    seed : int
        Of kinds and moments.
    record : pathlib.Path, optional
        JSON lines: outcomes are added as they come, and those there are not done
        again.
    limit : float
        Seconds after which no new life of a cube is begun.

    Returns
    -------
    list of Outcome
        Those of `record` first.
    """
    begin = time.monotonic()
    outcomes = _recorded(record)
    done = {o.slot // len(STEPS) for o in outcomes}
    if sum(o.hit for o in outcomes) >= count:
        return outcomes
    with (
        tempfile.TemporaryDirectory(prefix="cube-faults-") as name,
        s3_port(Path(name) / "s3") as port,
        FaultyProxy(port) as proxy,
    ):
        folder = Path(name)
        states = {"nothing": State({}, None)}
        given = Material(folder, *material(folder), states, {})
        with Runner(given, proxy) as runner:
            undisturbed(runner)
            life = 0
            while sum(o.hit for o in outcomes) < count:
                if time.monotonic() - begin > limit:
                    break
                if life not in done:
                    outcomes += _live(runner, life, seed, count, outcomes, record)
                life += 1
    return outcomes


def _live(
    runner: Runner,
    life: int,
    seed: int,
    count: int,
    before: Sequence[Outcome],
    record: Path | None,
) -> list[Outcome]:
    """Lead one cube through all steps, each with a fault."""
    found: list[Outcome] = []
    first = life * len(STEPS)
    place = planned(seed, first)[2]
    url = _url(runner.given.folder, place, f"life-{life}")
    for slot in range(first, first + len(STEPS)):
        outcome = meet(runner, slot, seed, url)
        found.append(outcome)
        hits = sum(o.hit for o in (*before, *found))
        log.info(
            "%d of %d: %s, %s in %s%s: %d reruns, %.1f s%s%s",
            hits,
            count,
            outcome.step,
            outcome.kind,
            outcome.place,
            "" if outcome.hit else " (not met)",
            outcome.reruns,
            outcome.seconds,
            ", hung" if outcome.hung else "",
            ", BAD" if bad(outcome) else "",
        )
        if bad(outcome) or hits == count:
            break
    if record is not None:
        with record.open("a") as file:
            file.writelines(json.dumps(asdict(o)) + "\n" for o in found)
    if place == "disk":
        shutil.rmtree(url, ignore_errors=True)
    return found


def _recorded(record: Path | None) -> list[Outcome]:
    if record is None or not record.exists():
        return []
    return [Outcome(**json.loads(line)) for line in record.read_text().splitlines()]


def bad(outcome: Outcome) -> bool:
    """Whether anything that must be 0 is not."""
    return any((outcome.half, outcome.lost, outcome.doubled, outcome.wrong))


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """Sums for every kind and step, and of all."""
    rows = []
    kinds = [k for k in (*KILLS, *FAULTS) if any(o.kind == k for o in outcomes)]
    groups: dict[tuple[str, str], list[Outcome]] = {
        (k, s): [o for o in outcomes if (o.kind, o.step) == (k, s)]
        for k in kinds
        for s in STEPS
    }
    groups["all", "all"] = list(outcomes)
    for (kind, step), group in groups.items():
        met = [o for o in group if o.hit]
        if not group:
            continue
        numbers: Mapping[str, tuple[float, str]] = {
            "faults": (len(met), "1"),
            "not met": (len(group) - len(met), "1"),
            "readers": (sum(o.readers for o in group), "1"),
            "half-visible": (sum(o.half for o in group), "1"),
            "lost pairs": (sum(o.lost for o in group), "1"),
            "doubled pairs": (sum(o.doubled for o in group), "1"),
            "wrong in the end": (sum(o.wrong for o in group), "1"),
            "reruns": (sum(o.reruns for o in group), "1"),
            "most reruns": (max(o.reruns for o in group), "1"),
            "hung": (sum(o.hung for o in group), "1"),
            "each": (float(np.mean([o.seconds for o in group])), "s"),
        }
        rows += [Row(kind, step, m, float(v), u) for m, (v, u) in numbers.items()]
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="end within a minute")
    options.add_argument("--out", type=Path, metavar="FILE.json", help="write the rows")
    options.add_argument("--count", type=int, help="faults (200; 6 with --quick)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--record", type=Path, metavar="FILE.jsonl", help="go on from what is there"
    )
    options.add_argument(
        "--limit", type=float, default=float("inf"), help="seconds, then stop early"
    )
    asked = options.parse_args(arguments)
    count = asked.count or COUNT[asked.quick]
    outcomes = try_faults(
        count, seed=asked.seed, record=asked.record, limit=asked.limit
    )
    met = sum(o.hit for o in outcomes)
    said = Counter(o.said for o in outcomes if o.said)
    spoilt = sum(bad(o) for o in outcomes)
    notes = (
        f"{met} of {count} faults; seed {asked.seed}; {SIZE} x {SIZE} pixels. Runs "
        f"that met a fault and were not killed ended in: {dict(said)}.\n"
        f"{spoilt or 'Nothing'} was half visible, lost, doubled or wrong."
    )
    rows = rows_of(outcomes)
    report(rows, asked.out, notes=notes)
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    found = main()
    sys.exit(int(any(r.value for r in found if r.metric in ZERO)))
