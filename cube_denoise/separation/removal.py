"""What goes: inverted to dates, and taken out of the pairs."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window, spans
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.corrections.correction import read
from cube_denoise.corrections.series import STRIP
from cube_denoise.separation.clusters import Clusters
from cube_denoise.separation.coarse import CoarseStack
from cube_denoise.separation.sources import Components


def fitted_amplitudes(stack: CoarseStack, clusters: Clusters) -> np.ndarray:
    """Amplitudes of the maps of all clusters in each pair, by least squares together.

    Parameters
    ----------
    stack : CoarseStack
    clusters : Clusters

    Returns
    -------
    numpy.ndarray, shape (pairs, clusters)
        rad.
    """
    phase = stack.phase[:, stack.known].astype("float64")
    phase -= phase.mean(1, keepdims=True)
    return np.asarray(np.linalg.lstsq(clusters.maps.T, phase.T)[0].T)


def fitted_parts(amplitudes: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Map of each cluster times its amplitude in every pair.

    Parameters
    ----------
    amplitudes : numpy.ndarray, shape (pairs, clusters)
        rad, of `fitted_amplitudes`.
    clusters : Clusters

    Returns
    -------
    numpy.ndarray, shape (clusters, pairs, known cells)
        rad.
    """
    return np.asarray(amplitudes.T[:, :, None] * clusters.maps[:, None])


def summed_parts(
    stack: CoarseStack, components: Components, clusters: Clusters
) -> np.ndarray | None:
    """Sum of the members of each cluster that are of a pair, for every pair.

    Returns
    -------
    numpy.ndarray, shape (clusters, pairs, known cells), or None
        rad; None where components are not parts of pairs.
    """
    if components.parts is None or components.pair is None:
        return None
    count, cells = clusters.maps.shape
    taken = np.zeros((count, len(stack.phase), cells))
    for label, pair, part in zip(
        clusters.labels, components.pair, components.parts, strict=True
    ):
        if label >= 0:
            taken[label, pair] += part[stack.known]
    return taken


def amplitudes_of(parts: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Amplitude of the map of each cluster in what it takes of each pair.

    Parameters
    ----------
    parts : numpy.ndarray, shape (clusters, pairs, known cells)
        rad.
    clusters : Clusters

    Returns
    -------
    numpy.ndarray, shape (pairs, clusters)
        rad.
    """
    cells = clusters.maps.shape[1]
    return np.einsum("gpc,gc->pg", parts, clusters.maps) / max(cells, 1)


@dataclass(frozen=True)
class DateMaps:
    """Phase of dates on cells, to be taken out of pairs of pixels."""

    maps: np.ndarray
    """rad, float32, shape (dates, rows, columns)."""
    looks: int
    """Pixels a side of a cell."""
    first: np.ndarray
    """Index of the earlier date of every pair of the cube, shape (pairs,)."""
    second: np.ndarray
    """Index of the later date; equal to the earlier one where nothing goes."""

    def at(self, window: Window) -> np.ndarray:
        """Interpolate to the pixels of a window, bilinearly between cells.

        Returns
        -------
        numpy.ndarray, float64, shape (dates, rows, columns)
            rad; bit-equal for a pixel whatever the window.
        """
        low_y, high_y, part_y = self._between(window[Y], self.maps.shape[1])
        low_x, high_x, part_x = self._between(window[X], self.maps.shape[2])
        rows = self.maps[:, low_y] + part_y[:, None] * (
            self.maps[:, high_y] - self.maps[:, low_y].astype("float64")
        )
        return np.asarray(
            rows[:, :, low_x] + part_x * (rows[:, :, high_x] - rows[:, :, low_x])
        )

    def _between(
        self, pixels: slice, cells: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells on both sides of pixels and how far a pixel is between them, 0 to 1."""
        place = (np.arange(pixels.start, pixels.stop) + 0.5) / self.looks - 0.5
        place = np.clip(place, 0, cells - 1)
        low = np.minimum(place.astype(int), max(cells - 2, 0))
        return low, np.minimum(low + 1, cells - 1), place - low


def date_maps(cube: xr.Dataset, stack: CoarseStack, removed: np.ndarray) -> DateMaps:
    """Invert what goes of the pairs to dates, by least squares, each cell by itself.

    Parameters
    ----------
    cube : xarray.Dataset
    stack : CoarseStack
        Of this cube.
    removed : numpy.ndarray, shape (pairs, known cells)
        rad.

    Returns
    -------
    DateMaps
        Each of median zero over the known cells: the median of a pair stays.
    """
    dates = stack.to_dates @ removed
    dates -= np.median(dates, axis=1, keepdims=True)
    maps = np.zeros((len(dates), *stack.known.shape), "float32")
    maps[:, stack.known] = dates
    _spread_out(maps, stack.known)
    first = np.zeros(cube.sizes[PAIR], int)
    second = np.zeros_like(first)
    first[stack.pairs], second[stack.pairs] = stack.first, stack.second
    return DateMaps(maps, stack.looks, first, second)


def corrected(cube: xr.Dataset, window: Window, *, unwanted: DateMaps) -> np.ndarray:
    """Pairs in a window less the differences of their dates, rad, float32."""
    rows, columns = (window[d].stop - window[d].start for d in (Y, X))
    found = np.empty((cube.sizes[PAIR], rows, columns), "float32")
    for part in spans(window[Y].stop, STRIP, start=window[Y].start):
        here = {**window, Y: part}
        dates = unwanted.at(here)
        strip = slice(part.start - window[Y].start, part.stop - window[Y].start)
        ends = zip(unwanted.first, unwanted.second, strict=True)
        for k, (i, j) in enumerate(ends):
            one = {**here, PAIR: slice(k, k + 1)}
            phase = read(cube, "unwrapped_phase", one)[0]
            found[k, strip] = phase - (dates[j] - dates[i])
    return found


def _spread_out(maps: np.ndarray, known: np.ndarray) -> None:
    """Give unknown cells the values of the nearest known ones, in place."""
    if known.all():
        return
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(
        ~known, return_distances=False, return_indices=True
    )
    maps[:] = maps[:, nearest[0], nearest[1]]
