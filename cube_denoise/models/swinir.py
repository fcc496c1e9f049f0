"""SwinIR: attention within shifted windows at full resolution (Liang et al., 2021).

For denoising: no change of resolution, one convolution after each group of layers.
Parameters have the names of the authors' release, so that their weights load.
"""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

WIDE = 60
"""With a receptive radius beyond this, a network counts as one that sees everything."""


@dataclass(frozen=True)
class SwinIRConfig:
    """Everything needed to build the network and to feed it."""

    channels: int = 180
    depths: tuple[int, ...] = (6,) * 6
    """Attention layers of each group; every second one has its windows shifted."""
    heads: tuple[int, ...] = (6,) * 6
    """Attention heads in the layers of each group."""
    window: int = 8
    """Pixels a side."""
    expansion: int = 2
    """Channels within the perceptrons, relative to those outside."""
    drop_path: float = 0.1
    """Probability that training skips the last layer; from 0 at the first, linearly."""
    inputs: tuple[str, ...] = ("displacement",)
    """Input channels, as in `normalise.network_inputs`."""
    normalisation: str = "robust"
    """How a pair is scaled, as in `normalise.scaling`."""

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.heads):
            raise ValueError(
                f"depths={self.depths} and heads={self.heads} must have one number "
                "each for every group"
            )
        if any(self.channels % heads for heads in self.heads):
            raise ValueError(f"heads={self.heads} must divide channels={self.channels}")
        if self.window % 2:
            raise ValueError(
                f"window={self.window} must be even: half of it is shifted"
            )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path} must be in [0, 1)")


class SwinIR(nn.Module):
    """Estimate the noise of a normalised interferogram.

    The paper's estimate is input plus output; the noise is minus that output. With the
    default configuration 11.50 million parameters. Edges of convolutions are zero.
    """

    def __init__(self, config: SwinIRConfig | None = None) -> None:
        super().__init__()
        self.config = config or SwinIRConfig()
        c, depths = self.config.channels, self.config.depths
        layers = sum(depths)
        steps = (k / max(layers - 1, 1) for k in range(layers))
        drops = (self.config.drop_path * step for step in steps)
        self.conv_first = nn.Conv2d(len(self.config.inputs), c, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(c)})
        self.layers = nn.ModuleList(
            Group(self.config, heads, [next(drops) for _ in range(depth)])
            for depth, heads in zip(depths, self.config.heads, strict=True)
        )
        self.norm = nn.LayerNorm(c)
        self.conv_after_body = nn.Conv2d(c, c, 3, padding=1)
        self.conv_last = nn.Conv2d(c, 1, 3, padding=1)
        radius = receptive_radius(self.config)
        self.receptive_radius = radius if radius <= WIDE else None
        """Pixels beyond which the input does not change an output pixel, or None if
        more than `WIDE`; for maps whose first pixel is a multiple of the window."""
        self.smallest_side = self.config.window // 2 + 1
        """Pixels a side that a map must have at least, for edges to be reflected."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        # Start as the network that removes nothing.
        nn.init.zeros_(self.conv_last.weight)
        assert self.conv_last.bias is not None
        nn.init.zeros_(self.conv_last.bias)
        self.register_load_state_dict_pre_hook(_without_tables)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Noise, normalised, (batch, 1, y, x), of inputs (batch, channels, y, x)."""
        rows, columns = x.shape[-2:]
        window = self.config.window
        beyond = (0, -columns % window, 0, -rows % window)
        x = functional.pad(x, beyond, mode="reflect")
        x = self.conv_first(x.contiguous(memory_format=torch.channels_last))
        shallow = x
        x = self.patch_embed["norm"](x.permute(0, 2, 3, 1))
        for group in self.layers:
            x = group(x)
        x = self.conv_after_body(self.norm(x).permute(0, 3, 1, 2))
        return -self.conv_last(x + shallow)[..., :rows, :columns]

    def fused(self) -> "SwinIR":
        """Return an inference copy; there is nothing to fold."""
        return copy.deepcopy(self).eval()


class Group(nn.Module):
    """Residual Swin transformer block (RSTB): layers, a convolution, and past both."""

    def __init__(self, config: SwinIRConfig, heads: int, drops: list[float]) -> None:
        super().__init__()
        layers = [Layer(config, heads, k % 2 == 1, p) for k, p in enumerate(drops)]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(layers)})
        self.conv = nn.Conv2d(config.channels, config.channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (batch, y, x, channels) to tokens."""
        before = x
        for layer in self.residual_group["blocks"].children():
            x = layer(x)
        return before + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Layer(nn.Module):
    """Attention within windows, then a perceptron for each pixel, both residual."""

    def __init__(
        self, config: SwinIRConfig, heads: int, shifted: bool, drop: float
    ) -> None:
        super().__init__()
        c, hidden = config.channels, config.expansion * config.channels
        self.window = config.window
        self.shift = config.window // 2 if shifted else 0
        self.drop = drop
        self.norm1 = nn.LayerNorm(c)
        self.attn = WindowAttention(c, config.window, heads)
        self.norm2 = nn.LayerNorm(c)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(c, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, c)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (batch, y, x, channels) to tokens."""
        w, rows = self.window, x.shape[1]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        bias, kept = self.attn.bias(), (self._kept(x), self._kept(x))
        # A core takes one row of windows at a time, for they stay in its cache; a GPU
        # all at once. The last row of a shifted map has a bias of its own.
        *others, last = x.split(w if x.device.type == "cpu" else max(rows - w, w), 1)
        done = [self._rows(part, bias, *kept) for part in others]
        if self.shift:
            bias = bias + self.attn.across_y
        x = torch.cat([*done, self._rows(last, bias, *kept)], 1)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x

    def _rows(
        self,
        x: torch.Tensor,
        bias: torch.Tensor,
        attention: torch.Tensor | None,
        perceptron: torch.Tensor | None,
    ) -> torch.Tensor:
        """Whole rows of windows that share a bias; factors of both parts, by sample."""
        w = self.window
        grid = x.unflatten(2, (-1, w)).unflatten(1, (-1, w)).transpose(2, 3)
        x = grid.flatten(3, 4)  # (batch, window row, window column, pixel, channel)
        added = self.attn(self.norm1(x), bias, self.shift > 0)
        x = x + (added if attention is None else added * attention.to(added.dtype))
        added = self.mlp(self.norm2(x))
        x = x + (added if perceptron is None else added * perceptron.to(added.dtype))
        return x.unflatten(3, (w, w)).transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _kept(self, x: torch.Tensor) -> torch.Tensor | None:
        """Factors of stochastic depth, 0 or more than 1; None leaves all as it is."""
        if not self.training or self.drop == 0:
            return None
        kept = torch.rand((len(x), 1, 1, 1, 1), device=x.device) >= self.drop
        return kept / (1 - self.drop)


class WindowAttention(nn.Module):
    """Attention between the pixels of a window, with a bias by their offset."""

    index: torch.Tensor
    across_x: torch.Tensor
    across_y: torch.Tensor

    def __init__(self, channels: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        table = torch.empty((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(table, std=0.02)
        )
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        y, x = torch.arange(window**2) // window, torch.arange(window**2) % window
        offsets = [p[:, None] - p[None, :] + window - 1 for p in (y, x)]
        index = offsets[0] * (2 * window - 1) + offsets[1]
        self.register_buffer("index", index, persistent=False)
        # In the last window of a shifted map, one half comes from the other side.
        for name, position in (("across_y", y), ("across_x", x)):
            half = position < window // 2
            across = half[:, None] != half[None, :]
            mask = torch.zeros(across.shape).masked_fill(across, -torch.inf)
            self.register_buffer(name, mask, persistent=False)

    def bias(self) -> torch.Tensor:
        """Bias of each head between pixels: (head, pixel, pixel)."""
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)
        return bias.contiguous()

    def forward(
        self, x: torch.Tensor, bias: torch.Tensor, shifted: bool
    ) -> torch.Tensor:
        """Windows (batch, row, column, pixel, channel) to windows."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        if shifted:
            inner, last = qkv[:, :, :-1], qkv[:, :, -1:]
            parts = _attend(inner, bias), _attend(last, bias + self.across_x)
            attended = torch.cat(parts, 2)
        else:
            attended = _attend(qkv, bias)
        return self.proj(attended)


def _attend(qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Values weighted by attention, (batch, row, column, pixel, channel)."""
    batch = qkv.shape[:3]
    q, k, v = qkv.flatten(0, 2).permute(2, 0, 3, 1, 4)  # (window, head, pixel, ...)
    # Without its own axis for the windows, the quick kernel would not take the bias.
    bias = bias.to(q.dtype)[None]
    attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return attended.transpose(1, 2).flatten(2).unflatten(0, batch)


def receptive_radius(config: SwinIRConfig) -> int:
    """Pixels beyond which the input changes no output pixel.

    Exact, then rounded up to a multiple of the window: in a tile with a halo of that
    width, windows lie as they do in the whole map.
    """
    window, farthest = config.window, 0
    for pixel in range(window):
        first, last = pixel - 2, pixel + 2  # conv_last, conv_after_body
        for depth in reversed(config.depths):
            first, last = first - 1, last + 1
            for layer in reversed(range(depth)):
                start = window // 2 * (layer % 2)
                first = (first - start) // window * window + start
                last = (last - start) // window * window + start + window - 1
        farthest = max(farthest, pixel - first + 1, last + 1 - pixel)
    return -(-farthest // window) * window


def _without_tables(
    module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any
) -> None:
    """Drop the masks and indices of the authors' files: they follow from the size."""
    for key in list(state):
        if key.endswith((".attn_mask", ".attn.relative_position_index")):
            del state[key]
