"""Corrections that split pairs into components in different ways, by name."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cube_denoise.separation import clusters as clustering_
from cube_denoise.separation.cluster_removal import ClusterRemoval
from cube_denoise.separation.coarse import CoarseStack
from cube_denoise.separation.sources import (
    Components,
    linear_components,
    vae_components,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VAEClustering(ClusterRemoval):
    """Remove clusters of components that an autoencoder, fitted to the stack, finds.

    After Ghosh et al. (2025): no training data, a variational autoencoder with one
    decoder for all sources (Neri et al. 2021; `models.vae`) splits every pair. Of that
    paper the abstract, the outline and the tables were at hand: every number here but
    those of Neri's network is this project's. Takes minutes on a CPU.

    Parameters
    ----------
    components : int
        Sources that a pair is split into.
    clustering : {"fishdbc", "hdbscan"}
        How they are clustered.
    stability : float
        Clusters with a lower stability index stay, 0 to 1.
    looks : int
        Pixels a side of a cell; 0 for as few as let the scene fit into one tile. With
        fewer, tiles overlap by half and are blended.
    seed : int
        Of the network.
    keep, remove : sequence of int
        Clusters, counted from 1, to keep or to remove whatever the rule says.
    arch : {"mlp", "conv"}
        Layers of Neri et al., or convolutions.
    epochs : int
        At most.
    beta : float
        Weight of the divergence from the prior.
    latent : int
        Numbers that describe a source. With the 20 of Neri et al. one source can draw
        a whole pair, and tends to; with few it has to be a pattern and its amplitude.
    tile : int
        Cells a side that the network sees.
    prior : {"normal", "laplace"}
        Of these numbers.
    members : bool
        Whether the members of a cluster go as they are, as in the paper, in place of
        its map times the fitted amplitude. What the network sees in pairs does not
        close; over many short pairs the difference adds up in the velocity.

    Raises
    ------
    ValueError
        If an option is out of range; if `keep` and `remove` overlap.
    """

    name: ClassVar[str] = "vae-clustering"
    arch: str = "mlp"
    epochs: int = 200
    beta: float = 0.5
    latent: int = 3
    tile: int = 64
    prior: str = "normal"
    members: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._settings()
        if self.tile % 2:
            raise ValueError(f"tile={self.tile} must be even")

    @property
    def side(self) -> int:
        """See `ClusterRemoval.side`."""
        return self.tile

    @property
    def summed(self) -> bool:
        """See `ClusterRemoval.summed`."""
        return self.members

    def _settings(self) -> tuple[Any, Any]:
        from cube_denoise.models.vae import SeparatorConfig
        from cube_denoise.models.vae_fit import FitOptions

        config = SeparatorConfig(
            tile=self.tile,
            sources=self.components,
            latent=self.latent,
            arch=self.arch,
            prior=self.prior,
        )
        return config, FitOptions(epochs=self.epochs, beta=self.beta, seed=self.seed)

    def split(self, stack: CoarseStack) -> tuple[Components, Mapping[str, Any]]:
        """See `ClusterRemoval.split`."""
        config, options = self._settings()

        def tell(epoch: int, loss: float, outside: float) -> None:
            if epoch == 1 or epoch % 25 == 0:
                log.info(
                    "%s: epoch %d of %d, loss %.0f, on held-out pairs %.0f",
                    *(self.name, epoch, self.epochs, loss, outside),
                )

        components, fitted = vae_components(stack, config, options, progress=tell)
        fit = {"epochs": fitted.epochs, "best": fitted.best, "losses": fitted.losses}
        return components, fit


@dataclass(frozen=True, kw_only=True)
class LinearClustering(ClusterRemoval):
    """Base of the linear methods: components of many draws of the pairs, clustered.

    As ICASAR does with FastICA (Gaddes et al. 2018): draw pairs with replacement, split
    them, again and again; maps that come back form a cluster, its most typical map
    stands for it, and amplitudes are fitted to the pairs by least squares. For the
    options see `VAEClustering`; `runs` is the number of draws.
    """

    runs: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runs < clustering_.SMALLEST:
            raise ValueError(f"runs={self.runs} must be {clustering_.SMALLEST} or more")

    @property
    def smallest(self) -> int:
        """See `ClusterRemoval.smallest`: the share that ICASAR has."""
        return max(clustering_.SMALLEST, -(-35 * self.runs // 200))

    def split(self, stack: CoarseStack) -> tuple[Components, Mapping[str, Any]]:
        """See `ClusterRemoval.split`."""
        method = self.name.removesuffix("-clustering")
        options = {"runs": self.runs, "seed": self.seed}
        return linear_components(stack, method, self.components, **options), {}


@dataclass(frozen=True, kw_only=True)
class PrincipalClustering(LinearClustering):
    """Remove clusters of principal components of the pairs; see `LinearClustering`."""

    name: ClassVar[str] = "pca-clustering"


@dataclass(frozen=True, kw_only=True)
class IndependentClustering(LinearClustering):
    """Remove clusters of independent components of the pairs (FastICA, bootstrap).

    See `LinearClustering`.
    """

    name: ClassVar[str] = "ica-clustering"


@dataclass(frozen=True, kw_only=True)
class NonNegativeClustering(LinearClustering):
    """Remove clusters of non-negative factors of the pairs, shifted to be positive.

    See `LinearClustering`.
    """

    name: ClassVar[str] = "nmf-clustering"
