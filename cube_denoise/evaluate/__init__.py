"""The judge: scores with truth and without, against GNSS, and by injection."""

from cube_denoise.evaluate.scores import (
    amplitude_slope,
    false_alarm,
    rms_error,
    seam_energy,
)

__all__ = ["amplitude_slope", "false_alarm", "rms_error", "seam_energy"]
