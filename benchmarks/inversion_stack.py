"""The simulated stack of `benchmarks.inversion`: pairs, gaps, weights and the truth."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

LOOKS = 10
"""Independent looks of every pixel: phase noise of a coherence."""
STEP = 12
"""Days between dates."""
GAPS = ("no gaps", "regular gaps", "irregular gaps")


@dataclass(frozen=True)
class Stack:
    """Pairs of one scene; arrays have the pixels, row by row, last."""

    first: np.ndarray
    """Index of the reference date of each pair."""
    second: np.ndarray
    """Index of the secondary date of each pair."""
    truth: np.ndarray
    """Phase of the dates, rad, 0 at the first, float32, shape (dates, pixels)."""
    phase: np.ndarray
    """Unwrapped phase of the pairs, rad, NaN = no data, float32, (pairs, pixels)."""
    coherence: np.ndarray
    """The weights, float32, shape (pairs, pixels)."""
    width: int
    """Pixels of a row."""

    @property
    def dates(self) -> int:
        """Number of dates."""
        return self.truth.shape[0]

    @property
    def days(self) -> np.ndarray:
        """Of every date, after the first."""
        return STEP * np.arange(self.dates)

    @property
    def work(self) -> int:
        """Pixels times pairs."""
        return self.phase.size

    @property
    def patterns(self) -> int:
        """Number of distinct sets of missing pairs."""
        there = np.packbits(np.isfinite(self.phase), axis=0)
        return np.unique(there, axis=1).shape[1]

    @property
    def gappy(self) -> float:
        """Share of the pixels where a pair is missing."""
        return float(np.isnan(self.phase).any(0).mean())

    def linked(self) -> np.ndarray:
        """Pixels whose valid pairs link all dates."""
        there = np.isfinite(self.phase)
        reached = np.zeros((self.dates, there.shape[1]), bool)
        reached[0] = True
        sweep = list(zip(there, self.first, self.second, strict=True))
        before = -1
        while reached.sum() > before:
            before = reached.sum()
            for pair, i, j in (*sweep, *sweep[::-1]):
                either = (reached[i] | reached[j]) & pair
                reached[i] |= either
                reached[j] |= either
        return reached.all(0)

    def with_gaps(self, kind: str, seed: int = 1) -> "Stack":
        """The same with pairs missing in a third of the pixels.

        "regular gaps": 94 squares, the pairs missing alike in each. "irregular gaps":
        one pair missing in every fourth or fifth of the gappy pixels, 2 % to 50 % of
        the pairs in the others, each pixel on its own.
        """
        random = np.random.default_rng(seed)
        pairs, pixels = self.phase.shape
        missing = np.zeros((pairs, pixels), bool)
        if kind == "regular gaps":
            cell = max(self.width // 10, 3)
            side = round(0.6 * cell)
            image = missing.reshape(pairs, -1, self.width)
            corners = [
                (y, x)
                for y in range(0, image.shape[1] - side, cell)
                for x in range(0, self.width - side, cell)
            ]
            for y, x in corners[:94]:
                gone = random.random(pairs) < random.uniform(0.02, 0.5)
                image[gone, y : y + side, x : x + side] = True
        elif kind == "irregular gaps":
            gappy = random.permutation(pixels)[: pixels // 3]
            one, many = np.split(gappy, [round(0.222 * gappy.size)])
            missing[random.integers(0, pairs, one.size), one] = True
            share = random.uniform(0.02, 0.5, many.size)
            missing[:, many] = random.random((pairs, many.size)) < share
        elif kind != "no gaps":
            raise ValueError(f"{kind=} must be one of {', '.join(GAPS)}")
        return replace(self, phase=np.where(missing, np.float32(np.nan), self.phase))

    def referenced(self, pixel: int) -> "Stack":
        """The same relative to a pixel that has all pairs."""
        return replace(
            self,
            phase=self.phase - self.phase[:, [pixel]],
            truth=self.truth - self.truth[:, [pixel]],
        )

    def save(self, folder: Path) -> None:
        """Write what a solver reads: two arrays and the network."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "phase.npy", self.phase)
        np.save(folder / "coherence.npy", self.coherence)
        network = {
            "first": self.first.tolist(),
            "second": self.second.tolist(),
            "days": self.days.tolist(),
            "width": self.width,
        }
        (folder / "network.json").write_text(json.dumps(network))

    def exact(self, pixels: np.ndarray, *, weighted: bool) -> np.ndarray:
        """Dense least squares in float64 at some pixels, shape (dates, pixels)."""
        A = np.zeros((self.first.size, self.dates))
        rows = np.arange(self.first.size)
        A[rows, self.first], A[rows, self.second] = -1, 1
        found = np.zeros((self.dates, pixels.size))
        for k, pixel in enumerate(pixels):
            there = np.isfinite(self.phase[:, pixel])
            root = np.sqrt(self.coherence[there, pixel].astype("f8")) if weighted else 1
            right = root * self.phase[there, pixel].astype("f8")
            left = (root * A[there, 1:].T).T
            found[1:, k] = np.linalg.lstsq(left, right, rcond=None)[0]
        return found


def neighbours(dates: int, count: int, *, annual: bool = False) -> np.ndarray:
    """Pairs of every date with its next ones and that a year later, (pairs, 2)."""
    steps = [*range(1, count + 1), *([round(365.25 / STEP)] if annual else [])]
    pairs = {(i, i + k) for k in steps for i in range(dates - k)}
    return np.array(sorted(pairs))


def simulate(pairs: np.ndarray, size: tuple[int, int], seed: int = 0) -> Stack:
    """Bowl, seasons and noise of the coherence; `size` is rows and columns."""
    random = np.random.default_rng(seed)
    first, second = np.asarray(pairs).T
    y, x = (np.linspace(-1, 1, n) for n in size)
    bowl = np.exp(-3 * (y[:, None] ** 2 + x**2)).ravel()
    season = np.cos(2 * y[:, None] + 3 * x).ravel()
    years = STEP / 365.25 * np.arange(int(second.max()) + 1)[:, None]
    truth = 12 * years * bowl + 2 * season * (1 - np.cos(2 * np.pi * years))
    truth = truth.astype("float32")
    decay = np.exp(-(second - first) * STEP / 120)[:, None]
    ground = np.clip(
        0.65 + 0.2 * season + 0.1 * random.standard_normal(season.size), 0, 1
    )
    coherence = ground * (0.15 + 0.85 * decay)
    coherence = coherence + 0.05 * random.standard_normal(coherence.shape)
    coherence = np.clip(coherence, 0.05, 0.99).astype("float32")
    noise = np.sqrt((1 - coherence**2) / (2 * LOOKS * coherence**2))
    phase = truth[second] - truth[first]
    phase += noise * random.standard_normal(phase.shape, "float32")
    return Stack(first, second, truth, phase, coherence, size[1])
