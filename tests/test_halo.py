"""Tiles on a lattice cannot be seen, whatever window is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cube_denoise.halo import Lattice, Tile, clip, grow, intersect, shift

SHAPE = (83, 61)
FIELD = np.random.default_rng(5).normal(size=SHAPE)
WHOLE = Tile(slice(0, SHAPE[0]), slice(0, SHAPE[1]))
WINDOWS = [
    Tile(slice(0, 83), slice(0, 61)),
    Tile(slice(0, 1), slice(0, 1)),
    Tile(slice(13, 57), slice(30, 61)),
    Tile(slice(16, 32), slice(16, 48)),
    Tile(slice(31, 33), slice(15, 17)),
    Tile(slice(82, 83), slice(60, 61)),
]


def convolution(values: np.ndarray, radius: int) -> np.ndarray:
    """Uneven convolution, edges reflected, the same sum in the same order anywhere."""
    kernel = np.random.default_rng(radius).normal(size=(2 * radius + 1,) * 2)
    padded = np.pad(values, radius, mode="reflect")
    total = np.zeros_like(values)
    for dy, dx in np.ndindex(*kernel.shape):
        rows, columns = values.shape
        total += kernel[dy, dx] * padded[dy : dy + rows, dx : dx + columns]
    return total


def cut(function: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """A network on `FIELD`: what of a view lies beyond the map is reflected."""

    def run(view: Tile, clipped: Tile) -> np.ndarray:
        assert clip(view, SHAPE) == clipped
        beyond = [
            (c.start - v.start, v.stop - c.stop)
            for v, c in zip(view, clipped, strict=True)
        ]
        return function(np.pad(FIELD[clipped], beyond, mode="reflect"))

    return run


@pytest.mark.parametrize("radius", [1, 3, 7])
@pytest.mark.parametrize("tile", [16, 17, 32, 200])
def test_finite_view_is_the_whole_image_bit_for_bit(radius: int, tile: int) -> None:
    whole = convolution(FIELD, radius).astype("float32")
    lattice = Lattice(SHAPE, tile, radius)
    for window in WINDOWS:
        found = lattice.apply(cut(lambda v: convolution(v, radius)), window)
        np.testing.assert_array_equal(found, whole[window])
        assert found.dtype == np.float32


def test_a_halo_too_small_is_seen() -> None:
    """The test above can fail: with a halo one pixel short there are seams."""
    whole = convolution(FIELD, 3).astype("float32")
    found = Lattice(SHAPE, 16, 2).apply(cut(lambda v: convolution(v, 3)), WHOLE)
    assert np.abs(found - whole).max() > 0.1
    np.testing.assert_allclose(found[3:13, 3:13], whole[3:13, 3:13], rtol=1e-6)


def test_random_dncnn_equals_the_whole_image(plain_model: Path) -> None:
    import torch

    from cube_denoise.models import zoo

    model: torch.nn.Module = zoo.load_model(plain_model)

    def network(values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(values.astype("float32")[None, None])
            return model(x)[0, 0].numpy()

    whole = network(FIELD)
    assert whole.std() > 0.01
    lattice = Lattice(SHAPE, 24, model.receptive_radius)
    for window in WINDOWS:
        found = lattice.apply(cut(network), window)
        np.testing.assert_allclose(found, whole[window], atol=1e-5)


@pytest.mark.parametrize("name", ["plain_model", "dilated_model"])
def test_a_network_that_sheds_its_halo_equals_the_whole_image(
    name: str, request: pytest.FixtureRequest
) -> None:
    """At edges of the map features are reflected, elsewhere every layer shrinks."""
    import torch

    from cube_denoise.models import zoo

    model: Any = zoo.load_model(request.getfixturevalue(name)).fused()
    channels, shape = len(model.config.inputs), (150, 131)
    field = np.random.default_rng(6).normal(size=(channels, *shape)).astype("f4")

    def network(view: Tile, lattice: Lattice) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(field[:, view.y, view.x][None])
            return np.asarray(model(x, lattice.goes_on(view))[0, 0])

    every = Tile(slice(0, shape[0]), slice(0, shape[1]))
    radius = model.receptive_radius
    whole = network(every, Lattice(shape, 1000, radius))
    assert whole.shape == shape and whole.std() > 0.01
    lattice = Lattice(shape, 48, radius)
    shed = set()

    def one(view: Tile, _: Tile) -> np.ndarray:
        shed.add(lattice.goes_on(view))
        found = network(view, lattice)
        assert found.shape == whole[lattice.certain(view)].shape
        return found

    found = lattice.apply(one, every)
    assert len(shed) == 9
    np.testing.assert_allclose(found, whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", ["plain_model", "dilated_model"])
def test_declared_radius_is_the_reach_of_the_network(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Change of one input pixel: nothing beyond the radius, something at it."""
    import torch

    from cube_denoise.models import zoo

    model: torch.nn.Module = zoo.load_model(request.getfixturevalue(name)).double()
    radius, channels = model.receptive_radius, len(model.config.inputs)
    x = torch.zeros(1, channels, 101, 101, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 50, 50] = 1e3
    with torch.inference_mode():
        difference = (model(changed) - model(x))[0, 0].numpy()
    rows, columns = np.nonzero(difference)
    reach = max(np.abs(rows - 50).max(), np.abs(columns - 50).max())
    assert 0.75 * radius <= reach <= radius


@pytest.mark.parametrize("tile", [8, 16, 50, 200])
def test_blended_identity_is_the_identity(tile: int) -> None:
    lattice = Lattice(SHAPE, tile, None)
    for window in WINDOWS:
        found = lattice.apply(cut(lambda v: v), window)
        np.testing.assert_allclose(found, FIELD[window], rtol=1e-6)


def test_weights_are_a_partition_of_unity() -> None:
    """A constant stays that constant, at edges and corners too."""
    found = Lattice(SHAPE, 16, None).apply(cut(lambda v: 0 * v + 3), WHOLE)
    np.testing.assert_array_equal(found, np.float32(3))


@pytest.mark.parametrize("radius", [None, 3])
def test_any_window_is_the_cut_of_the_whole_bit_for_bit(radius: int | None) -> None:
    """Even for a network that looks at the mean of its tile."""

    def global_view(values: np.ndarray) -> np.ndarray:
        return np.tanh(values - values.mean()) * values.std()

    lattice = Lattice(SHAPE, 16, radius)
    whole = lattice.apply(cut(global_view), WHOLE)
    assert np.abs(whole - np.tanh(FIELD)).max() > 0.01
    generator = np.random.default_rng(0)
    random = []
    for _ in range(20):
        y, x = (sorted(generator.choice(n + 1, 2, replace=False)) for n in SHAPE)
        random.append(Tile(slice(int(y[0]), int(y[1])), slice(int(x[0]), int(x[1]))))
    for window in WINDOWS + random:
        found = lattice.apply(cut(global_view), window)
        np.testing.assert_array_equal(found, whole[window])


def test_blend_has_no_seams() -> None:
    """Tiles that disagree by a constant blend smoothly."""
    offsets = np.random.default_rng(1)
    constants: dict[tuple[int, int], float] = {}

    def disagreeing(view: Tile, clipped: Tile) -> np.ndarray:
        key = (view.y.start, view.x.start)
        constants.setdefault(key, offsets.uniform(-1, 1))
        return np.full((32, 32), constants[key])

    found = Lattice(SHAPE, 32, None).apply(disagreeing, WHOLE)
    steps = max(np.abs(np.diff(found, axis=a)).max() for a in (0, 1))
    # A Hann window of 32 rises by at most pi / 32 per pixel, between -1 and 1.
    assert 0.01 < steps <= 2 * np.pi / 32


@pytest.mark.parametrize("radius", [None, 2])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (15, 16)])
def test_image_smaller_than_a_tile(shape: tuple[int, int], radius: int | None) -> None:
    field = np.arange(float(np.prod(shape))).reshape(shape)
    whole = Tile(slice(0, shape[0]), slice(0, shape[1]))

    def identity(view: Tile, clipped: Tile) -> np.ndarray:
        beyond = [
            (c.start - v.start, v.stop - c.stop)
            for v, c in zip(view, clipped, strict=True)
        ]
        return np.pad(field[clipped], beyond, mode="edge")

    found = Lattice(shape, 16, radius).apply(identity, whole)
    np.testing.assert_allclose(found, field, rtol=1e-6)


@pytest.mark.parametrize("tile", [0, 1, 7])
def test_odd_or_empty_tiles_are_refused(tile: int) -> None:
    with pytest.raises(ValueError, match=f"tile={tile}"):
        Lattice(SHAPE, tile, None)


def test_rectangle_arithmetic() -> None:
    tile = Tile(slice(2, 6), slice(0, 4))
    assert grow(tile, 3) == Tile(slice(-1, 9), slice(-3, 7))
    assert clip(grow(tile, 3), (8, 5)) == Tile(slice(0, 8), slice(0, 5))
    assert intersect(tile, Tile(slice(4, 9), slice(1, 2))) == Tile(
        slice(4, 6), slice(1, 2)
    )
    assert shift(Tile(slice(4, 6), slice(1, 2)), tile) == (slice(2, 4), slice(1, 2))
