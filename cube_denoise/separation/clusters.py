"""Clusters of components: those that come again, and how alike they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cube_denoise.separation.sources import Components

METHODS = ("fishdbc", "hdbscan")
SMALLEST, SHARE = 5, 1 / 50
"""A cluster has at least so many members, and this share of all."""
NEIGHBOURS = 5
"""Members that a dense place has (min_samples)."""

SAME = 0.7
"""Absolute correlation of the maps of two clusters that are one."""


@dataclass(frozen=True)
class Clusters:
    """Which components belong together."""

    labels: np.ndarray
    """Cluster of each member, counted from 0; -1 = in none; shape (members,)."""
    stability: np.ndarray
    """Mean abs(correlation) of the members with each other less that with all others;
    shape (clusters,)."""
    maps: np.ndarray
    """The member of each cluster most like the others in it, float64, shape (clusters,
    known cells), of zero mean and unit variance."""


class Clusterer:
    """Takes components a few at a time and clusters all there are.

    The distance of two maps is one less their absolute correlation: their signs and
    sizes do not count. FISHDBC (Dell'Amico 2019) adds to its tree what comes new;
    HDBSCAN begins anew.

    Parameters
    ----------
    method : {"fishdbc", "hdbscan"}

    Raises
    ------
    ValueError
        If there is no such method or its package is not installed.
    """

    def __init__(self, method: str = "fishdbc") -> None:
        if method not in METHODS:
            raise ValueError(f"clustering={method!r} must be one of {METHODS}")
        self.method = method
        self._maps: list[np.ndarray] = []
        self._tree = _new_tree() if method == "fishdbc" else None

    def add(self, maps: np.ndarray) -> None:
        """Take maps of zero mean and unit norm, shape (members, cells).

        Empty ones count but belong nowhere.
        """
        self._maps.append(maps)
        if self._tree is not None:
            self._tree.update([m for m in maps if m.any()], num_threads=1)

    def labels(self, *, smallest: int | None = None) -> np.ndarray:
        """Cluster of every map taken so far, -1 = in none, in their order.

        Parameters
        ----------
        smallest : int, optional
            Members of the smallest cluster; `SMALLEST`, or `SHARE` of all if that is
            more.
        """
        maps = np.concatenate(self._maps)
        there = maps.any(1)
        smallest = smallest or max(SMALLEST, round(SHARE * int(there.sum())))
        labels = np.full(len(maps), -1)
        if there.sum() < max(smallest, NEIGHBOURS + 1):
            return labels
        if self._tree is not None:
            found = self._tree.cluster(min_cluster_size=smallest)
            labels[there] = found.labels
            return labels
        from sklearn.cluster import HDBSCAN

        labels[there] = HDBSCAN(
            metric="precomputed",
            min_cluster_size=smallest,
            min_samples=NEIGHBOURS,
            copy=True,
        ).fit_predict(1 - alike(maps[there]))
        return labels


def cluster(
    components: Components,
    *,
    method: str = "fishdbc",
    smallest: int | None = None,
    most: int | None = None,
) -> Clusters:
    """Cluster components and tell how stable each cluster is.

    Clusters whose most typical maps are alike by `SAME` or more are joined, the most
    alike first: amplitudes of nearly equal maps could not be told apart.

    Parameters
    ----------
    components : Components
    method : {"fishdbc", "hdbscan"}
    smallest : int, optional
        See `Clusterer.labels`.
    most : int, optional
        Clusters, those with the largest product of members and stability; members of
        the others are in none.

    Returns
    -------
    Clusters
        Those with the most members first.
    """
    clusterer = Clusterer(method)
    clusterer.add(components.maps)
    found = described(components.maps, clusterer.labels(smallest=smallest))
    while True:
        near = np.abs(found.maps @ found.maps.T) / found.maps.shape[1]
        np.fill_diagonal(near, 0)
        if not near.size or near.max() < SAME:
            break
        one, other = np.unravel_index(near.argmax(), near.shape)
        joined = np.where(found.labels == other, one, found.labels)
        found = described(components.maps, joined)
    if most is None or len(found.maps) <= most:
        return found
    members = np.bincount(found.labels[found.labels >= 0])
    kept = np.argsort(-members * found.stability, kind="stable")[:most]
    return described(
        components.maps, np.where(np.isin(found.labels, kept), found.labels, -1)
    )


def described(maps: np.ndarray, labels: np.ndarray) -> Clusters:
    """Number clusters by size, and describe them; see `Clusters`."""
    near = alike(maps)
    there = maps.any(1)
    names, sizes = np.unique(labels[labels >= 0], return_counts=True)
    renamed = np.full(labels.shape, -1)
    stability, centres = [], []
    for k, name in enumerate(names[np.argsort(-sizes, kind="stable")]):
        inside = labels == name
        renamed[inside] = k
        size = int(inside.sum())
        within = near[np.ix_(inside, inside)]
        outside = near[np.ix_(inside, ~inside & there)]
        index = (within.sum() - np.trace(within)) / max(size * (size - 1), 1)
        stability.append(index - (outside.mean() if outside.size else 0.0))
        centres.append(maps[np.flatnonzero(inside)[within.sum(0).argmax()]])
    found = np.array(centres, "float64").reshape(-1, maps.shape[1])
    found -= found.mean(1, keepdims=True)
    if len(found):
        found /= found.std(1, keepdims=True)
    return Clusters(renamed, np.array(stability), found)


def alike(maps: np.ndarray) -> np.ndarray:
    """Absolute correlation of maps of unit norm, float64, shape (members, members)."""
    found = np.minimum(np.abs(maps @ maps.T), 1).astype("float64")
    np.fill_diagonal(found, 1)
    return found


def _new_tree() -> Any:
    try:
        from fishdbc import FISHDBC
    except ImportError:
        raise ValueError(
            "clustering='fishdbc' needs the package fishdbc: pip install "
            "'cube-denoise[separation]', or take clustering='hdbscan'"
        ) from None
    # Balanced levels are not drawn at random: the same maps give the same tree.
    return FISHDBC.from_metric(
        _apart, min_samples=NEIGHBOURS, level_strategy="balanced"
    )


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return max(0.0, 1.0 - abs(float(one @ other)))
