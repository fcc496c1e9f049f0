"""Cluster the components of pairs and remove what is atmosphere."""

import json
import logging
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR
from cube_denoise.corrections.components import check_overruled
from cube_denoise.corrections.correction import Correction, Plan, Run
from cube_denoise.separation import clusters as clustering_
from cube_denoise.separation.clusters import Clusters, cluster
from cube_denoise.separation.coarse import CoarseStack, read_coarse
from cube_denoise.separation.evidence import Evidence, judge
from cube_denoise.separation.removal import (
    amplitudes_of,
    corrected,
    date_maps,
    fitted_amplitudes,
    fitted_parts,
    summed_parts,
)
from cube_denoise.separation.sources import Components

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Separated:
    """What a method found in a stack."""

    stack: CoarseStack
    """The pairs it was given."""
    components: Components
    """What it split them into."""
    clusters: Clusters
    """Which of these belong together."""
    amplitudes: np.ndarray
    """rad, of the map of each cluster in each pair, shape (pairs, clusters)."""
    parts: np.ndarray
    """rad, what goes of each pair with each cluster, shape (clusters, pairs, known
    cells)."""
    evidence: list[Evidence]
    """What each cluster is, and whether it goes."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """How a network was fitted: "epochs", "best" and "losses"."""


@dataclass(frozen=True, kw_only=True)
class ClusterRemoval(Correction):
    r"""Base of corrections that remove clusters of components of the pairs.

    The pairs are averaged over cells (`coarse.read_coarse`) and split into components,
    which are clustered by how much their maps look alike (`clusters.Clusterer`). There
    are no more clusters than `components`: the maps of more would nearly depend on each
    other. The most typical map of a cluster stands for it, and the amplitudes of all
    are fitted to the pairs by least squares together (Gaddes et al. 2018). Each cluster
    is kept or removed by its evidence (`evidence.judge`); what is in no cluster stays.
    What goes, r, is inverted to dates, which are interpolated to the pixels, and

    .. math:: \varphi_{ij} \to \varphi_{ij} - (a_j - a_i), \qquad
        \min_a \sum_{ij} (a_j - a_i - r_{ij})^2,

    so that closure is that of the raw pairs. Their medians stay as well. Detail finer
    than two cells stays in the signal.

    **Blind spots.** Deformation that is neither monotonous nor smooth in time, such as
    a single short event, passes for atmosphere if it forms a cluster; deformation that
    follows elevation and does not grow for stratified delay. A component that holds
    both goes or stays as a whole. Read the sheet (`cluster_sheet.write_sheet`).
    """

    whole_stack: ClassVar[bool] = True
    passes: ClassVar[str] = "hold no data"
    components: int = 4
    clustering: str = "fishdbc"
    stability: float = 0.2
    looks: int = 0
    seed: int = 0
    keep: Sequence[int] = ()
    remove: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.components < 1 or self.components != int(self.components):
            raise ValueError(f"components={self.components} must be 1 or more")
        if self.clustering not in clustering_.METHODS:
            raise ValueError(
                f"clustering={self.clustering!r} must be one of {clustering_.METHODS}"
            )
        if not 0 <= self.stability <= 1:
            raise ValueError(f"stability={self.stability} must be 0 to 1")
        if self.looks < 0 or self.looks != int(self.looks):
            raise ValueError(f"looks={self.looks} must be a number of pixels, or 0")
        check_overruled(self.keep, self.remove)

    @property
    def side(self) -> int:
        """Cells along the longer side of the scene, at most, where looks are 0."""
        return 64

    @property
    def smallest(self) -> int | None:
        """Members of the smallest cluster; None for the rule of `clusters`."""
        return None

    @property
    def summed(self) -> bool:
        """Whether members go as they are, where they are parts of pairs."""
        return False

    @abstractmethod
    def split(self, stack: CoarseStack) -> tuple[Components, Mapping[str, Any]]:
        """Components of a stack, and `Separated.fit`."""

    def separated(self, cube: xr.Dataset, run: Run) -> Separated:
        """Look at a cube; errors as `Correction.plan`."""
        stack = read_coarse(cube, looks=self.looks or None, side=self.side, run=run)
        components, fit = self.split(stack)
        found = cluster(
            components,
            method=self.clustering,
            smallest=self.smallest,
            most=self.components,
        )
        return self.judged(stack, components, found, fit)

    def judged(
        self,
        stack: CoarseStack,
        components: Components,
        found: Clusters,
        fit: Mapping[str, Any],
    ) -> Separated:
        """Gather the evidence and decide."""
        amplitudes = fitted_amplitudes(stack, found)
        own = summed_parts(stack, components, found)
        parts = fitted_parts(amplitudes, found)
        if self.summed and own is not None:
            parts = own
        power = (stack.phase.astype("float64") ** 2).sum()
        evidence = judge(
            stack,
            found,
            amplitudes,
            (parts**2).sum((1, 2)) / power if power else np.zeros(len(parts)),
            own=None if own is None else amplitudes_of(own, found),
            least_stability=self.stability,
            keep=self.keep,
            remove=self.remove,
        )
        for one in evidence:
            log.info("%s: %s", self.name, json.dumps(one.told))
        return Separated(stack, components, found, amplitudes, parts, evidence, fit)

    def caution(self) -> list[str]:
        """What the rule cannot see."""
        return [
            "clusters that grow with the temporal baseline or are smooth in time are "
            "kept; motion that is neither may be removed with the atmosphere (the "
            "evidence is in the attributes of corrected_phase and on the cluster "
            "sheet; keep and remove overrule it)"
        ]

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        return self.plan_removal(cube, self.separated(cube, run))

    def plan_removal(self, cube: xr.Dataset, found: Separated) -> Plan:
        """Plan of what `separated` found in this cube."""
        goes = np.array([e.verdict == "removed" for e in found.evidence], bool)
        if not goes.any():
            warnings.warn(
                f"{self.name} found {goes.size} clusters and none of them goes: the "
                "phase stays as it is",
                stacklevel=4,
            )
        removed = found.parts[goes].sum(0)
        apply = partial(corrected, unwanted=date_maps(cube, found.stack, removed))
        unused = set(range(cube.sizes[PAIR])) - set(found.stack.pairs.tolist())
        told = {"clusters": json.dumps([e.told for e in found.evidence])}
        return Plan(apply, frozenset(unused), told)


@dataclass(frozen=True, kw_only=True)
class Decided(Correction):
    """A removal whose look at the cube is already taken: it is not taken again."""

    name: ClassVar[str] = "decided"
    whole_stack: ClassVar[bool] = True
    of: ClusterRemoval
    found: Separated

    @property
    def label(self) -> dict[str, str]:
        """See `Correction.label`: that of the removal."""
        return self.of.label

    def caution(self) -> list[str]:
        """See `Correction.caution`."""
        return self.of.caution()

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`; the cube must be the one that was looked at."""
        return self.of.plan_removal(cube, self.found)
