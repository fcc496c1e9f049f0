"""DnCNN: a plain residual convolutional denoiser (Zhang et al., 2017).

As used for interferograms by Li and Sagiya: 20 layers, the network predicts the noise
and the estimate is input minus prediction. What the poster does not give (learning
rate, channels, padding) follows the original DnCNN.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Sides = tuple[bool, bool, bool, bool]


@dataclass(frozen=True)
class DnCNNConfig:
    """Everything needed to build the network and to feed it."""

    depth: int = 20
    """Convolutions, first and last included."""
    channels: int = 64
    inputs: tuple[str, ...] = ("displacement",)
    """Input channels, as in `normalise.network_inputs`."""
    normalisation: str = "minmax"
    """How a pair is scaled, as in `normalise.scaling`."""
    dilations: tuple[int, ...] = (1,)
    """Cycled over the middle layers."""


class DnCNN(nn.Module):
    """Estimate the noise of a normalised interferogram.

    With the default configuration: conv-ReLU, 18 x (conv-BatchNorm-ReLU), conv, all
    3 x 3 with 64 channels: 667,073 parameters, receptive field 41 pixels. Edges are
    reflected.
    """

    sheds_halo: bool = True
    """Whether `forward` may be told where the map goes on."""
    all_bfloat16: bool = True
    """Whether the inference copy may hold its weights in that precision."""

    def __init__(self, config: DnCNNConfig | None = None) -> None:
        super().__init__()
        self.config = config or DnCNNConfig()
        c, cycle = self.config.channels, self.config.dilations
        middle = [cycle[k % len(cycle)] for k in range(self.config.depth - 2)]
        layers: list[nn.Module] = [_conv(len(self.config.inputs), c), nn.ReLU(True)]
        for dilation in middle:
            layers += [
                _conv(c, c, dilation=dilation, bias=False),
                nn.BatchNorm2d(c),
                nn.ReLU(True),
            ]
        last = _conv(c, 1)
        layers.append(last)
        self.layers = nn.Sequential(*layers)
        self.receptive_radius: int | None = 2 + sum(middle)
        """Pixels beyond which the input does not change an output pixel."""
        self.smallest_side = 1 + max(middle, default=1)
        """Pixels a side that a map must have at least, for edges to be reflected."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Start as the network that removes nothing.
        nn.init.zeros_(last.weight)

    def forward(
        self, x: torch.Tensor, goes_on: Sides = (False, False, False, False)
    ) -> torch.Tensor:
        """Noise, normalised.

        Parameters
        ----------
        x : torch.Tensor, shape (batch, channels, y, x)
            Normalised inputs.
        goes_on : tuple of bool
            Whether the map goes on beyond the top, bottom, left and right of `x`. There
            edges are not reflected: every layer computes less than the one before, and
            the output ends `receptive_radius` pixels before the input does.

        Returns
        -------
        torch.Tensor, shape (batch, 1, y, x)
        """
        top, bottom, left, right = goes_on
        x = x.to(next(self.parameters()).dtype)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                # As the layer does, but the map without its edges is let go first:
                # a third of the memory.
                pad = [
                    0 if s else layer.dilation[0] for s in (left, right, top, bottom)
                ]
                if any(pad):
                    x = nn.functional.pad(x, pad, mode="reflect")
                x = nn.functional.conv2d(
                    x, layer.weight, layer.bias, dilation=layer.dilation
                )
            else:
                x = layer(x)
        return x

    def fused(self) -> "DnCNN":
        """Return an inference copy with every BatchNorm folded into its convolution."""
        copy = DnCNN(self.config)
        copy.load_state_dict(self.state_dict())
        copy.eval()
        layers: list[nn.Module] = []
        for layer in copy.layers:
            if isinstance(layer, nn.BatchNorm2d):
                convolution = layers[-1]
                assert isinstance(convolution, nn.Conv2d)
                layers[-1] = fuse_conv_bn_eval(convolution, layer)
            else:
                layers.append(layer)
        copy.layers = nn.Sequential(*layers)
        return copy


def _conv(
    inputs: int, outputs: int, *, dilation: int = 1, bias: bool = True
) -> nn.Conv2d:
    return nn.Conv2d(
        inputs,
        outputs,
        3,
        padding=dilation,
        dilation=dilation,
        bias=bias,
        padding_mode="reflect",
    )
