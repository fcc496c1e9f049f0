"""The benchmark without truth: units, signs and quirks of real stacks, and its rows."""

import datetime
import json

import h5py
import numpy as np
import pytest
import rasterio

from benchmarks import real_stacks, without_truth
from benchmarks.real_stacks import (
    ENVISAT_WAVELENGTH,
    ETNA_REFERENCE,
    POZZUOLI,
    campi_flegrei,
    etna_cube,
    etna_values,
    permian_cube,
)
from cube_denoise.conventions import phase_to_displacement
from cube_denoise.invert import invert
from cube_denoise.network import closure_triplets, triplet_closure

needs_data = pytest.mark.skipif(
    not all(folder.exists() for folder, _ in without_truth.CASES.values()),
    reason=f"needs the data folders in {real_stacks.DATA}",
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The benchmark as users run it, as it is written."""
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    found = without_truth.main(["--quick", "--out", str(path)])
    kept = json.loads(path.read_text())
    assert kept == [r.record for r in found]
    return {(r["case"], r["method"], r["metric"]): r for r in kept}


def value(rows, *key):
    return rows[key]["value"]


@needs_data
def test_every_case_is_judged(rows):
    assert {case for case, _, _ in rows} == set(without_truth.CASES)
    assert rows["mexico-city-s1", "raw", "closure"]["unit"] == "rad"
    assert rows["permian-opera-disp", "raw", "epochs"]["unit"] == "mm"
    assert rows["campi-flegrei-licsbas", "vel", "uplift"]["unit"] == "mm/yr"


@needs_data
@pytest.mark.parametrize("case", ["mexico-city-s1", "etna-envisat"])
def test_zero_wins_all_but_one(rows, case):
    for metric in ("closure", "residual", "shortest pairs", "velocity std"):
        assert value(rows, case, "output zero", metric) == 0
        assert value(rows, case, "raw", metric) > 0
    assert value(rows, case, "output zero", "temporal coherence") == pytest.approx(1)
    assert value(rows, case, "output zero", "held-out ratio") == 1
    assert value(rows, case, "raw", "held-out ratio") < 0.7


@needs_data
def test_mexico_city_loses_its_subsidence_to_elevation(rows):
    """Better by every score that zero wins, far worse at dates it has not seen."""
    raw, corrected = (
        {m: value(rows, "mexico-city-s1", name, m) for m in ("residual", "closure")}
        | {"held": value(rows, "mexico-city-s1", name, "held-out ratio")}
        for name in ("raw", "phase-elevation")
    )
    assert corrected["residual"] < raw["residual"]
    assert corrected["closure"] < raw["closure"]
    assert corrected["held"] > 2 * raw["held"]


@needs_data
def test_etna_is_in_millimetres(rows):
    """Steps between neighbours end at half a cycle: lambda/4 in mm, pi in rad."""
    assert value(rows, "etna-envisat", "the file", "jumps at lambda/4") < 0.6
    assert value(rows, "etna-envisat", "the file", "jumps at pi") > 0.95
    values = etna_values()
    mm = 1e3 * phase_to_displacement(etna_cube().unwrapped_phase, ENVISAT_WAVELENGTH)
    np.testing.assert_allclose(mm, values, atol=1e-4)
    assert np.nanstd(values, (1, 2)).max() < 1e3 * ENVISAT_WAVELENGTH / 2
    # The README's reference pixels, ends included: exactly zero, and nowhere missing.
    inside = values[:, ETNA_REFERENCE["y"], ETNA_REFERENCE["x"]]
    assert np.isfinite(inside).all() and np.abs(inside.mean((1, 2))).max() < 1e-4


@needs_data
def test_etna_is_flipped():
    cube = etna_cube()
    with h5py.File(real_stacks.ETNA / "Etna_sample.h5") as file:
        design, ordinals = file["Jmat"][:], file["dates"][:]
    assert (cube.reference_time < cube.secondary_time).all()
    first = datetime.date.fromordinal(int(ordinals[0]))
    assert str(cube.reference_time.values.min())[:10] == str(first) == "2003-01-22"
    # Closure keeps its size, whatever the sign: 2.3 mm over 265 triplets (README).
    times = cube.reference_time.values, cube.secondary_time.values
    triplets = closure_triplets(*times)
    loops = triplet_closure(etna_values(), triplets)
    ours = triplet_closure(cube.unwrapped_phase.values, triplets)
    assert len(triplets) == 265 and np.nanstd(loops) == pytest.approx(2.3, abs=0.05)
    rad = 4e-3 * np.pi / ENVISAT_WAVELENGTH
    np.testing.assert_allclose(ours, -rad * loops, atol=1e-4)
    # Velocity is the other way round: minus that of the dates x of igram = Jmat x.
    values = etna_values()
    whole = np.isfinite(values).all(0)
    dates = np.linalg.lstsq(design, values[:, whole], rcond=None)[0]
    rate = np.polyfit((ordinals - ordinals[0]) / 365.25, dates, 1)[0]
    found = invert(cube, weights="none", reference=ETNA_REFERENCE).velocity.values
    np.testing.assert_allclose(1e3 * found[whole], -rate, atol=2e-3)
    assert np.abs(rate).max() > 0.5


@needs_data
def test_permian_is_zero_on_its_reference_date():
    cube = permian_cube()
    assert set(cube.reference_time.values.astype("datetime64[D]").astype(str)) == {
        "2016-07-08"
    }
    assert cube.sizes["pair"] == 8
    metres = phase_to_displacement(cube.unwrapped_phase.values, 0.05546576)
    with rasterio.open(
        real_stacks.PERMIAN / "displacement_20160708_20161012.tif"
    ) as file:
        assert file.tags()["reference_point"] == '["258", "142"]'
        stored = file.read(1)
    known = np.isfinite(metres[3])  # about 1 % is outside the connected component
    assert 0.97 < known.mean() < 1
    np.testing.assert_allclose(metres[3][known], stored[known], atol=1e-7)
    assert (metres[:, 258, 142] == 0).all()
    assert 0.03 < np.nanmax(np.abs(metres)) < 0.1  # metres, not mm
    series = invert(cube, weights="none", reference=real_stacks.PERMIAN_REFERENCE)
    first = series.displacement[0].values
    assert (first[np.isfinite(first)] == 0).all()


@needs_data
def test_permian_epochs_share_the_reference_date(rows):
    """More than the half that dates of equal atmosphere would share."""
    case = "permian-opera-disp", "raw"
    assert 60 < value(rows, *case, "common") < 95
    assert value(rows, *case, "at reference") > 2 * value(rows, *case, "expected")
    # Lines and motion are small beside it: nothing is predicted better than by zero.
    assert value(rows, *case, "held-out ratio") > 1


@needs_data
def test_campi_flegrei_rises_toward_the_satellite(rows):
    data = campi_flegrei()
    vel, filtered = data.layers["vel"], data.layers["vel.filt"]
    # Ranges of the README, mm/yr.
    assert np.nanmin(vel) == pytest.approx(-88, abs=1)
    assert np.nanmax(vel) == pytest.approx(114, abs=1)
    assert np.nanmin(filtered) == pytest.approx(-67, abs=1)
    assert np.nanmax(filtered) == pytest.approx(135, abs=1)
    assert vel[65, 86] == 0  # the reference pixel
    for layer in ("vel", "vel.mskd", "vel.filt"):
        assert 30 < value(rows, "campi-flegrei-licsbas", layer, "uplift") < 60
    # What is within a kilometre of Pozzuoli is there, and a kilometre wide.
    near = data.within_km(*POZZUOLI, 1.0)
    assert near.sum() * data.spacing[0] * data.spacing[1] == pytest.approx(
        np.pi * 1e6, rel=0.02
    )
    y, x = (k.mean() for k in np.nonzero(near))
    assert data.latitude[round(y)] == pytest.approx(40.825, abs=1e-3)
    assert data.longitude[round(x)] == pytest.approx(14.122, abs=1e-3)


@needs_data
def test_campi_flegrei_network_is_that_of_the_readme(rows):
    number = {
        (method, metric): row["value"]
        for (case, method, metric), row in rows.items()
        if case == "campi-flegrei-licsbas"
    }
    assert number["all pairs", "pairs"] == 579
    assert number["used", "pairs"] == 515 and number["used", "dates"] == 158
    assert number["used", "parts"] == 1
    assert number["used", "loops"] == 515 - 158 + 1


def test_common_mode_tells_the_reference_date():
    """Epochs d_k = a_k - a_0 of independent dates share half of their power."""
    generator = np.random.default_rng(1)
    dates = generator.normal(0, 4e-3, (9, 120, 120))
    dates[0] *= 2

    cube = permian_like(dates[1:] - dates[0])
    found = {name: number for name, number, _ in without_truth.common_mode(cube)}
    assert found["epochs"] == pytest.approx(4 * np.sqrt(5), rel=0.02)
    assert found["common"] == pytest.approx(80, abs=1)
    assert found["about lines"] == pytest.approx(4, rel=0.02)
    # The lines end at the reference date in minus its atmosphere, plus their error.
    assert found["at reference"] ** 2 - found["expected"] ** 2 == pytest.approx(
        64, rel=0.03
    )


def permian_like(displacement):
    """A cube of epochs against one date, m."""
    times = np.datetime64("2016-07-08", "ns") + 24 * np.arange(
        len(displacement) + 1
    ) * np.timedelta64(1, "D")
    phase = displacement * (-4 * np.pi / 0.05546576)
    cube = real_stacks._cube(
        phase, np.repeat(times[:1], len(displacement)), times[1:], 0.05546576
    )
    return cube.assign(corrected_phase=cube.unwrapped_phase)


def test_jump_edge_finds_where_unwrapping_ends():
    """Steps wrapped into half a cycle, and a tenth as many beyond."""
    steps = np.random.default_rng(2).exponential(3.0, 400_000)
    kept = steps[(steps < 6) | (np.arange(steps.size) % 5 == 0)]
    column = np.zeros((1, kept.size, 2))
    column[0, :, 1] = kept
    column = np.where(np.arange(kept.size)[None, :, None] % 2 == 0, column, np.nan)
    assert without_truth.jump_edge(column, 6.0) < 0.35
    assert without_truth.jump_edge(column, 3.5) == pytest.approx(1, abs=0.1)


def test_absent_data_are_told(monkeypatch, capsys, tmp_path):
    absent = {
        name: (tmp_path / name, case) for name, (_, case) in without_truth.CASES.items()
    }
    monkeypatch.setattr(without_truth, "CASES", absent)
    assert without_truth.main(["--quick"]) == []
    printed = capsys.readouterr().out
    assert all(f"{name}: not run, there is no folder" in printed for name in absent)
