"""What a simulated stack looks through: the delay of every date."""

import numpy as np

from cube_denoise.simulate.atmosphere import bilinear_ramp, seasonal_stratified_delay
from cube_denoise.simulate.climate import zonal_climate
from cube_denoise.simulate.ground import Ground
from cube_denoise.simulate.ionosphere import ionospheric_delays
from cube_denoise.simulate.sensor import SENSORS
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import Turbulence, turbulent_delays


def draw_delays(
    times: np.ndarray,
    ground: Ground,
    *,
    incidence: float,
    sensor: str,
    generator: np.random.Generator,
) -> np.ndarray:
    """Delay of every date: turbulence, stratified, ramp, and ionosphere at L band.

    One weather regime is drawn for the stack. Ranges are this project's, guided by the
    literature: turbulence of 3-20 mm per date at 5-40 km plus 0.5-4 mm at 1-4 km, some
    anisotropy and intermittency, amplitudes that vary by a factor of 1.5 and a few bad
    dates (`turbulence.Turbulence`); a climate of 0-60 degrees latitude
    (`climate.zonal_climate`); a ramp of up to 6 mm; 0.1-1 TECU of ionosphere over
    50 km, in proportion to the size of the scene.

    Parameters
    ----------
    times : numpy.ndarray of datetime64[s], shape (dates,)
        Acquisitions.
    ground : Ground
        Grid and elevation.
    incidence : float
        Degrees from the vertical.
    sensor : str
        Of `sensor.SENSORS`; "alos-2" sees the ionosphere.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float32, shape (dates, rows, columns)
        m of extra path along the line of sight, with a mean of its own on each date.
    """
    rng = generator
    shape, spacing = ground.elevation.shape, ground.spacing
    large, small = 10 ** rng.uniform([-2.52, -3.3], [-1.7, -2.4])
    regime = Turbulence(
        spectra=(
            Matern(
                large,
                10 ** rng.uniform(3.7, 4.6),
                float(rng.choice([1 / 3, 1 / 2, 5 / 6])),
            ),
            Matern(
                small, 10 ** rng.uniform(3.0, 3.6), float(rng.choice([1 / 3, 1 / 2]))
            ),
        ),
        anisotropy=rng.uniform(1, 2.5),
        azimuth=rng.uniform(0, 180),
    )
    count = len(times)
    delay = turbulent_delays(
        count, shape, spacing=spacing, turbulence=regime, generator=rng
    )
    delay += seasonal_stratified_delay(
        ground.elevation,
        times,
        incidence=incidence,
        climate=zonal_climate(rng.uniform(0, 60)),
        generator=rng,
    )
    for one in delay:
        one += bilinear_ramp(shape, amplitude=0.006, generator=rng)
    if sensor == "alos-2":
        delay += ionospheric_delays(
            count,
            shape,
            spacing=spacing,
            frequency=SENSORS[sensor].frequency,
            tec_std=10 ** rng.uniform(-1, 0) * max(shape) * spacing / 50_000,
            azimuth=rng.uniform(-20, 20),
            generator=rng,
        )
    return delay
