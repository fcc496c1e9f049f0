"""Diffusion in steps: how noise comes in, and the ways back.

Formulas of Ho et al. (2020, DDPM) and Song et al. (2021, DDIM). They hold for noise of
any stationary spectrum with unit variance, if all of it is of that spectrum: what an
ancestral step adds as well as what it starts from (Voleti et al., 2022).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

Denoiser = Callable[[torch.Tensor, int], torch.Tensor]
"""``denoiser(x_t, step)``: the expected clean map."""
NoiseSource = Callable[[], torch.Tensor]
"""Draws unit noise of the shape of the maps."""


@dataclass(frozen=True)
class NoiseSchedule:
    r"""How much noise a map holds after each step.

    .. math:: x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon

    with :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)` and beta linear. Steps
    are counted from 0.

    Parameters
    ----------
    steps : int
        T.
    first, last : float
        beta of the first and the last step.

    Raises
    ------
    ValueError
        If there is no step, or the betas are not in (0, 1).
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        if not 0 < self.first <= self.last < 1:
            raise ValueError(
                f"first={self.first} and last={self.last} must rise within (0, 1)"
            )

    @cached_property
    def alpha_bar(self) -> torch.Tensor:
        """Share of a map's variance that is signal after each step, float64, (T,)."""
        beta = torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)
        return torch.cumprod(1 - beta, 0)

    @cached_property
    def levels(self) -> torch.Tensor:
        """Noise over signal after each step, sqrt((1 - ab) / ab), float64, (T,)."""
        return ((1 - self.alpha_bar) / self.alpha_bar).sqrt()

    def kept(self, step: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`alpha_bar` of every map of a batch `like` this, (batch, 1, 1, 1)."""
        return self.alpha_bar[step.cpu()].to(like)[:, None, None, None]

    def add_noise(
        self, clean: torch.Tensor, noise: torch.Tensor, step: torch.Tensor
    ) -> torch.Tensor:
        """x_t of every map of a batch, each at its own step, (batch,)."""
        kept = self.kept(step, clean)
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def matched_step(self, level: float) -> int:
        """Step whose ratio of noise to signal is nearest to `level`."""
        return int((self.levels - level).abs().argmin())

    def times(self, count: int, *, start: int | None = None) -> list[int]:
        """`count` steps from `start` (the last one when not given) down.

        They grow with the square of their number where there are few: detail is made
        in the last ones. As many as there are is all of them.

        Raises
        ------
        ValueError
            If there are not as many steps.
        """
        most = self.steps if start is None else start + 1
        if not 1 <= count <= most:
            raise ValueError(f"{count=} must be from 1 to {most}, the steps there are")
        square = most / count**2
        return [max(round(square * k**2), k) - 1 for k in range(count, 0, -1)]


def sample(
    denoiser: Denoiser,
    x: torch.Tensor,
    *,
    schedule: NoiseSchedule,
    times: Sequence[int],
    noise: NoiseSource | None = None,
) -> torch.Tensor:
    r"""Clean maps from noisy ones, in steps.

    .. math:: x_s = \sqrt{\bar\alpha_s}\, \hat x_0
              + \sqrt{1 - \bar\alpha_s - \sigma^2}\, \hat\epsilon + \sigma z,\quad
              \sigma^2 = \frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}
              \left(1 - \frac{\bar\alpha_t}{\bar\alpha_s}\right)

    with `noise` (ancestral: DDPM where all steps are taken), and sigma = 0 without
    (DDIM).

    Parameters
    ----------
    denoiser : callable
        See `Denoiser`.
    x : torch.Tensor, shape (batch, channels, y, x)
        Maps at ``times[0]``.
    schedule : NoiseSchedule
        Of the training.
    times : sequence of int
        Falling steps to take, as `NoiseSchedule.times` gives them. A single one is the
        one-step prediction.
    noise : callable, optional
        See `NoiseSource`; of the same spectrum as the noise in `x`.

    Returns
    -------
    torch.Tensor, shape of `x`
    """
    kept = [float(schedule.alpha_bar[t]) for t in times] + [1.0]
    for time, now, then in zip(times, kept, kept[1:], strict=False):
        clean = denoiser(x, time)
        added = (x - now**0.5 * clean) / (1 - now) ** 0.5
        spread = 0.0
        if noise is not None:
            spread = (1 - then) / (1 - now) * (1 - now / then)
        x = then**0.5 * clean + max(1 - then - spread, 0.0) ** 0.5 * added
        if noise is not None and spread > 0:
            x = x + spread**0.5 * noise()
    return x


def weighted_mean(
    state: torch.Tensor, kept: Any, noisy: torch.Tensor, level: float
) -> tuple[torch.Tensor, Any]:
    r"""Clean map by its two observations, each weighted by its accuracy.

    .. math:: b = k\, x_t / \sqrt{\bar\alpha_t} + (1 - k)\, y,\quad
              k = \frac{l^2}{l^2 + v_t},\quad
              v_t = \frac{1 - \bar\alpha_t}{\bar\alpha_t}

    A network has left to estimate ``(b - x_0) / sqrt(k v_t)``, which is of unit size
    at every step (preconditioning as of Karras et al., 2022, but with y). Without y,
    l infinite, that is the noise in x_t, as in DDPM.

    Parameters
    ----------
    state : torch.Tensor, shape (batch, channels, y, x)
        x_t.
    kept : float or torch.Tensor
        alpha bar at its step.
    noisy : torch.Tensor, shape of `state`
        y.
    level : float
        l, the standard deviation of the noise in y.

    Returns
    -------
    mean : torch.Tensor
        b.
    spread : as `kept`
        Its standard deviation, sqrt(k v_t).
    """
    variance = (1 - kept) / kept
    weight = 1 / (1 + variance / level**2)
    mean = weight * state / kept**0.5 + (1 - weight) * noisy
    return mean, (weight * variance) ** 0.5


def matched_start(
    noisy: torch.Tensor, level: float, schedule: NoiseSchedule
) -> tuple[torch.Tensor, int]:
    """Take the noise of a map for that of the diffusion.

    Parameters
    ----------
    noisy : torch.Tensor, shape (batch, 1, y, x)
        Signal and noise.
    level : float
        Standard deviation of the noise.
    schedule : NoiseSchedule
        Of the training.

    Returns
    -------
    start : torch.Tensor, shape of `noisy`
        The maps, scaled.
    step : int
        Whose noise is of that level.
    """
    step = schedule.matched_step(level)
    return float(schedule.alpha_bar[step]) ** 0.5 * noisy, step


def noised_start(
    noisy: torch.Tensor, strength: float, schedule: NoiseSchedule, noise: NoiseSource
) -> tuple[torch.Tensor, int]:
    """Add noise to a map that has its own already (SDEdit, Meng et al., 2022).

    The poster's way; it destroys information that `matched_start` keeps.

    Parameters
    ----------
    noisy : torch.Tensor, shape (batch, 1, y, x)
        Signal and noise, taken for a clean map.
    strength : float
        Share of the steps to add noise for, above 0, at most 1.
    schedule : NoiseSchedule
        Of the training.
    noise : callable
        See `NoiseSource`.

    Returns
    -------
    start : torch.Tensor, shape of `noisy`
    step : int
    """
    step = max(round(strength * schedule.steps), 1) - 1
    kept = float(schedule.alpha_bar[step])
    return kept**0.5 * noisy + (1 - kept) ** 0.5 * noise(), step
