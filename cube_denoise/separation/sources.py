"""Components of pairs: by a variational autoencoder, PCA, FastICA or NMF."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cube_denoise.corrections.independent import bootstrap_maps
from cube_denoise.corrections.principal import principal_axes
from cube_denoise.halo import Lattice, Tile, shift
from cube_denoise.separation.coarse import CoarseStack

if TYPE_CHECKING:
    from cube_denoise.models.vae import Separator, SeparatorConfig
    from cube_denoise.models.vae_fit import FitOptions, Fitted, Progress

log = logging.getLogger(__name__)

SEEN_PART = 0.25
"""Of a tile that must be known for it to be fitted to."""
NMF_ITERATIONS = 400


@dataclass(frozen=True)
class Components:
    """What a method splits the pairs into, before it is clustered."""

    maps: np.ndarray
    """Shape (members, known cells), float32: of zero mean and unit norm, in any sign.
    Zero for a component that is empty."""
    pair: np.ndarray | None
    """The pair that each member is a part of, index into the pairs of the coarse stack,
    shape (members,); None where members come of draws of the whole stack."""
    parts: np.ndarray | None
    """rad, float32, shape (members, rows, columns): what each member takes of its pair;
    None where that is fitted afterwards."""


def vae_components(
    stack: CoarseStack,
    config: "SeparatorConfig",
    options: "FitOptions",
    *,
    progress: "Progress | None" = None,
) -> tuple[Components, "Fitted"]:
    """Fit the separating autoencoder to the pairs and split them with it.

    Parameters
    ----------
    stack : CoarseStack
    config : models.vae.SeparatorConfig
    options : models.vae_fit.FitOptions
    progress : callable, optional
        See `models.vae_fit.fit_separator`.

    Returns
    -------
    components : Components
        ``config.sources`` of each pair, those of the first pair first.
    fitted : models.vae_fit.Fitted
    """
    from cube_denoise.device import keep_freed_memory
    from cube_denoise.models.vae_fit import fit_separator

    keep_freed_memory()
    scale = spread(stack)
    maps, known, groups = [], [], []
    for view, clipped in _lattice(stack, config.tile).views(_whole(stack)):
        mask = _placed(stack.known[None], view, clipped, config.tile)[0]
        if mask.mean() < SEEN_PART * min(1.0, stack.known.size / config.tile**2):
            continue
        maps.append(_placed(stack.phase / scale, view, clipped, config.tile))
        known.append(np.broadcast_to(mask, maps[-1].shape))
        groups.append(np.arange(len(stack.phase)))
    fitted = fit_separator(
        np.concatenate(maps),
        np.concatenate(known),
        np.concatenate(groups),
        config,
        options,
        progress=progress,
    )
    return split(stack, fitted.network, scale), fitted


def split(stack: CoarseStack, network: "Separator", scale: float) -> Components:
    """Split pairs with a network that was fitted before, to these or to others.

    Parameters
    ----------
    stack : CoarseStack
    network : models.vae.Separator
        In eval mode.
    scale : float
        rad: `spread` of the stack that it was fitted to.

    Returns
    -------
    Components
        Those of the first pair first.
    """
    from cube_denoise.models.vae_fit import sources_of

    tile, count = network.config.tile, network.config.sources
    lattice = _lattice(stack, tile)
    parts = np.empty((len(stack.phase), count, *stack.known.shape), "float32")
    views = list(lattice.views(_whole(stack)))
    for k, phase in enumerate(stack.phase):
        placed = [_placed(phase[None] / scale, *view, tile) for view in views]
        seen = sources_of(network, np.concatenate(placed)) * scale
        for source in range(count):
            tiles = [
                one[source, : view.y.stop - view.y.start, : view.x.stop - view.x.start]
                for one, (view, _) in zip(seen, views, strict=True)
            ]
            parts[k, source] = lattice.join(tiles, _whole(stack))
    flat = parts.reshape(-1, *stack.known.shape)
    flat[:, ~stack.known] = 0
    power = (stack.phase[:, stack.known].astype("float64") ** 2).sum(1)
    least = np.repeat(EMPTY * power, count)
    pair = np.repeat(np.arange(len(stack.phase)), count)
    return Components(unit_maps(flat[:, stack.known], least), pair, flat)


EMPTY = 0.01
"""Share of the power of its pair below which a component counts as empty."""


def linear_components(
    stack: CoarseStack, method: str, count: int, *, runs: int, seed: int
) -> Components:
    """Components of the whole stack, of many draws of its pairs with replacement.

    Parameters
    ----------
    stack : CoarseStack
    method : {"pca", "ica", "nmf"}
        Principal components; FastICA of the leading ones, as ICASAR has it (Gaddes et
        al. 2018); non-negative factors of the pairs, each less its smallest value.
    count : int
        Components of a draw.
    runs, seed : int
        How many draws; the first is the pairs themselves.

    Returns
    -------
    Components
        Without `Components.parts`.

    Raises
    ------
    ValueError
        If `count` is too large for the number of pairs.
    """
    phase = stack.phase[:, stack.known].astype("float64")
    phase -= phase.mean(1, keepdims=True)
    if count > len(phase) // 3:
        raise ValueError(
            f"components={count} of {len(phase)} pairs: at most {len(phase) // 3}, a "
            "third of them"
        )
    if method == "ica":
        pool = bootstrap_maps(phase, count, runs=runs, seed=seed)
        return Components(unit_maps(pool), None, None)
    drawing: Callable[[np.ndarray, int, int], np.ndarray] = {
        "pca": _principal,
        "nmf": _non_negative,
    }[method]
    rng = np.random.default_rng(seed)
    drawn = np.arange(len(phase))
    found = []
    for run in range(runs):
        if run:
            drawn = rng.choice(len(phase), len(phase))
            while np.unique(drawn).size <= count:
                drawn = rng.choice(len(phase), len(phase))
        found.append(drawing(phase[drawn], count, int(rng.integers(2**31))))
    return Components(unit_maps(np.concatenate(found)), None, None)


def spread(stack: CoarseStack) -> float:
    """Robust standard deviation of all pairs, rad, 1 where they are flat."""
    values = stack.phase[:, stack.known]
    found = 1.4826 * float(np.median(np.abs(values)))
    return found if found > 0 else 1.0


def unit_maps(maps: np.ndarray, least: np.ndarray | float = 0.0) -> np.ndarray:
    """Maps less their means, of norm one, float32; zero if of no more power than that.

    Parameters
    ----------
    maps : numpy.ndarray, shape (members, cells)
    least : numpy.ndarray, shape (members,), or float
        Sum of squares.
    """
    centred = maps - maps.mean(1, keepdims=True, dtype="float64")
    power = (centred**2).sum(1)
    there = power > np.maximum(least, 0)
    norm = np.sqrt(np.where(there, power, 1.0))
    return np.where(there[:, None], centred / norm[:, None], 0).astype("float32")


def _principal(phase: np.ndarray, count: int, seed: int) -> np.ndarray:
    variance, vectors = principal_axes(phase)
    count = min(count, variance.size)
    return np.asarray(vectors[:, :count].T @ phase)


def _non_negative(phase: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    shifted = phase - phase.min(1, keepdims=True)
    factors = NMF(count, init="nndsvda", max_iter=NMF_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough
        factors.fit(shifted)
    return np.asarray(factors.components_)


def _lattice(stack: CoarseStack, tile: int) -> Lattice:
    rows, columns = stack.known.shape
    return Lattice((rows, columns), tile, None)


def _whole(stack: CoarseStack) -> Tile:
    return Tile(*(slice(0, n) for n in stack.known.shape))


def _placed(maps: np.ndarray, view: Tile, clipped: Tile, tile: int) -> np.ndarray:
    """Cut a view out of maps, into its place in a tile of zeros."""
    placed = np.zeros((len(maps), tile, tile), maps.dtype)
    placed[(slice(None), *shift(clipped, view))] = maps[:, clipped.y, clipped.x]
    return placed
