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
    of_ratio = torch.zeros_like(slope[:entries])
    of_inverse = torch.zeros_like(slope[entries:])
    for k, own, joins in steps.each():
        inverse = state[entries + 2 * count + 1 + k]
        shift = slope[own].sum(0).add_(slope[entries + k]).mul_(inverse)
        of_inverse[k] = -inverse * shift
        if own.stop == own.start:
            continue
        ratio, before = state[own], slope[own]
        change = before * inverse - ratio * shift
        if joins.stop > joins.start:
            one, other = steps.one[joins], steps.other[joins]
            total = torch.where(inverse > 0, inverse.reciprocal(), 0.0)
            made = (change * total)[one] * ratio[other] + ratio[one] * before[other]
            slope.index_add_(0, steps.mesh[joins], made)
        handed = change * state[entries + k] + ratio * slope[entries + k]
        slope.index_add_(0, entries + steps.others[own], handed)
        of_ratio[own] = change
    return of_ratio, of_inverse


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
    for k, own in steps.backward():
        if own.stop == own.start:
            continue
        ratio, change = state[own], of_ratio[own]
        among, among_slope = value[tables[k]], slope[tables[k]]
        near = (among * ratio).sum(1)
        near_slope = (among * change).add_(among_slope.mul_(ratio)).sum(1)
        value[own], slope[own] = near, near_slope
        value[entries + k] += (ratio * near).sum(0)
        slope[entries + k] += (change * near + ratio * near_slope).sum(0)
    return slope[entries:]


def respond(steps: Steps, state: torch.Tensor, x: torch.Tensor) -> None:
    """Solve for what currents in `x`, (positions + 1, columns, pixels), make of it."""
    entries, count = steps.entries, steps.count
    for k, own, _ in steps.each():
        if own.stop > own.start:
            x.index_add_(0, steps.others[own], state[own][:, None] * x[k])
        x[k] *= state[entries + 2 * count + 1 + k]
    x[count] = 0.0
    for k, own in steps.backward():
        x[k] += (state[own][:, None] * x[steps.others[own]]).sum(0)


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
