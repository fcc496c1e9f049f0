"""What the stack network is trained to make small."""

import torch

from cube_denoise.models.stack_features import centred

REST = 0.15
"""Error, in units of the noise, below which less is hardly better: with a smaller one
the network removes weak motion for the sake of stacks at rest."""
SHARE = 0.683
"""Part of the errors that the standard deviation must hold."""
SPREAD_WEIGHT = 0.3
SLOPE_WEIGHT = 2.0


def stack_loss(
    displacement: torch.Tensor,
    std: torch.Tensor,
    truth: torch.Tensor,
    series: torch.Tensor,
    visible: torch.Tensor,
) -> torch.Tensor:
    r"""Logarithm of the rms error, and how amplitude and `std` are met.

    .. math:: \left\langle \log \sqrt{r^2 + r_0^2} \right\rangle
              + v \left\langle q\,(b - 1)^2 \right\rangle
              + w \left\langle \rho_p(\log |e| - \log s) \right\rangle

    with the rms error r of all dates, hidden ones included, in units of the rms noise
    of what is visible; the logarithm makes a stack of little noise count as much as one
    of much. b is the slope of the regression of the estimate on the truth, which the
    error alone would leave below one; q, the part that the truth has in the sum of its
    power and that of the error, is near one where motion is found. :math:`\rho_p` is
    the quantile loss (Koenker and Bassett, 1978), smallest where s holds a share p of
    the errors. q, and the errors in the last term, are constants in the gradient.

    Parameters
    ----------
    displacement, std : torch.Tensor, shape (batch, time, y, x)
        What the network gives, m.
    truth : torch.Tensor, shape (batch, time, y, x)
        m, whatever its reference.
    series, visible : torch.Tensor, shape (batch, time, y, x)
        What the network was given.

    Returns
    -------
    torch.Tensor
        A scalar.
    """
    dates = visible.any(3).any(2)
    truth = centred(truth, dates)
    mask = visible.to(truth.dtype)
    noise = (centred(series, dates) - truth) * mask
    level = ((noise**2).sum((1, 2, 3)) / mask.sum((1, 2, 3))).sqrt().clamp_min(1e-5)
    level = level[:, None, None, None]
    error = (displacement - truth) / level
    square = (error**2).mean((1, 2, 3))
    accuracy = (square + REST**2).log().mean() / 2
    excess = torch.log(error.detach().abs() + 1e-3) - torch.log(std / level + 1e-3)
    bound = torch.maximum(SHARE * excess, (SHARE - 1) * excess).mean()
    power = (truth**2).sum((1, 2, 3))
    found = power / (power + ((displacement - truth) ** 2).sum((1, 2, 3)) + 1e-12)
    slope = (displacement * truth).sum((1, 2, 3)) / power.clamp_min(1e-12)
    amplitude = (found.detach() * (slope - 1) ** 2).mean()
    return accuracy + SLOPE_WEIGHT * amplitude + SPREAD_WEIGHT * bound
