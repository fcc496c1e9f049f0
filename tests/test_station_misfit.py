"""Misfit to stations: the tables of the two posters, and what an offset can win."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.evaluate import station_misfit

# Line-of-sight displacement of the 2009 L'Aquila earthquake, mm, relative to SELL:
# GNSS, its standard deviation, uncorrected and corrected (DnCNN poster, Li and Sagiya).
LAQUILA = {
    "AQUI": (-64.6, 15.2, -102.6, -54.3),
    "CADO": (-102.6, 19.3, -147.7, -143.0),
    "CPAG": (-0.4, 18.4, -47.4, -13.8),
    "INGP": (-34.4, 15.5, -57.3, -34.5),
    "INFN": (-22.5, 15.2, -80.0, -45.4),
    "ROIO": (-113.5, 16.0, -164.2, -94.7),
    "SELL": (0.0, 0.0, 0.0, 0.0),
    "SMCO": (-3.3, 14.8, -32.8, -5.0),
}

# Mean |GPS - interferogram| at MAU2, LDMP, NIEB and PUEL, mm, and the average printed
# beside them (diffusion poster, Popescu et al., Laguna del Maule).
LAGUNA_DEL_MAULE = {
    "raw": ((10.26, 11.17, 12.86, 11.92), 11.28),
    "time series": ((7.53, 6.90, 7.60, 8.16), 7.50),
    "Restormer": ((13.87, 5.40, 8.71, 12.59), 10.07),
    "SwinIR": ((8.89, 5.81, 7.78, 8.50), 7.72),
    "Diffusion": ((8.99, 7.21, 8.93, 9.26), 8.59),
    "wDiffusion": ((8.22, 7.23, 8.87, 9.39), 8.42),
}
MEANS = (11.55, 7.55, 10.14, 7.75, 8.60, 8.43)


@pytest.fixture(scope="module")
def laquila():
    columns = np.array(list(LAQUILA.values())).T
    arrays = [
        xr.DataArray(v, {"station": list(LAQUILA)}, ["station"], attrs={"units": "mm"})
        for v in columns
    ]
    gnss, std, uncorrected, corrected = arrays
    return [
        station_misfit(insar, gnss, std=std, reference_station="SELL")
        for insar in (uncorrected, corrected)
    ]


def test_laquila_as_the_poster_tells_it(laquila):
    raw, corrected = laquila
    assert raw.l2 == pytest.approx(113.835, abs=5e-4)
    assert corrected.l2 == pytest.approx(52.901, abs=5e-4)
    assert corrected.reduction(raw)["l2"] == pytest.approx(0.5353, abs=5e-5)
    assert corrected.reduction(raw)["rms"] == pytest.approx(0.5353, abs=5e-5)
    assert (raw.stations, raw.values) == (8, 8)


def test_laquila_without_the_common_offset_is_worse_after_correction(laquila):
    """The gain is that of one constant between SELL and the other seven stations."""
    raw, corrected = laquila
    assert raw.l2_demeaned == pytest.approx(29.8, abs=0.05)
    assert corrected.l2_demeaned == pytest.approx(49.5, abs=0.05)
    assert corrected.reduction(raw)["l2_demeaned"] == pytest.approx(-0.66, abs=5e-3)
    assert corrected.avg_demeaned > raw.avg_demeaned
    assert raw.correlation == pytest.approx(0.972, abs=5e-4)
    assert corrected.correlation == pytest.approx(0.909, abs=5e-4)


def test_laquila_by_other_norms(laquila):
    raw, corrected = laquila
    assert raw.mae == raw.avg == pytest.approx(36.34, abs=5e-3)
    assert corrected.mae == pytest.approx(13.45, abs=5e-3)
    assert corrected.reduction(raw)["mae"] == pytest.approx(0.630, abs=5e-4)
    assert raw.chi2 == pytest.approx(6.96, abs=5e-3)
    assert corrected.chi2 == pytest.approx(1.29, abs=5e-3)
    weighted = 1 - np.sqrt(corrected.chi2 / raw.chi2)
    assert weighted == pytest.approx(0.569, abs=5e-4)


@pytest.mark.parametrize(
    ("row", "mean"), list(zip(LAGUNA_DEL_MAULE.values(), MEANS, strict=True))
)
def test_laguna_del_maule_averages_are_means_over_stations(row, mean):
    """The poster prints less everywhere.

    Its formula is a mean over n values; if those are all pairs of an interferogram and
    a station, stations with more interferograms count more. That is not `avg`, in which
    stations count alike, but `mae` (see the next test).
    """
    at_stations, printed = row
    found = station_misfit(np.array(at_stations), np.zeros(4))
    assert found.avg == pytest.approx(mean, abs=0.0051)
    assert min(at_stations) < printed < found.avg


def test_unequal_counts_part_the_two_averages():
    """Counts of pairs at the stations that make the poster's raw 11.28 mm."""
    (mau2, *others), printed = LAGUNA_DEL_MAULE["raw"]
    share = (np.mean(others) - printed) / (np.mean(others) - mau2)  # of all at MAU2
    n = 300
    k = round(n * share / (1 - share) * 3)
    insar = np.full((4, max(k, n)), np.nan)
    insar[0, :k] = mau2
    insar[1:, :n] = np.array(others)[:, None]
    found = station_misfit(insar, np.zeros_like(insar))
    assert k > n
    assert found.mae == pytest.approx(printed, abs=5e-3)
    assert found.avg == pytest.approx(11.55, abs=5e-3)
    assert found.values == k + 3 * n


def test_an_offset_wins_the_plain_scores_only():
    rng = np.random.default_rng(1)
    gnss = rng.normal(0, 0.02, (6, 40))
    noise = rng.normal(0, 0.002, gnss.shape)
    offsets = rng.normal(0, 0.03, 40)  # one a pair: the reference pixel
    raw = station_misfit(gnss + noise + offsets, gnss)
    shifted = station_misfit(gnss + noise, gnss)
    assert shifted.reduction(raw)["avg"] > 0.9
    assert shifted.reduction(raw)["l2"] > 0.9
    assert shifted.reduction(raw)["avg_demeaned"] == pytest.approx(0, abs=1e-9)
    assert shifted.reduction(raw)["l2_demeaned"] == pytest.approx(0, abs=1e-9)
    # Removing the mean of six takes one of their six degrees of freedom.
    expected = np.sqrt(np.sum(noise**2) * 5 / 6)
    assert shifted.l2_demeaned == pytest.approx(expected, rel=0.05)
    assert shifted.rms == pytest.approx(noise.std(), rel=0.02)


def test_a_model_that_outputs_zero_does_not_win():
    gnss = np.array([0.0, 10.0, -20.0, 40.0, 5.0])
    raw = station_misfit(gnss + np.array([0.0, 3.0, -2.0, 4.0, 1.0]), gnss)
    zero = station_misfit(0 * gnss, gnss)
    assert all(v < 0 for n, v in zero.reduction(raw).items() if n != "chi2")
    assert np.isnan(zero.correlation)
    assert np.isnan(zero.reduction(raw)["chi2"])


def test_missing_values_are_left_out_and_too_few_are_not_demeaned():
    insar = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    found = station_misfit(insar, np.zeros((3, 2)))
    assert (found.stations, found.values) == (2, 3)
    assert found.avg == pytest.approx((1 + 4) / 2)
    assert found.mae == pytest.approx(3)
    # Only the first pair has two stations: 1 and 3 about their mean.
    assert found.avg_demeaned == pytest.approx(1)
    assert found.l2_demeaned == pytest.approx(np.sqrt(2))
    # Besides the reference there is one station: its own mean says nothing.
    alone = station_misfit(insar, np.zeros((3, 2)), reference_station=0)
    assert np.isnan(alone.avg_demeaned)
    assert np.isnan(alone.l2_demeaned)


def test_dims_in_any_order():
    rng = np.random.default_rng(2)
    gnss = xr.DataArray(rng.normal(size=(3, 5)), dims=("station", "pair"))
    insar = gnss + rng.normal(size=(3, 5))
    found = station_misfit(insar, gnss, std=abs(gnss))
    assert station_misfit(insar.T, gnss, std=abs(gnss).T) == found
    arrays = insar.values, gnss.values
    assert station_misfit(*arrays, std=abs(gnss.values)) == found


def test_bad_input_is_named():
    one = xr.DataArray([1.0, 2.0], {"station": ["A", "B"]}, ["station"])
    with pytest.raises(ValueError, match="all are NaN"):
        station_misfit(one * np.nan, one)
    with pytest.raises(ValueError, match="in mm, gnss in m"):
        station_misfit(one.assign_attrs(units="mm"), one.assign_attrs(units="m"))
    with pytest.raises(ValueError, match=r"stations \['A', 'B'\], gnss \['B', 'C'\]"):
        station_misfit(one, one.assign_coords(station=["B", "C"]))
    with pytest.raises(ValueError, match="reference_station='C' must be one of A, B"):
        station_misfit(one, one, reference_station="C")
    with pytest.raises(ValueError, match=r"\(2, 1\) and gnss \(3, 1\)"):
        station_misfit(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="std must be positive"):
        station_misfit(one, 0 * one, std=0 * one)
    with pytest.raises(ValueError, match="one must be 'station'"):
        station_misfit(one.rename(station="site"), one)
    with pytest.raises(ValueError, match="shape"):
        station_misfit(np.ones((0,)), np.ones((0,)))
