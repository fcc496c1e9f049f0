"""Noise that `simulate` does not make: places, each with weather of one odd kind."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cube_denoise.simulate.ground import Ground, make_ground
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import gaussian_fields

SPACING = 100.0
"""Metres."""
VARIANTS = {
    "other spectrum": ("streaks", "waves", "patches"),
    "uneven amplitude": ("uneven",),
    "stratified": ("stratified",),
    "scaled": ("x 5", "x 0.1"),
}
"""What noise there is of every kind, in turn."""


@dataclass(frozen=True)
class Place:
    """One place: its terrain, and how strong, long and directed its weather is.

    Parameters
    ----------
    variant : str
        Of `VARIANTS`. "streaks": correlation 8 to 16 times as long one way as the
        other, some pixels across. "waves": one train of waves of 0.8 to 2.5 km for
        each date, of one direction within 4 degrees. "patches": correlated over 150 m.
        "uneven": turbulence whose strength differs from place to place by a factor of
        ten and more, as at a coast or in a valley. "stratified": nine tenths of the
        power fall off exponentially with elevation, times a factor that differs from
        place to place, with the seasons and at random. "x 5" and "x 0.1": turbulence as
        in training, times that.
    seed : int
    size : int
        Pixels a side.
    """

    variant: str
    seed: int
    size: int

    def noise(self, years: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Noise of the dates, m, shape (dates, rows, columns), means removed."""
        count = len(years)
        drawn = getattr(self, f"_{self.variant.replace(' ', '').replace('.', '')}")
        noise = drawn(np.asarray(years), generator).reshape(count, self.size, self.size)
        return np.asarray(noise - noise.mean((1, 2), keepdims=True), "float32")

    @cached_property
    def ground(self) -> Ground:
        """Terrain of 100 to 1600 m."""
        rng = self._generator(0)
        relief = float(10 ** rng.uniform(2, 3.2))
        return make_ground((self.size, self.size), SPACING, relief, generator=rng)

    @cached_property
    def _drawn(self) -> dict[str, float]:
        rng = self._generator(1)
        ranges = {
            "std": (0.005, 0.0125),
            "direction": (0.0, 180.0),
            "wavelength": (800.0, 2500.0),
            "anisotropy": (8.0, 16.0),
            "across": (250.0, 500.0),
            "scale_height": (200.0, 1000.0),
            "seasons": (0.5, 1.0),
            "phase": (0.0, 1.0),
        }
        return {name: float(rng.uniform(*bounds)) for name, bounds in ranges.items()}

    @cached_property
    def _maps(self) -> np.ndarray:
        """Two smooth fields of variance one."""
        fields = self._turbulence(2, self._generator(2), 1.0, 2000.0, 1.0)
        return np.asarray(fields / fields.std((1, 2), keepdims=True))

    def _generator(self, part: int) -> np.random.Generator:
        word = sum(self.variant.encode())
        return np.random.default_rng([71, word, self.seed, part])

    def _turbulence(
        self,
        count: int,
        rng: np.random.Generator,
        std: float,
        length: float,
        smoothness: float,
        **directed: float,
    ) -> np.ndarray:
        return gaussian_fields(
            count,
            (self.size, self.size),
            spacing=SPACING,
            spectra=[Matern(std, length, smoothness)],
            generator=rng,
            **directed,  # type: ignore[arg-type]
        )

    def _patches(self, years: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._turbulence(len(years), rng, self._drawn["std"], 150.0, 0.5)

    def _streaks(self, years: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        d = self._drawn
        length = d["across"] * d["anisotropy"] ** 0.5
        shape = {"anisotropy": d["anisotropy"], "direction": d["direction"]}
        return self._turbulence(len(years), rng, d["std"], length, 0.8, **shape)

    def _waves(self, years: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        d, count = self._drawn, len(years)
        y, x = np.mgrid[: self.size, : self.size] * SPACING
        angle = np.deg2rad(d["direction"] + rng.normal(0, 4, (count, 1, 1)))
        along = np.cos(angle) * x + np.sin(angle) * y
        length = d["wavelength"] * np.exp(rng.normal(0, 0.1, (count, 1, 1)))
        turns = along / length + rng.random((count, 1, 1))
        height = 1 + 0.4 * self._turbulence(count, rng, 1.0, 5000.0, 1.5)
        waves = 1.4 * d["std"] * height * np.sin(2 * np.pi * turns)
        rest = self._turbulence(count, rng, 0.3 * d["std"], 10_000.0, 1 / 3)
        return np.asarray(waves + rest)

    def _uneven(self, years: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        strength = np.exp(1.3 * self._maps[0])
        strength = strength / np.sqrt((strength**2).mean())
        noise = self._turbulence(len(years), rng, self._drawn["std"], 3000.0, 0.5)
        return np.asarray(noise * strength)

    def _stratified(self, years: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        d, count = self._drawn, len(years)
        height = self.ground.elevation - self.ground.elevation.min()
        layer = np.exp(-height / d["scale_height"])
        layer = (layer - layer.mean()) / layer.std() * (1 + 0.7 * self._maps[1])
        season = np.cos(2 * np.pi * (years + rng.random() - d["phase"]))
        course = d["seasons"] * season
        course = course + (1.2 - d["seasons"]) * rng.standard_normal(count)
        rest = self._turbulence(count, rng, 0.4 * d["std"], 10_000.0, 1 / 3)
        return np.asarray(2 * d["std"] * course[:, None, None] * layer + rest)

    def _x5(self, years: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 5 * self._as_in_training(len(years), rng)

    def _x01(self, years: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 0.1 * self._as_in_training(len(years), rng)

    def _as_in_training(self, count: int, rng: np.random.Generator) -> np.ndarray:
        large = self._turbulence(count, rng, self._drawn["std"], 15_000.0, 0.5)
        return large + self._turbulence(count, rng, 0.0015, 2000.0, 0.5)
