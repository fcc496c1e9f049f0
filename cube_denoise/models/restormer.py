"""Restormer: a U-shaped transformer that attends over channels (Zamir et al., 2022).

Written from the description of the architecture; no code of the authors was used.
Attention between channels costs no more per pixel the larger the map, but its weights
are statistics of the whole map: apply it to tiles of about the size it was trained on.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class RestormerConfig:
    """Everything needed to build the network and to feed it."""

    channels: int = 48
    """Of the first level; each level has twice those of the one above."""
    blocks: tuple[int, ...] = (4, 6, 6, 8)
    """Transformer blocks of each level."""
    refinement: int = 4
    """Blocks at full resolution before the output."""
    heads: tuple[int, ...] = (1, 2, 4, 8)
    """Attention heads of each level."""
    expansion: float = 2.66
    """Channels within the feed-forward part, relative to those outside."""
    inputs: tuple[str, ...] = ("displacement",)
    """Input channels, as in `normalise.network_inputs`."""
    normalisation: str = "robust"
    """How a pair is scaled, as in `normalise.scaling`."""

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.heads) or len(self.blocks) < 2:
            raise ValueError(
                f"blocks={self.blocks} and heads={self.heads} must have one number "
                "each for every level, of at least two"
            )
        for level, heads in enumerate(self.heads):
            if self.channels * 2**level % heads:
                raise ValueError(
                    f"heads={self.heads}: {heads} do not divide the "
                    f"{self.channels * 2**level} channels of level {level + 1}"
                )


class Restormer(nn.Module):
    """Estimate the noise of a normalised interferogram.

    The paper's estimate is input plus output; the noise is minus that output. With the
    default configuration 26.11 million parameters. No convolution has a bias; their
    edges are zero.
    """

    def __init__(self, config: RestormerConfig | None = None) -> None:
        super().__init__()
        self.config = config or RestormerConfig()
        blocks, heads = self.config.blocks, self.config.heads
        c, levels = self.config.channels, len(blocks)
        sizes = [c * 2**level for level in range(levels)]
        # The decoder's first level keeps what its concatenation has.
        widths = [2 * c, *sizes[1:-1]]
        expansion = self.config.expansion

        def stage(size: int, level: int, number: int) -> nn.Sequential:
            made = [Block(size, heads[level], expansion) for _ in range(number)]
            return nn.Sequential(*made)

        self.embed = _conv(len(self.config.inputs), c, 3)
        self.encoder = nn.ModuleList(
            stage(size, level, blocks[level]) for level, size in enumerate(sizes)
        )
        self.down = nn.ModuleList(
            nn.Sequential(_conv(n, n // 2, 3), nn.PixelUnshuffle(2)) for n in sizes[:-1]
        )
        self.up = nn.ModuleList(
            nn.Sequential(_conv(n, 2 * n, 3), nn.PixelShuffle(2)) for n in sizes[1:]
        )
        self.reduce = nn.ModuleList(
            nn.Identity() if width == 2 * n else _conv(2 * n, width, 1)
            for n, width in zip(sizes[:-1], widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            stage(width, level, blocks[level]) for level, width in enumerate(widths)
        )
        self.refinement = stage(2 * c, 0, self.config.refinement)
        self.output = _conv(2 * c, 1, 3)
        self.multiple = 2 ** (levels - 1)
        """Maps are reflected to multiples of this many pixels a side."""
        self.receptive_radius: int | None = None
        """Every output pixel depends on the whole map."""
        self.smallest_side = self.multiple // 2 + 1
        """Pixels a side that a map must have at least, for edges to be reflected."""
        # Start as the network that removes nothing.
        nn.init.zeros_(self.output.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Noise, normalised, (batch, 1, y, x), of inputs (batch, channels, y, x)."""
        rows, columns = x.shape[-2:]
        beyond = (0, -columns % self.multiple, 0, -rows % self.multiple)
        x = functional.pad(x, beyond, mode="reflect")
        x = self.embed(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=False):
            skips.append(stage(x))
            x = down(skips[-1])
        x = self.encoder[-1](x)
        for level in reversed(range(len(self.up))):
            x = torch.cat([self.up[level](x), skips.pop()], 1)
            x = self.decoder[level](self.reduce[level](x))
        return -self.output(self.refinement(x))[..., :rows, :columns]

    def fused(self) -> "Restormer":
        """Return an inference copy with the norms' weights in the convolutions."""
        fused = copy.deepcopy(self).eval()
        for block in fused.modules():
            if isinstance(block, Block):
                _fold(block.norm1, block.attention.qkv)
                _fold(block.norm2, block.feed_forward.expand)
        return fused


class Block(nn.Module):
    """Attention between channels, then a gated feed-forward part, both residual."""

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = BiasFreeNorm(channels)
        self.attention = TransposedAttention(channels, heads)
        self.norm2 = BiasFreeNorm(channels)
        self.feed_forward = GatedFeedForward(channels, expansion)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, y, x) to maps of that shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class BiasFreeNorm(nn.Module):
    """Divide each pixel by the standard deviation over its channels.

    Their mean is not subtracted and nothing is added: level and sign are kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, y, x) to maps of that shape."""
        centred = x - x.mean(1, keepdim=True)
        # Several times as quick as Tensor.var over the channels of each pixel.
        x = x * torch.rsqrt((centred * centred).mean(1, keepdim=True) + 1e-5)
        if self.weight is None:
            return x
        return x * self.weight[:, None, None].to(x.dtype)


class TransposedAttention(nn.Module):
    """Multi-Dconv head transposed attention (MDTA): between channels, not pixels.

    Within a head, weights are the softmax of temperature times the cosines between
    channels of the queries and of the keys, each a vector of all pixels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = _conv(channels, 3 * channels, 1)
        self.depthwise = _conv(3 * channels, 3 * channels, 3, groups=3 * channels)
        self.project = _conv(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, y, x) to maps of that shape."""
        q, k, v = (p.flatten(2) for p in _filtered(x, self.qkv, self.depthwise, 3))
        q, k = (part.unflatten(1, (self.heads, -1)) for part in (q, k))
        lengths = torch.linalg.vector_norm(q, dim=-1)[..., :, None]
        lengths = lengths * torch.linalg.vector_norm(k, dim=-1)[..., None, :]
        cosines = q @ k.mT / lengths.clamp_min(1e-12)
        weights = (cosines * self.temperature).softmax(-1)
        # Heads are mixed before they meet the pixels: one product instead of two.
        mixing = self.project.weight.unflatten(1, (self.heads, -1)).flatten(2)
        mixed = torch.einsum("ohi,bhij->bohj", mixing, weights.to(mixing.dtype))
        out = v.mT @ mixed.flatten(2).mT.to(v.dtype)
        return out.mT.unflatten(2, x.shape[2:])


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network (GDFN): one half gates the other."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.expand = _conv(channels, 2 * hidden, 1)
        self.depthwise = _conv(2 * hidden, 2 * hidden, 3, groups=2 * hidden)
        self.project = _conv(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, y, x) to maps of that shape."""
        gate, value = _filtered(x, self.expand, self.depthwise, 2)
        return self.project(functional.gelu(gate) * value)


def _filtered(
    x: torch.Tensor, mix: nn.Conv2d, depthwise: nn.Conv2d, parts: int
) -> list[torch.Tensor]:
    """Cut the channels of ``depthwise(mix(x))`` into equal parts.

    One after the other: what is in between is the widest that the network holds.
    """
    kernels = zip(mix.weight.chunk(parts), depthwise.weight.chunk(parts), strict=True)
    return [
        functional.conv2d(
            functional.conv2d(x, mixing), filters, padding=1, groups=len(filters)
        )
        for mixing, filters in kernels
    ]


def _conv(inputs: int, outputs: int, size: int, *, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, size, padding=size // 2, groups=groups, bias=False
    )


def _fold(norm: BiasFreeNorm, convolution: nn.Conv2d) -> None:
    """Scale what a convolution sees in its weights instead of in the norm before."""
    assert norm.weight is not None
    with torch.no_grad():
        convolution.weight *= norm.weight[:, None, None]
    norm.weight = None
