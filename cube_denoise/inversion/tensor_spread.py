"""Standard deviations as in `spread`, on tensors over all pixels at once."""

import torch

from cube_denoise.inversion.kernel import GIVEN
from cube_denoise.inversion.tensors import Steps, add_rounds, clipped


def pair_variance(
    worth: torch.Tensor | None, way: int, w: torch.Tensor
) -> torch.Tensor:
    """Phase variance of the pairs, float32, up to a factor; see `spread`."""
    if way == GIVEN:
        return torch.where(w > 0, w.reciprocal(), 1.0)
    if worth is None:
        return torch.ones_like(w)
    squared = clipped(worth) ** 2
    return (1 - squared) / squared


def slopes(
    steps: Steps, slope: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives of the ratios and of the inverse sums; see `spread.slopes`.

    `slope` holds those of the entries and of the conductances to ground before the
    elimination, and is overwritten.
    """
    entries, count = steps.entries, steps.count
    ratios, inverses = state[:entries], state[entries + 2 * count + 1 :]
    totals = inverses.reciprocal().nan_to_num_(posinf=0.0)
    # Conductances as they were, to ground as well: ratio x sum.
    given = state[: entries + count].clone()
    for step in steps.linked():
        given[step.own].mul_(totals[step.position])
    del totals
    turned = torch.zeros_like(slope)
    of_ratio, of_inverse = turned[:entries], turned[entries:]
    for step in steps.all:
        k, own, inverse = step.position, step.own, inverses[step.position]
        shift = slope[own].sum(0).add_(slope[entries + k]).mul_(inverse)
        torch.mul(inverse, shift, out=of_inverse[k])
        if step.alone:
            continue
        torch.mul(slope[own], inverse, out=of_ratio[own])
        of_ratio[own].addcmul_(ratios[own], shift, value=-1.0)
        left, right = step.left[: step.slopes], step.right[: step.slopes]
        made = of_ratio[left].mul_(given[right])
        made.addcmul_(ratios[left], slope[right])
        slope.index_add_(0, step.into[: step.slopes], made)
    return of_ratio, of_inverse.neg_()


def variances(
    steps: Steps, state: torch.Tensor, of_ratio: torch.Tensor, of_inverse: torch.Tensor
) -> torch.Tensor:
    """Variance of every position up to the factor; see `spread.variances`."""
    entries, count = steps.entries, steps.count
    # Elements of an inverse matrix, entries first, then the diagonal.
    value, slope = (torch.zeros_like(state[: entries + count]) for _ in range(2))
    value[entries:] = state[entries + 2 * count + 1 :]
    slope[entries:] = of_inverse
    tables = steps.tables()
    for step in steps.linked():
        k, own = step.position, step.own
        ratio, change = state[own], of_ratio[own]
        near, near_slope = value[own], slope[own]
        among, among_slope = value[tables[k]], slope[tables[k]]
        torch.sum(among_slope.mul_(ratio).addcmul_(among, change), 1, out=near_slope)
        torch.sum(among.mul_(ratio), 1, out=near)
        value[entries + k].add_((ratio * near).sum(0))
        made = (change * near).addcmul_(ratio, near_slope)
        slope[entries + k].add_(made.sum(0))
    return slope[entries:]


def respond(steps: Steps, state: torch.Tensor, x: torch.Tensor) -> None:
    """Solve for what currents in `x`, (positions + 1, columns, pixels), make of it."""
    entries, count = steps.entries, steps.count
    for step in steps.all:
        here = x[step.position]
        if not step.alone:
            x.index_add_(0, step.others, state[step.own][:, None] * here)
        here.mul_(state[entries + 2 * count + 1 + step.position])
    x[count] = 0.0
    for step in steps.linked():
        there = x[step.others].mul_(state[step.own][:, None])
        x[step.position].add_(there.sum(0))


def propagate(
    steps: Steps,
    w: torch.Tensor,
    variance: torch.Tensor,
    state: torch.Tensor,
    linked: torch.Tensor,
    basis: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Variances of the positions, and products, up to the factor of `variance`.

    Parameters
    ----------
    w, variance : torch.Tensor, float32, shape (pairs, pixels)
    state : torch.Tensor
        As `tensors.forward` left it with these weights.
    linked : torch.Tensor of bool, shape (positions, pixels)
    basis : torch.Tensor, float64, shape (positions, columns)
        Q of the design, in the order of the positions.

    Returns
    -------
    found : torch.Tensor, shape (positions, pixels)
        Without meaning where not linked.
    products : torch.Tensor, shape (1 + columns (columns + 1) / 2, pixels)
        As `solver.rate_errors` takes them: the trace, then the products of the dates'
        covariance with columns a <= b.
    """
    weight = w.double()
    spread = weight.mul_(weight).mul_(variance)
    slope = torch.zeros_like(state[: steps.entries + steps.count])
    add_rounds(slope, steps.joined, spread, -1.0)
    found = variances(steps, state, *slopes(steps, slope, state))
    del slope
    x = state.new_zeros((steps.count + 1, basis.shape[1], state.shape[1]))
    x[:-1] = torch.where(linked[:, None], basis[:, :, None], 0.0)
    respond(steps, state, x)
    products = [torch.where(linked, found, 0.0).sum(0)]
    across = [x[steps.late, c] - x[steps.early, c] for c in range(basis.shape[1])]
    for a, one in enumerate(across):
        scaled = spread * one
        products += [(scaled * other).sum(0) for other in across[a:]]
    return found, torch.stack(products)
