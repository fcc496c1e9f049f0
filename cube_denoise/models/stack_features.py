"""What the stack network is given: series smoothed alike at all pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

FLOOR = 1e-5
"""Smallest noise level, m."""
FILL_WIDTH = 2.5
"""Width of the lines that fill gaps and tell what is rough in time, mean intervals."""
SIDE_WIDTH = 3.0
"""Width of the lines that see the past, or the future, alone."""
PRIOR = 0.1
"""Added to the variance of a date, of that of the stack: no date weighs everything."""


TRENDS = 5
"""Candidates, the last, that are parts of the displacement: the trend in position and
elevation of what is rough in time, of the line and of the second local line; then the
trend in elevation alone of these two."""


def candidate_count(widths: int) -> int:
    """Line, local lines, the series, past, future, 3 of components, and the trends."""
    return widths + 7 + TRENDS


@dataclass(frozen=True)
class Features:
    """Candidates for the displacement, in units of the noise level."""

    candidates: torch.Tensor
    """(batch, time, candidates, y, x), padded."""
    gain: torch.Tensor
    """Standard deviation of the noise in them, (batch, time, candidates, 1, 1)."""
    misfit_gain: torch.Tensor
    """That of the series less the whole estimates, (batch, time, wholes, 1, 1)."""
    scale: torch.Tensor
    """Noise level, m, (batch, 1, 1, 1)."""
    spread: torch.Tensor
    """Noise of every date over that level, (batch, time)."""
    seen: torch.Tensor
    """Visible part of every date, (batch, time)."""
    years: torch.Tensor
    """(batch, time)"""
    position: torch.Tensor
    """Time over the length of the visible series, 0 its middle, (batch, time)."""
    apart: torch.Tensor
    """Functions of the time between dates, (batch, time, time, functions)."""
    by_height: torch.Tensor
    """How much elevation explains of the line, of the second local line on the date and
    of what is rough in time, (batch, time, 3)."""
    stack_wide: torch.Tensor
    """Logarithms of dates, length, noise level and relief, (batch, 4)."""
    maps: torch.Tensor
    """Elevation and coherence at half the resolution, (batch, 2, y/2, x/2)."""
    mask: torch.Tensor
    """Visible part at half the resolution, (batch, time, y/2, x/2)."""
    itself: int
    """Which candidate is the series as it is."""

    @property
    def seen_dates(self) -> torch.Tensor:
        """Dates visible anywhere, (batch, time)."""
        return self.seen > 0

    def centred(self, series: torch.Tensor) -> torch.Tensor:
        """Less the mean of every date over the map and of every pixel over dates."""
        return centred(series, self.seen_dates)

    def evidence(self, band: torch.Tensor) -> torch.Tensor:
        """Logarithms of what is in a band over the noise that must be in it.

        The spectrum of the noise is that of what is rough in time. Of the line, the
        second local line and the series around each pixel; of the second local line on
        the date; of the line in the stack; then of the differences from the series, of
        every whole estimate, around each pixel and on the date: over 0 where it misses
        motion. Shape (batch * time, 5 + 2 * wholes, y, x).
        """
        seen = self.seen_dates[:, :, None, None, None]
        wholes = self.misfit_gain.shape[2]
        series = band[:, :, self.itself : self.itself + 1]
        misfit = ((band[:, :, :wholes] - series) / self.misfit_gain) ** 2
        noise = misfit[:, :, 2:3].mean((3, 4), keepdim=True)
        # Not the mean: sudden motion is rough on a few dates.
        noise = torch.where(seen, noise, torch.nan).nanmedian(1, keepdim=True).values
        noise = noise + 1e-6
        some = [0, 2, self.itself]
        power = (band[:, :, some] / self.gain[:, :, some]) ** 2 / noise
        misfit = misfit / noise
        local, around = (
            functional.avg_pool2d(
                a.flatten(0, 1), 5, stride=1, padding=2, count_include_pad=False
            )
            for a in (power, misfit)
        )
        dates, missed = (
            a.mean((3, 4), keepdim=True).expand_as(a).flatten(0, 1)
            for a in (power[:, :, 1:2], misfit)
        )
        stack = power[:, :, :1].mean((3, 4), keepdim=True)
        stack = (stack * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)
        stack = stack.expand_as(power[:, :, :1]).flatten(0, 1)
        return torch.log(torch.cat([local, dates, stack, around, missed], 1) + 0.05) / 2

    def inputs(self, half: torch.Tensor) -> torch.Tensor:
        """Channels of the network, (batch * time, channels, y/2, x/2)."""
        shape = (*half.shape[:2], -1, *half.shape[3:])
        some = [0, self.itself]
        fine = (self.candidates[:, :, some] - _grown(half[:, :, some])).abs()
        fine = functional.avg_pool2d(fine.flatten(0, 1), 2).unflatten(0, half.shape[:2])
        evidence = torch.asinh(half / self.gain)
        detail = torch.asinh(fine / self.gain[:, :, some])
        main = [0, 2, self.itself, self.itself + 3, self.itself + 5]
        size = evidence[:, :, main].abs()
        level = torch.log(size[:, :, :4].mean((3, 4)) + 0.1)
        by_date = torch.stack(
            [torch.log(self.spread), self.seen_dates.float(), self.position], 2
        )
        numbers = torch.cat(
            [
                by_date,
                level,
                self.by_height,
                self.stack_wide[:, None].expand(-1, half.shape[1], -1),
            ],
            2,
        )
        channels = [
            evidence,
            size,
            detail,
            numbers[..., None, None].expand(shape),
            self.maps[:, None].expand(shape),
            self.mask[:, :, None],
        ]
        channels.append(torch.log1p(self.gain[:, :, [1]]).expand(shape))
        return torch.cat(channels, 2).flatten(0, 1)


def centred(series: torch.Tensor, dates: torch.Tensor) -> torch.Tensor:
    """Series less its means over the map and, at every pixel, over the given dates."""
    weight = dates.to(series.dtype)[:, :, None, None]
    series = series - series.mean((2, 3), keepdim=True)
    return series - (series * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)


@torch.no_grad()
def features(
    series: torch.Tensor,
    visible: torch.Tensor,
    years: torch.Tensor,
    elevation: torch.Tensor,
    coherence: torch.Tensor,
    *,
    widths: Sequence[float],
    multiple: int,
) -> Features:
    """Make the candidates; see `StackNetwork.forward` for the parameters."""
    there = visible.bool()
    mask = there.to(series.dtype)
    seen = mask.mean((2, 3))
    used = (seen > 0).to(series.dtype)
    number = used.sum(1)
    if (number < 3).any():
        raise ValueError(f"{int(number.min())} visible dates: must be 3 or more")
    x = _balanced(torch.where(there, series, 0.0), mask)

    first = torch.where(used > 0, years, torch.inf).amin(1)
    last = torch.where(used > 0, years, -torch.inf).amax(1)
    length = last - first
    interval = length / (number - 1)
    position = (years - (first + last)[:, None] / 2) / length[:, None]
    # Row: the date estimated; column: the dates it is estimated from.
    lag = (years[:, None, :] - years[:, :, None]) / interval[:, None, None]

    x = torch.where(there, x, _filled(x, mask, lag / FILL_WIDTH))
    smooth = local_lines(lag / FILL_WIDTH, seen, ridge=1e-3)
    rough = x - _mixed(smooth, x)
    basis = _trends(elevation)
    trend = _projected(basis, rough)
    rough = (rough - trend) * mask
    x = x - trend
    diagonal = smooth.diagonal(dim1=1, dim2=2)
    left = (1 - 2 * diagonal + (smooth**2).sum(2)).clamp_min(0.05)
    variance = (rough**2).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1) / left
    spread = variance.sqrt()
    scale = torch.where(used > 0, spread, torch.nan).nanmedian(1).values
    scale = scale.clamp_min(FLOOR)
    spread = spread / scale[:, None]
    x, trend, rough = (a / scale[:, None, None, None] for a in (x, trend, rough))
    # A hidden date is as good as any.
    spread = torch.where(used > 0, spread, 1.0).clamp_min(0.05)

    weight = seen / (spread**2 + PRIOR)
    matrices = [local_lines(lag / number[:, None, None], weight, ridge=1e-6, flat=True)]
    matrices += [local_lines(lag / w, weight, ridge=1e-3) for w in widths]
    matrices.append(torch.diag_embed(used) + (1 - used)[:, :, None] * smooth)
    for side in (lag <= 0, lag >= 0):
        hidden = local_lines(lag / SIDE_WIDTH, weight, ridge=0.1, only=side)
        alone = (weight[:, None, :] * side).sum(2) <= 0
        matrices.append(torch.where(alone[:, :, None], smooth, hidden))
    matrices += _components(x, spread, used, smooth)
    every = torch.stack(matrices, 2)
    candidates = torch.einsum("btjs,bsyx->btjyx", every, x)
    gain = torch.sqrt((every**2 * spread[:, None, None, :] ** 2).sum(3) + 1e-4)
    itself = 1 + len(widths)
    trends = [trend]
    trends += [
        _projected(part, candidates[:, :, k])
        for part in (basis, basis[:, 3:])
        for k in (0, 2)
    ]
    rough = trend + rough
    parts = (
        (trends[3], candidates[:, :, 0], True),
        (trends[4], candidates[:, :, 2], False),
        (_projected(basis[:, 3:], rough), rough, True),
    )
    by_height = torch.stack([_share(*part, used) for part in parts], 2)
    candidates = torch.cat([candidates, torch.stack(trends, 2)], 2)
    misfit = every - every[:, :, itself : itself + 1]
    misfit_gain = torch.sqrt((misfit**2 * spread[:, None, None, :] ** 2).sum(3) + 1e-4)
    gain = torch.cat([gain, gain[:, :, [itself, 0, 2, 0, 2]]], 2)

    centre = elevation.mean((1, 2), keepdim=True)
    relief = (elevation - centre).std((1, 2)).clamp_min(1.0)
    height = (elevation - centre) / relief[:, None, None]
    maps = torch.stack([height, 2 * coherence - 1], 1)
    candidates, maps, mask = (_padded(a, multiple) for a in (candidates, maps, mask))
    return Features(
        candidates=candidates,
        gain=gain[..., None, None],
        misfit_gain=misfit_gain[..., None, None],
        scale=scale[:, None, None, None],
        spread=spread,
        seen=seen,
        years=years,
        position=position,
        apart=torch.stack(
            [
                torch.asinh(lag),
                torch.asinh(lag.abs()),
                torch.exp(-lag.abs() / 3),
                torch.exp(-lag.abs()),
            ],
            3,
        ),
        by_height=by_height,
        stack_wide=torch.stack(
            [
                torch.log(number / 20),
                torch.log(length),
                torch.log(scale / 0.01),
                torch.log(relief / 100),
            ],
            1,
        ),
        maps=functional.avg_pool2d(maps, 2),
        mask=functional.avg_pool2d(mask, 2),
        itself=itself,
    )


def local_lines(
    lag: torch.Tensor,
    weight: torch.Tensor,
    *,
    ridge: float,
    only: torch.Tensor | None = None,
    flat: bool = False,
) -> torch.Tensor:
    """Matrices that give the value of a weighted line at every date.

    Parameters
    ----------
    lag : torch.Tensor, shape (batch, time, time)
        Time of the column less that of the row, over the width.
    weight : torch.Tensor, shape (batch, time)
        Of the dates; 0 for hidden ones.
    ridge : float
        On the slope; 0 would be least squares.
    only : torch.Tensor of bool, optional
        Dates that count, as `lag`.
    flat : bool
        All dates count alike, however far.

    Returns
    -------
    torch.Tensor, shape (batch, time, time)
        Rows sum to one.
    """
    w = weight[:, None, :].expand_as(lag)
    if not flat:
        w = w * torch.exp(-(lag**2) / 2).clamp_min(1e-9)
    if only is not None:
        w = w * only
    w = w / w.sum(2, keepdim=True).clamp_min(1e-20)
    mean = (w * lag).sum(2, keepdim=True)
    from_mean = lag - mean
    slope = w * from_mean / ((w * from_mean**2).sum(2, keepdim=True) + ridge)
    return w - mean * slope


def _balanced(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Take means over the map and over dates off, twice: exact without partial gaps."""
    for _ in range(2):
        for axes in ((2, 3), (1,)):
            count = mask.sum(axes, keepdim=True).clamp_min(1)
            x = (x - x.sum(axes, keepdim=True) / count) * mask
    return x


def _filled(x: torch.Tensor, mask: torch.Tensor, lag: torch.Tensor) -> torch.Tensor:
    """Value of the line through what is visible around each date, at every pixel."""
    near = torch.exp(-(lag**2) / 2).clamp_min(1e-9)
    count, t, tt = (_mixed(near * lag**k, mask) for k in range(3))
    y, ty = (_mixed(near * lag**k, x) for k in range(2))
    count = count.clamp_min(1e-12)
    mean = t / count
    slope = (ty - mean * y) / (tt - mean * t + 0.1 * count)
    return y / count - slope * mean


def _mixed(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bts,bsyx->btyx", matrix, x)


def _trends(elevation: torch.Tensor) -> torch.Tensor:
    """Orthonormal 1, position, elevation and its square, (batch, 5, y, x)."""
    rows, columns = elevation.shape[1:]
    h = elevation - elevation.mean((1, 2), keepdim=True)
    h = h / h.std((1, 2), keepdim=True).clamp_min(1.0)
    y = torch.linspace(-1, 1, rows, device=h.device, dtype=h.dtype)
    x = torch.linspace(-1, 1, columns, device=h.device, dtype=h.dtype)
    y, x = y[:, None].expand(rows, columns), x.expand(rows, columns)
    terms = [torch.ones_like(h), y.expand_as(h), x.expand_as(h), h, h**2]
    basis = torch.stack(terms, 1).flatten(2)
    normal = basis @ basis.transpose(1, 2)
    ridge = 1e-4 * rows * columns * torch.eye(5, device=h.device, dtype=h.dtype)
    root = torch.linalg.cholesky(normal + ridge)
    basis = torch.linalg.solve_triangular(root, basis, upper=False)
    return basis.unflatten(2, (rows, columns))


def _projected(basis: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum(
        "bkyx,btk->btyx", basis, torch.einsum("bkyx,btyx->btk", basis, x)
    )


def _share(
    part: torch.Tensor, whole: torch.Tensor, all_dates: bool, used: torch.Tensor
) -> torch.Tensor:
    """Share of the power that a part has, -1 to 1, of each date or of all used ones."""
    powers = [(a**2).sum((2, 3)) for a in (part, whole)]
    if all_dates:
        powers = [(a * used).sum(1, keepdim=True).expand_as(used) for a in powers]
    return 2 * (powers[0] / powers[1].clamp_min(1e-6)).clamp(0, 1) - 1


def _components(
    x: torch.Tensor, spread: torch.Tensor, used: torch.Tensor, smooth: torch.Tensor
) -> list[torch.Tensor]:
    """Matrices that keep the leading component, three, and two smooth ones.

    They are those of what is rough in space, of which a map has many independent
    samples, with the dates scaled to the same noise.
    """
    size = max(1, min(4, min(x.shape[2:]) // 8))
    coarse = functional.avg_pool2d(x * (used / spread)[:, :, None, None], size)
    around = functional.avg_pool2d(
        coarse, 5, stride=1, padding=2, count_include_pad=False
    )
    fine = (coarse - around).flatten(2)
    matrix = fine @ fine.transpose(1, 2) / fine.shape[2]
    kept = smooth * (spread[:, None, :] / spread[:, :, None]) * used[:, :, None]
    softer = kept @ matrix @ kept.transpose(1, 2)
    found = []
    for source, count in ((matrix, 1), (matrix, 3), (softer, 2)):
        source = source.double()
        vectors = torch.linalg.eigh(source)[1][:, :, -count:].to(x.dtype)
        vectors = vectors * used[:, :, None]
        project = vectors @ vectors.transpose(1, 2)
        project = project * spread[:, :, None] / spread[:, None, :]
        hidden = (1 - used)[:, :, None]
        found.append(project + hidden * (smooth @ project))
    return found


def _padded(maps: torch.Tensor, multiple: int) -> torch.Tensor:
    rows, columns = maps.shape[-2:]
    more = (-rows % multiple, -columns % multiple)
    if not any(more):
        return maps
    flat = maps.flatten(0, -3)[:, None]
    flat = functional.pad(flat, (0, more[1], 0, more[0]), mode="replicate")
    return flat[:, 0].unflatten(0, maps.shape[:-2])


def _grown(half: torch.Tensor) -> torch.Tensor:
    return half.repeat_interleave(2, -2).repeat_interleave(2, -1)
