"""How one window of a stack is inverted, and with which settings."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window
from cube_denoise.closure import TREATMENTS, close_phase, closure_rms
from cube_denoise.conventions import VARIABLES, X, Y, phase_to_displacement
from cube_denoise.correction_errors import StatedErrors
from cube_denoise.inversion.elimination import Elimination
from cube_denoise.inversion.gaps import GAPS
from cube_denoise.inversion.kernel import WEIGHTS
from cube_denoise.inversion.robust import LOSSES
from cube_denoise.inversion.solver import solve
from cube_denoise.reference import read_window
from cube_denoise.reference_date import asked_date
from cube_denoise.time_models import Design, TimeModel
from cube_denoise.velocity import UNCERTAINTIES, fit_model

SERIES = ("displacement", "displacement_std")
MAPS = (
    *("velocity", "velocity_std", "temporal_coherence", "residual_rms"),
    *("closure_rms", "pair_count", "gap_count"),
)
OUTPUTS = (*SERIES, *MAPS)
ROUNDING = 1e-3
"""How far coherence may be outside 0..1 by rounding."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an inversion is done; see `invert`.

    Raises
    ------
    ValueError
        If one is unknown.
    """

    weights: str = "coherence"
    robust: str = "none"
    gaps: str = "nan"
    unwrapping: str = "none"
    model: str = "linear"
    uncertainty: str = "effective"
    reference_date: str = "first"

    def __post_init__(self) -> None:
        for name, known in (
            ("weights", WEIGHTS),
            ("robust", LOSSES),
            ("gaps", GAPS),
            ("unwrapping", TREATMENTS),
            ("uncertainty", UNCERTAINTIES),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
        TimeModel.parse(self.model)
        object.__setattr__(self, "reference_date", asked_date(self.reference_date))


def invert_window(
    cube: xr.Dataset,
    window: Window,
    *,
    variable: str,
    settings: Settings,
    constants: np.ndarray,
    plan: Elimination,
    design: Design,
    triplets: np.ndarray,
    loops: np.ndarray | None,
    wavelength: float,
    stated: StatedErrors | None = None,
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Compute the outputs of one window."""
    phase = read_window(cube, variable, window)
    shape = phase.shape[1:]
    coherence = None
    if "coherence" in cube:
        coherence = _pixels(read_window(cube, "coherence", window))
        check_coherence(coherence, window)
    referenced = (_pixels(phase) - constants[:, None]).astype("float32")
    closed = close_phase(
        referenced, triplets, unwrapping=settings.unwrapping, loop_constants=loops
    )
    found = solve(
        closed.phase,
        plan,
        coherence=coherence,
        weights=settings.weights,
        robust=settings.robust,
        gaps=settings.gaps,
        years=design.years,
        design=design,
        errors=True,
        device=device,
    )
    displacement = phase_to_displacement(found.phase, wavelength)
    metres = float(phase_to_displacement(1.0, wavelength)) ** 2
    rate_variance = np.nan_to_num(found.rate_variance) * metres
    scatter = np.nan_to_num(found.scatter) * metres
    if stated is not None:
        more = stated.rate_terms(cube, window, displacement, design)
        rate_variance, scatter = rate_variance + more[0], scatter + more[1]
    fit = fit_model(
        displacement,
        design,
        uncertainty=settings.uncertainty,
        propagated=rate_variance,
        expected=scatter,
    )
    outputs: dict[str, np.ndarray] = {
        "displacement": displacement,
        "displacement_std": np.sqrt(metres) * found.phase_std,
        "velocity": fit.velocity,
        "velocity_std": fit.velocity_std,
        "temporal_coherence": found.temporal_coherence,
        "residual_rms": found.residual_rms,
        "closure_rms": closure_rms(referenced, triplets),
        "pair_count": found.pair_count,
        "gap_count": found.gap_count,
    }
    if settings.unwrapping != "none":
        changed = (closed.cycles != 0) | closed.masked
        outputs["unwrapping_error_count"] = changed.sum(0)
    if len(design.names) > 2:
        outputs["model_parameters"] = fit.parameters
    return {
        name: array.astype(VARIABLES[name].dtype, copy=False).reshape(
            *array.shape[:-1], *shape
        )
        for name, array in outputs.items()
    }


def check_coherence(coherence: np.ndarray, window: Window) -> None:
    """Refuse coherence in other units, such as 0..255."""
    low = np.fmin.reduce(coherence, axis=None)
    high = np.fmax.reduce(coherence, axis=None)
    if low < -ROUNDING or high > 1 + ROUNDING:
        rows, columns = window[Y], window[X]
        raise ValueError(
            f"coherence is {low:.4g} to {high:.4g} in rows {rows.start} to "
            f"{rows.stop}, columns {columns.start} to {columns.stop}: it must be 0 to 1"
        )


def _pixels(values: np.ndarray) -> np.ndarray:
    """Pairs by pixels, as the solver takes them."""
    flat = values.reshape(values.shape[0], -1)
    return np.require(flat, "float32", ["C", "W"])
