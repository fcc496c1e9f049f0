"""InDI: from the interferogram to the deformation, the atmosphere as the degradation.

Delbracio and Milanfar (2023): maps between truth x and observation y are mixtures
``x_t = (1 - t) x + t y``, a network F estimates x from any of them, and small steps
toward its estimate lead from y to x. The noise may have any distribution.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from cube_denoise.models.unet import UNet, UNetConfig, mean_square

Restorer = Callable[[torch.Tensor, float], torch.Tensor]
"""``restorer(x_t, t)``: the expected truth, F."""


def cross(restorer: Restorer, noisy: torch.Tensor, *, steps: int) -> torch.Tensor:
    r"""Go from observation to truth in `steps` steps of size d = 1 / steps.

    .. math:: x_{t-d} = \frac{d}{t} F(x_t, t) + \left(1 - \frac{d}{t}\right) x_t

    One step is regression: the conditional mean. Many steps approach a map with the
    variance of the truth.

    Parameters
    ----------
    restorer : callable
        See `Restorer`.
    noisy : torch.Tensor
        y.
    steps : int
        At least 1.

    Raises
    ------
    ValueError
        If `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"{steps=} must be at least 1")
    x = noisy
    for left in range(steps, 0, -1):
        x = restorer(x, left / steps) / left + (1 - 1 / left) * x
    return x


@dataclass(frozen=True)
class BridgeConfig:
    """Everything needed to build the network, to feed it and to run it."""

    channels: tuple[int, ...] = (24, 32, 48, 64, 96)
    """As `blocks` and `dilations`: of the `UNetConfig`."""
    blocks: int = 1
    dilations: tuple[int, ...] = (1, 2, 4)
    inputs: tuple[str, ...] = ("displacement", "log_scale", "elevation", "valid")
    """Input channels, as in `normalise.network_inputs`."""
    normalisation: str = "robust"
    """How a pair is scaled, as in `normalise.scaling`."""
    steps: int = 4
    """Network runs per interferogram."""


class BridgeDenoiser(nn.Module):
    """Estimate the noise of an interferogram: what crossing to the truth takes away.

    The U-Net in it estimates y - x from x_t, so F is ``x_t - t`` times its output, and
    a new network removes nothing.

    Parameters
    ----------
    config : BridgeConfig, optional
        The default one when not given.

    Raises
    ------
    ValueError
        If ``config.steps`` is below 1.
    """

    receptive_radius: int | None = None
    """Wider than a tile."""

    def __init__(self, config: BridgeConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or BridgeConfig()
        if c.steps < 1:
            raise ValueError(f"steps={c.steps} must be at least 1")
        self.network = UNet(
            UNetConfig(
                channels=c.channels,
                blocks=c.blocks,
                dilations=c.dilations,
                inputs=("state", *c.inputs[1:]),
                time=True,
            )
        )
        self.smallest_side = self.network.smallest_side
        """Pixels a side that a map must have at least."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Noise, normalised, (batch, 1, y, x), of inputs (batch, channels, y, x)."""
        noisy, given = x[:, :1], x[:, 1:]

        def restorer(state: torch.Tensor, t: float) -> torch.Tensor:
            time = torch.full((len(state),), t, device=state.device)
            found = self.network(torch.cat([state, given], 1), time)
            return state - t * found.to(state.dtype)

        return noisy - cross(restorer, noisy, steps=self.config.steps)

    def loss(
        self,
        inputs: torch.Tensor,
        noise: torch.Tensor,
        valid: torch.Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Mean square error of F at random times, over valid pixels.

        Half of the times are 1, where every crossing starts.

        Parameters
        ----------
        inputs, noise, valid : torch.Tensor
            As in `dataset.Batch`.
        generator : torch.Generator, optional
            Draws the times; of the device of `inputs`.
            Torch's own when not given.
        """
        draws = torch.rand((2, len(inputs)), generator=generator, device=inputs.device)
        time = torch.where(draws[0] < 0.5, 1.0, draws[1])
        t = time[:, None, None, None]
        state = inputs[:, :1] - (1 - t) * noise
        found = self.network(torch.cat([state, inputs[:, 1:]], 1), time)
        return mean_square(t * (found.float() - noise), valid)

    def fused(self) -> Self:
        """Return an inference copy; there is nothing to fold."""
        return copy.deepcopy(self).eval()
