"""The judge: scores with truth and without, against GNSS, and by injection."""

from cube_denoise.evaluate.consistency import (
    elevation_correlation,
    inversion_summary,
    short_baseline_std,
    triplet_closure_rms,
)
from cube_denoise.evaluate.gnss import read_stations_csv, read_tenv3
from cube_denoise.evaluate.scores import (
    amplitude_slope,
    bias,
    detection_threshold,
    false_alarm,
    percentile_error,
    reduction,
    rms_error,
    seam_energy,
    snr,
)
from cube_denoise.evaluate.similarity import correlation, ssim, ssim_poster
from cube_denoise.evaluate.station_misfit import StationMisfit, station_misfit
from cube_denoise.evaluate.stations import (
    compare_with_stations,
    project_on_line_of_sight,
    sample_at_stations,
)
from cube_denoise.evaluate.structure import pair_structure, structure_function
from cube_denoise.evaluate.uncertainty import (
    coverage,
    gaussian_crps,
    reliability_curve,
)

__all__ = [
    "StationMisfit",
    "amplitude_slope",
    "bias",
    "compare_with_stations",
    "correlation",
    "coverage",
    "detection_threshold",
    "elevation_correlation",
    "false_alarm",
    "gaussian_crps",
    "inversion_summary",
    "pair_structure",
    "percentile_error",
    "project_on_line_of_sight",
    "read_stations_csv",
    "read_tenv3",
    "reduction",
    "reliability_curve",
    "rms_error",
    "sample_at_stations",
    "seam_energy",
    "short_baseline_std",
    "snr",
    "ssim",
    "ssim_poster",
    "station_misfit",
    "structure_function",
    "triplet_closure_rms",
]
