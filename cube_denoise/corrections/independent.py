"""Spatially independent components of the dates of a stack that are stable."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cube_denoise.corrections.components import Sample, Separated
from cube_denoise.corrections.principal import principal_axes
from cube_denoise.corrections.separation import Separation

TOLERANCE, MOST_ITERATIONS = 1e-4, 150
"""Of FastICA, as in ICASAR."""
CLUSTER_SHARE, NEIGHBOUR_SHARE = 35 / 200, 10 / 200
"""HDBSCAN's min_cluster_size and min_samples per run, as in ICASAR's 200 runs."""
SMALLEST_CLUSTER, FEWEST_NEIGHBOURS = 5, 3


@dataclass(frozen=True, kw_only=True)
class IndependentComponents(Separation):
    """Remove the independent components of the dates that do not grow with time.

    The scheme of ICASAR (Gaddes et al. 2018, 2019): the dates are whitened to their
    leading principal components and FastICA looks for maps as independent as possible,
    again and again on dates drawn with replacement. The maps of all runs that
    converged are clustered (HDBSCAN on 1 - abs(correlation)), each cluster is
    represented by the map most like the others in it, and time courses are fitted to
    these by least squares. The stability index of a cluster is the mean similarity of
    its maps less their mean similarity to all others. Runs are fewer than ICASAR's
    200, and its limits on clusters are scaled down with them.

    FastICA tells maps apart by their not being Gaussian. Smooth turbulence nearly is
    Gaussian; a bowl, a fault or a stratified delay is not. Unstable components stay in
    the signal, and so does what no cluster holds. Where there is little else than
    turbulence some runs wander for long, and the last digit of the phase decides
    whether and where they converge: there another order of the pairs, or another
    processor, can give other clusters. For the rule and its blind spots see
    `separation.Separation`.

    Parameters
    ----------
    components : int
        How many are looked for; at most the number of dates less 3. Too many, and no
        component is stable: on simulated stacks of 16 to 30 dates, 3 remove more than
        5 do.
    runs : int
        How often, 5 or more.
    stability : float
        Components with a lower stability index stay, 0 to 1.
    seed : int
        Of the dates drawn and of FastICA.
    keep, remove : sequence of int
        Components, counted from 1, to keep or to remove whatever the rule says. With
        one that grows with time, steady motion goes too.

    Raises
    ------
    ValueError
        If an option is out of range; if `keep` and `remove` overlap.
    """

    name: ClassVar[str] = "ica"
    components: int = 3
    runs: int = 30
    stability: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 1 or self.components != int(self.components):
            raise ValueError(f"components={self.components} must be 1 or more")
        if self.runs < SMALLEST_CLUSTER:
            raise ValueError(f"runs={self.runs} must be {SMALLEST_CLUSTER} or more")
        if not 0 <= self.stability <= 1:
            raise ValueError(f"stability={self.stability} must be 0 to 1")

    @property
    def least_stability(self) -> float:
        """See `separation.Separation.least_stability`."""
        return self.stability

    def separate(self, sample: Sample) -> Separated:
        """See `separation.Separation.separate`."""
        count = min(self.components, sample.years.size - 3)
        pool = bootstrap_maps(sample.phase, count, runs=self.runs, seed=self.seed)
        maps, stability = stable_maps(pool, self.runs)
        maps, stability = maps[:count], stability[:count]
        courses = np.linalg.lstsq(maps.T, sample.phase.T)[0].T
        return Separated(courses, maps, stability)


def bootstrap_maps(
    phase: np.ndarray, count: int, *, runs: int, seed: int
) -> np.ndarray:
    """Independent maps of many draws of the dates.

    Parameters
    ----------
    phase : numpy.ndarray, shape (dates, pixels)
        Rows of zero mean.
    count : int
        Components a run; less than the number of dates.
    runs, seed : int
        How many draws; the first is the dates themselves.

    Returns
    -------
    numpy.ndarray, float32, shape (maps, pixels)
        Of zero mean and unit variance, in any sign; of the runs that converged.
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(seed)
    pool = []
    for run in range(runs):
        drawn = np.arange(phase.shape[0])
        if run:
            drawn = rng.choice(drawn, drawn.size)
            while np.unique(drawn).size <= count:
                drawn = rng.choice(phase.shape[0], drawn.size)
        variance, vectors = principal_axes(phase[drawn])
        white = (vectors[:, :count] / np.sqrt(variance[:count])).T @ phase[drawn]
        separation = FastICA(
            whiten=False,
            tol=TOLERANCE,
            max_iter=MOST_ITERATIONS,
            random_state=int(rng.integers(2**31)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                pool.append(separation.fit_transform(white.T).T.astype("float32"))
            except ConvergenceWarning:
                continue
    maps = np.concatenate(pool) if pool else np.empty((0, phase.shape[1]), "float32")
    maps -= maps.mean(1, keepdims=True)
    return np.asarray(maps / maps.std(1, keepdims=True))


def stable_maps(pool: np.ndarray, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps that come again and again, each with its stability index.

    Parameters
    ----------
    pool : numpy.ndarray, shape (maps, pixels)
        Of zero mean and unit variance.
    runs : int
        How many runs they come from.

    Returns
    -------
    maps : numpy.ndarray, float64, shape (clusters, pixels)
        One for each cluster, the most stable first.
    stability : numpy.ndarray, shape (clusters,)
        Mean abs(correlation) within the cluster less that to all other maps; 1 = they
        are all the same and unlike all others.
    """
    from sklearn.cluster import HDBSCAN

    smallest = max(SMALLEST_CLUSTER, int(np.ceil(CLUSTER_SHARE * runs)))
    if len(pool) < smallest:
        return np.empty((0, pool.shape[1])), np.empty(0)
    alike = np.minimum(np.abs(pool @ pool.T) / pool.shape[1], 1).astype("float64")
    labels = HDBSCAN(
        metric="precomputed",
        min_cluster_size=smallest,
        min_samples=max(FEWEST_NEIGHBOURS, int(np.ceil(NEIGHBOUR_SHARE * runs))),
        cluster_selection_method="leaf",
        copy=True,
    ).fit_predict(1 - alike)
    found = []
    for label in range(labels.max() + 1):
        inside = labels == label
        within, outside = alike[np.ix_(inside, inside)], alike[np.ix_(inside, ~inside)]
        size = inside.sum()
        index = (within.sum() - np.trace(within)) / (size * (size - 1))
        index -= outside.mean() if outside.size else 0.0
        centre = np.flatnonzero(inside)[within.sum(0).argmax()]
        found.append((float(index), pool[centre].astype("float64")))
    found.sort(key=lambda one: -one[0])
    maps = np.array([m for _, m in found]).reshape(-1, pool.shape[1])
    return maps, np.array([index for index, _ in found])
