"""Fit the separating autoencoder to one stack: the stack is all it ever sees."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cube_denoise.models.vae import Separator, SeparatorConfig, misfit

FIRST_RATE, LAST_RATE, RATE_FACTOR = 1e-3, 1e-5, 0.9998
"""Learning rate of Adam: first, least, and factor an epoch. Neri et al. begin with 2e-4
and have batches of 64: of the few maps of a stack that would be a step an epoch."""
SMALLEST_BATCH, LARGEST_BATCH, STEPS = 16, 64, 6
"""Maps of a step: as many as make so many steps an epoch, within these limits."""
HELD_OUT = 10
"""Every so-many-th pair is kept to tell when to stop."""

Progress = Callable[[int, float, float], None]
"""``progress(epoch, loss, held_out)``: nats a map."""


@dataclass(frozen=True)
class FitOptions:
    """How the network is fitted."""

    epochs: int = 300
    """At most; each sees every map once."""
    ramp: int = 50
    """Epochs over which the weight of the divergence rises from 0 to `beta`."""
    beta: float = 0.5
    """Last weight of the divergence."""
    patience: int = 60
    """Epochs after the ramp without a better loss on held-out pairs, then it ends."""
    seed: int = 0
    """Of weights, order, signs and noise."""
    rate: float = FIRST_RATE
    """First learning rate."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.ramp < 0 or self.patience < 1:
            raise ValueError(
                f"epochs={self.epochs} and patience={self.patience} must be 1 or more, "
                f"ramp={self.ramp} not negative"
            )
        if not self.beta >= 0:
            raise ValueError(f"beta={self.beta} must not be negative")


@dataclass(frozen=True)
class Fitted:
    """A network and how its fit went."""

    network: Separator
    """In eval mode, on the CPU."""
    epochs: int
    """How many it took."""
    best: int
    """The epoch whose weights it has, counted from 1."""
    losses: tuple[tuple[float, float], ...]
    """Loss of every epoch on the maps it was fitted to and on the others, nats a map;
    the weight of the divergence is `FitOptions.beta` in the latter from the first."""


def fit_separator(
    maps: Any,
    known: Any,
    groups: Any,
    config: SeparatorConfig,
    options: FitOptions | None = None,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Fit a network to the maps of a stack.

    Every map is shown with a sign drawn anew: which of two dates is subtracted from
    which is a convention.

    Parameters
    ----------
    maps : array_like, float32, shape (maps, y, x)
        Tiles of pairs, in units of the spread of the stack, 0 where not known.
    known : array_like of bool, shape (maps, y, x)
    groups : array_like of int, shape (maps,)
        The pair of each map; every `HELD_OUT`-th pair is held out.
    config : SeparatorConfig
    options : FitOptions, optional
    device : str, optional
        "cuda" where there is one, else "cpu".
    progress : callable, optional
        Called after every epoch.

    Returns
    -------
    Fitted
        The same for the same seed, device and number of threads.

    Raises
    ------
    ValueError
        If fewer than two maps are left to fit.
    """
    chosen = options or FitOptions()
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    phase = torch.as_tensor(maps, dtype=torch.float32, device=place)
    there = torch.as_tensor(known, dtype=torch.bool, device=place)
    pairs = torch.as_tensor(groups)
    kept = (pairs % HELD_OUT != HELD_OUT - 1).nonzero()[:, 0]
    held = (pairs % HELD_OUT == HELD_OUT - 1).nonzero()[:, 0]
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} maps: a network is fitted to two or more")
    held = held if len(held) else kept
    batch_size = min(LARGEST_BATCH, max(SMALLEST_BATCH, len(kept) // STEPS))
    draw = torch.Generator().manual_seed(chosen.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.seed)
        network = Separator(config).to(place)
    optimiser = torch.optim.Adam(network.parameters(), lr=chosen.rate)
    losses: list[tuple[float, float]] = []
    best, best_epoch, weights = float("inf"), 0, copy.deepcopy(network.state_dict())
    for epoch in range(chosen.epochs):
        ramp = min(1.0, epoch / chosen.ramp) if chosen.ramp else 1.0
        for group in optimiser.param_groups:
            group["lr"] = max(LAST_RATE, chosen.rate * RATE_FACTOR**epoch)
        network.train()
        total = 0.0
        order = kept[torch.randperm(len(kept), generator=draw)]
        batches = order.split(batch_size)
        if len(batches) > 1 and len(batches[-1]) < 2:  # batch norm needs two
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        for batch in batches:
            sign = torch.randint(0, 2, (len(batch), 1, 1), generator=draw) * 2.0 - 1
            shape = (len(batch), config.sources, config.latent)
            noise = torch.randn(shape, generator=draw).to(place)
            shown, mask = phase[batch] * sign.to(place), there[batch]
            sources, mean, log_variance = network(shown, noise)
            divergence = network.divergence(mean, log_variance)
            loss = misfit(shown, sources, mask) + chosen.beta * ramp * divergence
            optimiser.zero_grad(set_to_none=True)
            loss.mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1e3)
            optimiser.step()
            total += float(loss.detach().sum())
        network.eval()
        with torch.no_grad():
            # Both signs: neither is the right one.
            both = torch.cat([phase[held], -phase[held]])
            mask = there[held].repeat(2, 1, 1)
            judged = [
                misfit(one, sources, sees) + chosen.beta * network.divergence(m, v)
                for one, sees in zip(both.split(256), mask.split(256), strict=True)
                for sources, m, v in [network(one)]
            ]
            outside = float(torch.cat(judged).mean())
        losses.append((total / len(kept), outside))
        if progress is not None:
            progress(epoch + 1, *losses[-1])
        if epoch >= chosen.ramp or epoch == chosen.epochs - 1:
            if outside < best:
                best, best_epoch = outside, epoch + 1
                weights = copy.deepcopy(network.state_dict())
            elif epoch + 1 - best_epoch >= chosen.patience:
                break
    network.load_state_dict(weights)
    return Fitted(network.cpu().eval(), len(losses), best_epoch, tuple(losses))


@torch.no_grad()
def sources_of(network: Separator, maps: Any) -> Any:
    """Sources of maps, from the means of what describes them.

    Parameters
    ----------
    network : Separator
        In eval mode.
    maps : array_like, float32, shape (maps, y, x)

    Returns
    -------
    numpy.ndarray, float32, shape (maps, sources, y, x)
    """
    return network(torch.as_tensor(maps, dtype=torch.float32))[0].numpy()
