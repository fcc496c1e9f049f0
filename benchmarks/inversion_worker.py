"""One solver of `benchmarks.inversion` in a process of its own.

``python -m benchmarks.inversion_worker SIDE FOLDER THREADS [weighted]`` loads a stack,
warms up and then does what it reads, line by line: "run" solves once, ``save FILE``
writes the series that came out. It answers with lines of JSON. Runs in the peers'
environments, so it imports nothing but NumPy and the standard library.
"""

import ctypes
import importlib
import json
import os
import resource
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inversion_side import Inputs, Side

SIDES = {
    "cube_denoise": "benchmarks.inversion_own_sides:solver",
    "memory pass": "benchmarks.inversion_own_sides:memory",
    "invert_cube": "benchmarks.inversion_own_sides:through_cube",
    "store pass": "benchmarks.inversion_own_sides:store_pass",
    "MintPy": "benchmarks.inversion_peer_sides:mintpy_patch",
    "ifgram_inversion.py": "benchmarks.inversion_peer_sides:mintpy_command",
    "insar-rs": "benchmarks.inversion_peer_sides:insar_rs",
    "dolphin": "benchmarks.inversion_peer_sides:dolphin",
}
"""Module and function that makes a `Side` of inputs and a number of threads."""


def status(name: str, process: int | str = "self") -> int:
    """Bytes of a line of ``/proc/PROCESS/status``."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024


ROUND = 0.3
"""Seconds for which a quick side solves again."""


def children(process: int | str = "self") -> list[int]:
    """All processes that a process began and that live."""
    found = []
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # a thread that has ended since
            for child in map(int, tasks.read_text().split()):
                found += [child, *children(child)]
    return found


def processor_time() -> float:
    """Seconds of this process and those it began."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for child in children():
        fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    alive = ticks / os.sysconf("SC_CLK_TCK")
    return time.process_time() + ended.ru_utime + ended.ru_stime + alive


def once(side: Side) -> tuple[Any, dict[str, Any]]:
    """Solve, again and again for `ROUND` seconds; what came out, and what it cost.

    Times are means of a round: a core that was idle takes milliseconds to come back.
    "extra" is the peak of resident memory over its start, without inputs and outputs;
    None where other processes take part.
    """
    side.prepare()
    ctypes.CDLL(None).malloc_trim(0)  # memory of the last run counts again
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, busy, begin = status("VmRSS"), processor_time(), time.perf_counter()
    end = begin + ROUND
    found = side.solve()
    seconds = [time.perf_counter() - begin]
    processor = [processor_time() - busy]
    extra = status("VmHWM") - before - side.own_memory
    alone = not children()
    while time.perf_counter() < end:
        side.prepare()
        busy, begin = processor_time(), time.perf_counter()
        found = side.solve()
        seconds.append(time.perf_counter() - begin)
        processor.append(processor_time() - busy)
    return found, {
        "seconds": sum(seconds) / len(seconds),
        "processor": sum(processor) / len(processor),
        "extra": extra if alone else None,
    }


def main(arguments: list[str]) -> None:
    """Answer until the input ends."""
    name, folder, threads, *weighted = arguments
    # Answers have the old standard output to themselves: peers print.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**told: Any) -> None:
        answers.write(json.dumps(told) + "\n")

    try:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
        module, function = SIDES[name].split(":")
        make = getattr(importlib.import_module(module), function)
        inputs = Inputs.load(Path(folder), weighted=bool(weighted))
        side = make(inputs, int(threads))
        side.prepare()
        (side.warm_up or side.solve)()
        answer(version=side.version, pixels=side.pixels or inputs.phase.shape[1])
        found = None
        for line in sys.stdin:
            command, _, path = line.strip().partition(" ")
            if command == "run":
                found = None
                found, cost = once(side)
                answer(**cost)
            elif command == "save":
                np.save(path, side.series(found).astype("float32"))
                answer()
    except Exception as error:
        traceback.print_exc()
        answer(failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
