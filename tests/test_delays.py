"""Delay files: every layout gives the same delays; what cannot be one is refused."""

import pickle
import shutil

import h5py
import numpy as np
import pytest
from delay_layouts import (
    DATES,
    KINDS,
    NORTH,
    STEP,
    WEST,
    WRITERS,
    centres,
    dataset,
    planes,
    write_mintpy,
    write_netcdf,
    write_tif,
    write_ztd,
)

from cube_denoise.delays import open_delays, survey


@pytest.fixture(params=WRITERS)
def layout(request):
    return request.param


def test_every_layout_gives_the_delays(layout, tmp_path):
    delays = open_delays(WRITERS[layout](tmp_path / "d", planes()))
    assert delays.dims == ("time", "y", "x") and delays.dtype == "float32"
    assert delays.attrs["delay_type"] == KINDS[layout]
    assert delays.attrs["crs"] == "EPSG:4326" and delays.attrs["units"] == "m"
    days = delays["time"].values.astype("datetime64[D]").astype(str)
    assert [d.replace("-", "") for d in days] == list(DATES)
    lon, lat = centres()
    found = delays.sortby("y", ascending=False)
    np.testing.assert_allclose(found["x"], lon, atol=1e-9)
    np.testing.assert_allclose(found["y"], lat, atol=1e-9)
    np.testing.assert_allclose(found, planes(), atol=3e-7)


def test_header_coordinates_are_the_corner(tmp_path):
    delays = open_delays(write_ztd(tmp_path / "d", planes()))
    assert float(delays["x"][0]) == pytest.approx(WEST + STEP / 2, abs=1e-12)
    assert float(delays["y"][0]) == pytest.approx(NORTH - STEP / 2, abs=1e-12)


def test_windows_are_read_alone_and_elsewhere(layout, tmp_path):
    """Any indexing, before and after pickling, is that of the whole array."""
    delays = open_delays(WRITERS[layout](tmp_path / "d", planes()))
    sent = pickle.dumps(delays)
    assert len(sent) < 10_000  # the values are 50 kB
    again, whole = pickle.loads(sent), delays.values
    for key in (
        np.s_[1, 3:5, 60:],
        np.s_[:, 7, 2:9:3],
        np.s_[::2, ::-11, 4],
        np.s_[2, 5, 6],
    ):
        np.testing.assert_array_equal(again[key].values, whole[key])
    np.testing.assert_array_equal(again[:, [4, 1]].values, whole[:, [4, 1]])


@pytest.mark.parametrize("write", [write_ztd, write_tif])
def test_zero_is_no_data(write, tmp_path):
    values = planes()
    values[1, 3, 4] = 0
    delays = open_delays(write(tmp_path / "d", values))
    assert np.argwhere(np.isnan(delays.values)).tolist() == [[1, 3, 4]]
    assert survey(delays).missing == pytest.approx(1 / values.size)


def test_pattern_chooses_among_files(tmp_path):
    folder = write_ztd(tmp_path / "d", planes())
    write_tif(folder, planes() + 0.1)
    with pytest.raises(ValueError, match=r"2020-01-05, .* twice: .*pattern"):
        open_delays(folder)
    for pattern, more in (("*.ztd", 0), ("*.tif", 0.1)):
        found = open_delays(str(folder / pattern))
        np.testing.assert_allclose(found, planes() + more, atol=3e-7)


@pytest.mark.parametrize("attributes", [{"EPSG": "32733"}, {"UTM_ZONE": "33S"}])
def test_mintpy_in_metres(attributes, tmp_path):
    path = write_mintpy(tmp_path / "d", planes())
    place = {"X_FIRST": "5e5", "Y_FIRST": "8e6", "X_STEP": "90", "Y_STEP": "-90"}
    with h5py.File(path, "r+") as file:
        file.attrs.update(attributes | place | {"X_UNIT": "meters"})
    delays = open_delays(path)
    assert delays.attrs["crs"] == "EPSG:32733"
    assert float(delays["x"][0]) == 500_045 and float(delays["y"][1]) == 7_999_865


def test_netcdf_with_dates_as_numbers_and_its_own_crs(tmp_path):
    data = dataset(planes(), units="mm").rename(lat="y", lon="x", time="date")
    data["ztd"] *= 10
    data["ztd"].attrs |= {"units": "mm", "crs": "EPSG:32645"}
    data["date"] = [int(d) for d in DATES]
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    delays = open_delays(tmp_path / "a.nc", delay_type="line of sight")
    assert delays.attrs["crs"] == "EPSG:32645"
    assert delays.attrs["delay_type"] == "line of sight"
    np.testing.assert_allclose(delays[:, ::-1], planes(), atol=3e-7)


# --- fingerprints -----------------------------------------------------------------


def test_fingerprints_are_of_what_is_in_the_files(tmp_path):
    values = planes()
    first = survey(open_delays(write_ztd(tmp_path / "a", values))).fingerprints
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert survey(open_delays(tmp_path / "b")).fingerprints == first
    assert sorted(first) == list(DATES)
    values[1, -1, -1] += 1e-3
    other = survey(open_delays(write_ztd(tmp_path / "b", values))).fingerprints
    assert [first[d] == other[d] for d in DATES] == [True, False, True]
    slant = open_delays(tmp_path / "a", delay_type="line of sight")
    assert not set(survey(slant).fingerprints.values()) & set(first.values())


# --- what is refused --------------------------------------------------------------


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match="nowhere is no file or folder"):
        open_delays(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no file YYYYMMDD\.ztd"):
        open_delays(tmp_path)
    folder = write_ztd(tmp_path / "d", planes())
    (folder / "20200117.ztd.rsc").unlink()
    with pytest.raises(ValueError, match=r"no 20200117\.ztd\.rsc beside it"):
        open_delays(folder)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="neither a folder"):
        open_delays(tmp_path / "a.txt")


def test_names_without_dates(tmp_path):
    folder = write_tif(tmp_path / "d", planes())
    (folder / "20200105.ztd.tif").rename(folder / "delay.tif")
    with pytest.raises(ValueError, match=r"delay\.tif has no date"):
        open_delays(folder)
    (folder / "delay.tif").rename(folder / "20201305.tif")
    with pytest.raises(ValueError, match="'20201305' must be one as YYYYMMDD"):
        open_delays(folder)


def test_dates_on_different_grids(tmp_path):
    folder = write_ztd(tmp_path / "d", planes())
    header = folder / "20200210.ztd.rsc"
    header.write_text(header.read_text().replace(f"X_FIRST {WEST}", "X_FIRST 89.2"))
    with pytest.raises(ValueError, match=r"20200210\.ztd is on another grid than 2020"):
        open_delays(folder)


def test_truncated_file_and_incomplete_header(tmp_path):
    folder = write_ztd(tmp_path / "d", planes())
    (folder / "20200105.ztd").write_bytes(b"1234")
    with pytest.raises(ValueError, match="has 4 bytes: must be 4 x 60 x 70"):
        open_delays(folder)
    (folder / "20200105.ztd.rsc").write_text("WIDTH 70\n")
    with pytest.raises(ValueError, match="lacks FILE_LENGTH, Y_FIRST"):
        open_delays(folder)


def test_mintpy_in_radar_geometry_or_of_another_kind(tmp_path):
    path = write_mintpy(tmp_path / "d", planes())
    with h5py.File(path, "r+") as file:
        del file.attrs["X_FIRST"]
    with pytest.raises(ValueError, match="lacks X_FIRST: delays must be geocoded"):
        open_delays(path)
    with h5py.File(path, "r+") as file:
        del file["date"]
    with pytest.raises(ValueError, match="must have 'timeseries' and 'date'"):
        open_delays(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": "inch"}, "unit 'inch': must be m, cm or mm"),
        ({"units": ""}, "unit '': must be m, cm or mm"),
        ({"delay_type": ""}, "does not say whether"),
        ({"delay_type": "slant"}, "does not say whether"),
    ],
)
def test_netcdf_must_say_unit_and_type(change, message, tmp_path):
    data = dataset(planes(), **change)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=message):
        open_delays(tmp_path / "a.nc")


def test_netcdf_of_another_shape(tmp_path):
    data = dataset(planes())
    for bad, message in (
        (data.assign(wet=data.ztd), "must have one variable"),
        (data.rename(time="epoch"), "dims .*'epoch'.*: must be"),
        (data.drop_vars("lat"), "with coordinates"),
        (data.rename(lat="y", lon="x"), "has no CRS"),
        (data.isel(lat=[0, 1, 5]), "lat in .* evenly spaced"),
    ):
        bad.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        with pytest.raises(ValueError, match=message):
            open_delays(tmp_path / "a.nc")


def test_type_must_be_known(tmp_path):
    with pytest.raises(ValueError, match="delay_type='slant' must be one of zenith"):
        open_delays(tmp_path, delay_type="slant")


def test_what_cannot_be_a_delay(tmp_path):
    def refused(values, message, **options):
        folder = write_ztd(tmp_path / "d", values)
        with pytest.raises(ValueError, match=message):
            survey(open_delays(folder, **options))

    values = planes()
    values[1] *= 1000
    refused(values, "20200117 in .* check unit and sign")
    refused(-planes(), "20200105 in .* check unit and sign")
    refused(planes() * 2, "20200105 in .* zenith delay")
    survey(open_delays(tmp_path / "d", delay_type="line of sight"))
    values = planes()
    values[2] = 0
    refused(values, "20200210 in .* hold no data")
    values = planes()
    values[2, 10:30, 20:40] -= 1.1
    refused(values, r"differ by 1\.\d+ m between dates")


def test_differences_to_a_date_are_delays_too(tmp_path):
    path = write_netcdf(tmp_path / "d", planes() - planes()[:1])
    assert survey(open_delays(path)).missing == 0


def test_mintpy_of_the_wrong_sign_is_noticed(tmp_path):
    path = write_mintpy(tmp_path / "d", -planes())
    with pytest.raises(ValueError, match="positive = longer path; check unit and sign"):
        survey(open_delays(path))
