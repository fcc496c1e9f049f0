"""The arithmetic of `kernel`, `gaps` and `robust` on tensors, for GPUs.

A row of the state is a float64 tensor over all pixels at once. Rows that the
elimination of one date touches are taken together, and written in place: a GPU waits
for launches, not for numbers. No two products that are added in one call go to the same
row, so sums have one order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cube_denoise.inversion.kernel import GIVEN, HIGHEST, LARGEST, LOWEST
from cube_denoise.inversion.robust import ITERATIONS, SETTLED, SMALLEST, TUNING

LEAST_SHARE = 1e-6
"""Of its weight that a pair keeps however large its residual, so that it stays."""

Rounds = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Step:
    """One position of an elimination: rows of the state.

    Eliminating it adds the products of rows `left`, as ratios, and of rows `right`, as
    they were, to rows `into`: first the conductances that join its neighbours and those
    of these to ground, `slopes` of them, then their currents.
    """

    position: int
    own: slice
    """Its entries."""
    others: torch.Tensor
    """The positions at their ends."""
    left: torch.Tensor
    right: torch.Tensor
    into: torch.Tensor
    slopes: int

    @property
    def alone(self) -> bool:
        """Whether it has no entries."""
        return self.own.stop == self.own.start


class Steps:
    """A plan of elimination as index tensors on a device.

    Parameters
    ----------
    plan : tuple of numpy.ndarray
        From `kernel.arrays`.
    device : torch.device
    """

    def __init__(self, plan: tuple[np.ndarray, ...], device: torch.device) -> None:
        start, others, before, mesh, _, pair, early, late, into = plan
        self.device = device
        self.entries, self.count = int(others.size), int(start.size) - 1
        self.widest = int(np.diff(start).max(initial=0))
        self._plan = start, others, before, mesh
        self.all = self._steps()
        potentials = self.entries + self.count
        # By the number of the pair, not by the order in which pairs are taken up.
        back = np.argsort(pair)
        self.early = self._on(early[back] - potentials)
        self.late = self._on(late[back] - potentials)
        self.joined = self.rounds(into[back])
        self.arriving, self.leaving = self.rounds(late[back]), self.rounds(early[back])

    def _on(self, numbers: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(numbers, "int64")).to(self.device)

    def _steps(self) -> list[Step]:
        entries, count = self.entries, self.count
        start, others, before, mesh = self._plan
        found, parts = [], []
        for k in range(count):
            own = np.arange(start[k], start[k + 1])
            near = others[own]
            one, other = np.triu_indices(own.size, 1)
            ground = np.full(own.size, entries + k)
            found.append((k, slice(int(start[k]), int(start[k + 1]))))
            parts += [
                near,
                np.concatenate([own[one], own, own]),
                np.concatenate([own[other], ground, ground + count]),
                np.concatenate(
                    [
                        mesh[before[k] : before[k + 1]],
                        entries + near,
                        entries + count + near,
                    ]
                ),
            ]
        whole = self._on(np.concatenate([[], *parts])).split([p.size for p in parts])
        return [
            Step(k, own, near, left, right, into, left.numel() - near.numel())
            for (k, own), near, left, right, into in zip(
                found, *(whole[n::4] for n in range(4)), strict=True
            )
        ]

    def rounds(self, rows: np.ndarray) -> Rounds:
        """Rows to add to, and numbers of what is added, no row twice in one round."""
        order = np.argsort(rows, kind="stable")
        found, first = np.unique(rows[order], return_index=True)
        rank = np.arange(rows.size) - first[np.searchsorted(found, rows[order])]
        return [
            (self._on(rows[order][rank == r]), self._on(order[rank == r]))
            for r in range(int(rank.max(initial=-1)) + 1)
        ]

    def tables(self) -> list[torch.Tensor]:
        """Of each position, (width, width): rows that join its neighbours.

        Off the diagonal entries, on it positions, counted after the entries.
        """
        start, others, before, mesh = self._plan
        given = []
        for k in range(self.count):
            near = others[start[k] : start[k + 1]]
            table = np.diag(self.entries + near)
            upper = np.triu_indices(near.size, 1)
            table[upper] = mesh[before[k] : before[k + 1]]
            table.T[upper] = table[upper]
            given.append(table)
        whole = self._on(np.concatenate([[], *(t.ravel() for t in given)]))
        return [
            part.view(table.shape)
            for part, table in zip(
                whole.split([t.size for t in given]), given, strict=True
            )
        ]

    def linked(self) -> Iterator[Step]:
        """Yield the positions that have entries, the last first."""
        return (step for step in reversed(self.all) if not step.alone)

    def potentials(self, state: torch.Tensor) -> torch.Tensor:
        """Rows of the positions' potentials, and at the end of the origin's."""
        first = self.entries + self.count
        return state[first : first + self.count + 1]


def stage(
    phase: torch.Tensor, worth: torch.Tensor, constants: torch.Tensor, way: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Phase less constants, and weight, 0 and 0 where missing; see `kernel.stage`."""
    known = ~constants.isnan()[:, None]
    there = known & ~phase.isnan()
    wrong = 0
    if way == GIVEN:
        bad = known & ~((worth >= 0) & (worth <= float(LARGEST)))
        wrong = int(bad.sum())
        there &= worth > 0
        w = torch.where(there, worth, 0.0)
    elif way:
        g = clipped(worth)
        if way == 2:
            g = g * g
            g = g / (1 - g)
        w = g * there
    else:
        w = there.float()
    shifted = (phase.double() - constants[:, None]).float()
    return torch.where(there, shifted, 0.0), w, wrong


def clipped(coherence: torch.Tensor) -> torch.Tensor:
    """Coherence in the range that makes weights; NaN counts as the lowest."""
    low, high = float(LOWEST), float(HIGHEST)
    return coherence.nan_to_num(nan=low).clamp(low, high)


def add_rounds(
    into: torch.Tensor, rounds: Rounds, values: torch.Tensor, sign: float = 1.0
) -> None:
    """Add rows of `values` to rows of `into`."""
    for rows, numbers in rounds:
        into.index_add_(0, rows, values[numbers], alpha=sign)


def forward(steps: Steps, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Eliminate all positions: the state as `kernel.forward` leaves it."""
    entries, count = steps.entries, steps.count
    state = torch.zeros(
        (entries + 3 * count + 1, y.shape[1]), dtype=torch.float64, device=y.device
    )
    weight = w.double()
    add_rounds(state, steps.joined, weight)
    current = weight.mul_(y)
    add_rounds(state, steps.arriving, current)
    add_rounds(state, steps.leaving, current, -1.0)
    for step in steps.all:
        k, own = step.position, state[step.own]
        inverse = state[entries + 2 * count + 1 + k]
        torch.sum(own, 0, out=inverse)
        # Sums are positive or zero, and the inverse of zero is to be zero.
        inverse.add_(state[entries + k]).reciprocal_().nan_to_num_(posinf=0.0)
        if not step.alone:
            before = state[step.right]
            own.mul_(inverse)
            state.index_add_(0, step.into, before.mul_(state[step.left]))
        state[entries + count + k].mul_(inverse)
    return state


def backward(steps: Steps, state: torch.Tensor) -> None:
    """Potentials in place of the currents; see `kernel.backward`."""
    x = steps.potentials(state)
    x[steps.count] = 0.0
    for step in steps.linked():
        x[step.position].add_(x[step.others].mul_(state[step.own]).sum(0))


def subsets(steps: Steps, state: torch.Tensor) -> torch.Tensor:
    """Label positions, and at the end the origin, by the subsets of every pixel.

    The label is the last position of the subset: what conductances link at all is
    linked, after the elimination, through positions that come later.
    """
    count = steps.count
    own = torch.arange(count + 1, device=state.device)[:, None]
    # One row more than there are positions: the origin has its number either way.
    ground = state[steps.entries : steps.entries + count + 1] > 0
    label = torch.where(ground, count, own)
    for step in steps.linked():
        there = torch.where(state[step.own] > 0, label[step.others], -1)
        here = label[step.position]
        torch.maximum(here, there.amax(0), out=here)
    return label


def bridge(label: torch.Tensor, years: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Phases of the positions and the origin, with subsets put on one line.

    See `gaps.bridge`; `x` is float64, with the origin as its last row; so is `years`,
    shape (positions + 1, 1).
    """

    def mean(values: torch.Tensor) -> torch.Tensor:
        """Of the subset of every position, back at every position."""
        total = torch.zeros_like(x).scatter_add_(0, label, values.expand_as(x))
        return (total / size).gather(0, label)

    ones = torch.ones_like(x)
    size = torch.zeros_like(x).scatter_add_(0, label, ones).clamp_(min=1)
    mean_t, mean_x = mean(years), mean(x)
    apart = years - mean_t
    spread, product = (apart * apart).sum(0), (apart * (x - mean_x)).sum(0)
    rate = torch.where(spread > 0, product / spread, torch.nan)
    level = mean_x[-1] + rate * (mean_t - mean_t[-1])
    return torch.where(label == label[-1], x, x - mean_x + level)


def residuals(steps: Steps, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of all pairs, float32."""
    modelled = x[steps.late].sub_(x[steps.early])
    return modelled.neg_().add_(y).float()


def corner(residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Huber's corner of every pixel, rad; see `robust.corner`."""
    used = weight > 0
    sizes = torch.where(used, residual.abs(), torch.inf).sort(0).values
    number = used.sum(0)
    ends = torch.stack([number - 1, number]).div(2, rounding_mode="floor")
    middle = sizes.gather(0, ends.clamp_(min=0)).mean(0)
    middle = torch.where(number > 0, middle, 1.0)
    scale = float(np.float32(TUNING * 1.4826))
    return (middle * scale).clamp(min=float(SMALLEST))


def reweigh(
    steps: Steps, y: torch.Tensor, given: torch.Tensor, x: torch.Tensor, huber: bool
) -> torch.Tensor:
    """Weights of the robust solution; see `robust.reweigh`.

    `x` are the least-squares potentials. Pixels that are settled are left out of the
    rounds that follow.
    """
    weight, here = given, None
    limit = torch.full_like(y[0], float(SMALLEST))
    for turn in range(ITERATIONS):
        residual = residuals(steps, x, y)
        if huber and turn == 0:
            limit = corner(residual, given)
        size = torch.maximum(residual.abs_(), limit)
        fresh = (limit / size).clamp_(min=LEAST_SHARE).mul_(given)
        if here is None:
            weight = fresh
        else:
            weight[:, here] = fresh
        state = forward(steps, y, fresh)
        backward(steps, state)
        after = steps.potentials(state)
        moving = ((after - x).abs().amax(0) > SETTLED).nonzero()[:, 0]
        if not moving.numel():
            break
        here = moving if here is None else here[moving]
        x, y, given = after[:, moving], y[:, moving], given[:, moving]
        limit = limit[moving]
    return weight
