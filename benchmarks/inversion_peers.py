"""Environments of the peers of `benchmarks.inversion`, and processes in them."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TOP = Path(__file__).resolve().parents[1]
"""Where ``python -m benchmarks...`` runs."""
PEERS = {
    "MintPy": "mintpy==1.6.4",
    "insar-rs": "insar-rs==0.3.0",
    "dolphin": "dolphin==0.42.9",
}
"""What the package registry calls them."""
ENVIRONMENT = {
    "MintPy": "MintPy",
    "ifgram_inversion.py": "MintPy",
    "insar-rs": "insar-rs",
    "dolphin": "dolphin",
}
"""Peer whose environment a side runs in; other sides run in ours."""
BY_PROCESSES = ("MintPy",)
"""Sides that take a process for each core instead of threads."""
STAND_IN = '''"""Stand-in for GDAL, which no wheel has.

dolphin imports it; its inversion does not use it.
"""

import sys
from unittest.mock import MagicMock

for name in ("gdal", "gdal_array", "gdalconst", "ogr", "osr"):
    globals()[name] = sys.modules[f"osgeo.{name}"] = MagicMock(name=name)
'''
PATIENCE = 600.0
"""Seconds after which a side that has not answered is left out."""
TAIL = 2000
"""Characters of a log that an error shows."""


class PeerError(RuntimeError):
    """A peer does not install or run; its message says why."""


def cache() -> Path:
    """Folder of the environments."""
    place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(place) / "cube_denoise-benchmarks"


def environment(peer: str) -> Path:
    """Python of the environment of a peer, made if there is none yet."""
    package = PEERS[peer]
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    folder = cache() / f"{package.replace('==', '-')}-{python}"
    program = folder / "bin" / "python"
    if (folder / "complete").exists():
        return program
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], peer)
    _run([str(program), "-m", "pip", "install", "numpy", package], peer)
    if peer == "dolphin":
        _stand_in(program)
    (folder / "complete").touch()
    return program


def _run(command: list[str], peer: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [s for s in done.stderr.splitlines() if "WARNING" not in s]
        raise PeerError(f"{peer} does not install: {' '.join(lines)[-TAIL:]}")


def _stand_in(program: Path) -> None:
    """Give an environment without GDAL a package of its name."""
    code = (
        "import importlib.util as u, sysconfig as s;"
        "print(u.find_spec('osgeo') is not None, s.get_path('purelib'))"
    )
    told = subprocess.run(
        [program, "-c", code], capture_output=True, text=True, check=True
    )
    there, _, place = told.stdout.strip().partition(" ")
    if there == "False":
        folder = Path(place) / "osgeo"
        folder.mkdir()
        (folder / "__init__.py").write_text(STAND_IN)


def limits(threads: int) -> dict[str, str]:
    """Environment variables that hold libraries to a number of threads."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON")
    return {f"{name}_NUM_THREADS": str(threads) for name in names}


@dataclass
class Runner:
    """A side in its process: started, warmed up, and waiting to solve."""

    side: str
    threads: int
    process: subprocess.Popen[str]
    log: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Of every run: seconds, processor seconds, extra bytes or None."""
    version: str = ""
    pixels: int = 0
    """How many it solves, the first of the stack."""

    @classmethod
    def start(
        cls,
        side: str,
        folder: Path,
        threads: int,
        *,
        weighted: bool = False,
        python: Path | str = sys.executable,
    ) -> "Runner":
        """Start and warm up; `PeerError` if that fails."""
        command = [str(python), "-m", "benchmarks.inversion_worker", side, str(folder)]
        command += [str(threads), *(["weighted"] if weighted else [])]
        log = folder / f"{side.replace(' ', '-')}-{threads}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=TOP,
                env=os.environ | limits(1 if side in BY_PROCESSES else threads),
            )
        made = cls(side, threads, process, log)
        told = made._answer()
        made.version, made.pixels = told["version"], told["pixels"]
        return made

    def run(self) -> float:
        """Solve once; seconds."""
        self.runs.append(self._ask("run"))
        return float(self.runs[-1]["seconds"])

    def series(self) -> np.ndarray:
        """What the last run found: phase of the dates, rad, (dates, pixels)."""
        with tempfile.TemporaryDirectory(prefix="cube-series-") as name:
            path = Path(name) / "series.npy"
            self._ask(f"save {path}")
            return np.load(path)

    def stop(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.process.kill()
            told = {"failed": f"no answer within {PATIENCE:g} s"}
        else:
            line = self.process.stdout.readline()
            told = dict(json.loads(line)) if line else {"failed": "it ended"}
        if "failed" in told:
            self.stop()
            tail = self.log.read_text()[-TAIL:]
            raise PeerError(f"{self.side} failed: {told['failed']}\n{tail}")
        return told
