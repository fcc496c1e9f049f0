"""Networks of one pair, what they remove projected on dates."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import random_network
from frames import frames, job_of, keys
from typer.testing import CliRunner

from cube_denoise import store
from cube_denoise.cli import app
from cube_denoise.cluster import Workers
from cube_denoise.correct import correct, plan_correction
from cube_denoise.corrections.network import NetworkCorrection
from cube_denoise.corrections.series import Projection
from cube_denoise.dry_run import plan_correct
from cube_denoise.ingest import ingest_dataset
from cube_denoise.invert import invert
from cube_denoise.network import closure_triplets, incidence_matrix, triplet_closure
from cube_denoise.pipeline import run
from cube_denoise.simulate import PairErrors, simulate_stack
from cube_denoise.steps import correct_cube
from cube_denoise.update import update

CLOSED: dict[str, Any] = {"precision": "float32", "closure_consistent": True}
AREA = {"y": slice(0, 6), "x": slice(0, 6)}


def simulated(shape: tuple[int, int], gaps: float) -> xr.Dataset:
    errors = PairErrors(gaps=gaps)
    return simulate_stack(seed=6, shape=shape, dates=6, pair_errors=errors).cube.load()


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    """Pairs with gaps, over two tiles of a network along x."""
    return simulated((60, 270), 0.1)


def corrected(cube: xr.Dataset, model: Any, **options: Any) -> np.ndarray:
    return correct(cube, model, **options)["corrected_phase"].values


def dates_of(cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    return cube["reference_time"].values, cube["secondary_time"].values


def projected(removed: np.ndarray, cube: xr.Dataset) -> np.ndarray:
    """Brute force: `numpy.linalg.lstsq` of every pixel."""
    A, _ = incidence_matrix(*dates_of(cube))
    found = np.full(removed.shape, np.nan)
    for y, x in np.ndindex(removed.shape[1:]):
        known = np.isfinite(removed[:, y, x])
        dates = np.linalg.lstsq(A[known], removed[known, y, x], rcond=None)[0]
        found[known, y, x] = A[known] @ dates
    return found


# --- what it does to the numbers --------------------------------------------------


def test_the_removed_part_is_projected_on_dates(cube: xr.Dataset, plain_model: Path):
    raw = cube["unwrapped_phase"].values.astype("float64")
    each = raw - corrected(cube, plain_model, precision="float32")
    found = raw - corrected(cube, plain_model, **CLOSED)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(raw))
    corner = (slice(None), slice(30), slice(40))
    expected = projected(each[corner], cube)
    np.testing.assert_allclose(found[corner], expected, atol=2e-5)
    assert np.nanstd(found - each) > 0.02, "it changed something"


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_pixels_whose_pairs_are_not_linked(cube: xr.Dataset, share: float):
    """Every subset of dates by itself; also where the first date has no pair."""
    random = np.random.default_rng(8)
    removed = random.normal(0, 3, (cube.sizes["pair"], 8, 30)).astype("float32")
    removed[random.random(removed.shape) < share] = np.nan
    found = removed.copy()
    Projection.of(cube).project(found)
    np.testing.assert_allclose(found, projected(removed, cube), atol=1e-4)


def test_triplets_close_as_the_raw_pairs_do(cube: xr.Dataset, plain_model: Path):
    triplets = closure_triplets(*dates_of(cube))
    raw, each, closed = (
        triplet_closure(phase.astype("float64"), triplets)
        for phase in (
            cube["unwrapped_phase"].values,
            corrected(cube, plain_model, precision="float32"),
            corrected(cube, plain_model, **CLOSED),
        )
    )
    assert np.isfinite(raw).any()
    assert np.nanmax(np.abs(each - raw)) > 0.1
    np.testing.assert_allclose(closed, raw, atol=1e-4)


def test_displacement_is_that_of_pairs_corrected_alone(plain_model: Path):
    cube = simulated((40, 44), 0.0)
    assert not np.isnan(cube["unwrapped_phase"]).any()
    raw, each, closed = (
        invert(
            cube if phase is None else cube.assign(corrected_phase=phase),
            weights="none",
            reference=AREA,
        )["displacement"].values
        for phase in (
            None,
            *(
                correct(cube, plain_model, **options)["corrected_phase"]
                for options in ({"precision": "float32"}, CLOSED)
            ),
        )
    )
    assert np.abs(each - raw).max() > 1e-3
    np.testing.assert_allclose(closed, each, atol=1e-5)


def test_pairs_passed_through_stay_as_they_are(cube: xr.Dataset, plain_model: Path):
    """And take no part: the others are corrected as if they were not there."""
    most = cube.copy(deep=True).drop_vars(
        ["phase_quantiles", "valid_fraction"], errors="ignore"
    )
    most["unwrapped_phase"][2, :, 100:] = np.nan
    with pytest.warns(UserWarning, match="1 pairs are more than half missing"):
        found = corrected(most, plain_model, **CLOSED)
    np.testing.assert_array_equal(found[2], most["unwrapped_phase"][2])
    others = [k for k in range(most.sizes["pair"]) if k != 2]
    alone = corrected(most.isel(pair=others), plain_model, **CLOSED)
    np.testing.assert_allclose(found[others], alone, atol=1e-5)


# --- however the work is cut ------------------------------------------------------


def test_blocks_regions_and_workers_do_not_matter(
    cube: xr.Dataset, plain_model: Path, tmp_path: Path
):
    whole = corrected(cube, plain_model, **CLOSED)
    cut = corrected(cube, plain_model, block=47, **CLOSED)
    np.testing.assert_array_equal(cut, whole)
    part = {"y": slice(7, 50), "x": slice(101, 270)}
    some = corrected(cube, plain_model, region=part, block=64, **CLOSED)
    np.testing.assert_array_equal(some, whole[:, part["y"], part["x"]])
    url = tmp_path / "cube"
    ingest_dataset(cube, url, chunk=32, shard=64)
    workers = Workers("threads", count=2)
    assert correct_cube(url, plain_model, workers=workers, **CLOSED).done == len(whole)
    np.testing.assert_array_equal(store.open_cube(url)["corrected_phase"], whole)


def test_options_and_plan(cube: xr.Dataset, plain_model: Path):
    plain = NetworkCorrection(model=plain_model)
    closed = NetworkCorrection(model=plain_model, closure_consistent=True)
    assert (plain.whole_stack, closed.whole_stack) == (False, True)
    assert "closure_consistent" not in plain.label
    job, _ = plan_correction(cube, closed, block=32)
    assert len(job.windows) == 2 * 9
    assert all(w["pair"] == slice(0, cube.sizes["pair"]) for w in job.windows)
    with pytest.raises(ValueError, match="closure_consistent='yes'"):
        correct(cube, plain_model, closure_consistent="yes")


# --- cubes ------------------------------------------------------------------------


def test_switching_it_corrects_anew(
    cube: xr.Dataset, plain_model: Path, tmp_path: Path
):
    url, count = tmp_path / "cube", cube.sizes["pair"]
    ingest_dataset(cube, url)
    chosen = ["--set", "closure_consistent=true", "--set", "precision=float32"]
    said = CliRunner().invoke(
        app, ["correct", str(url), "--method", str(plain_model), *chosen]
    )
    assert said.exit_code == 0, said.output
    stored = store.open_cube(url)["corrected_phase"]
    np.testing.assert_array_equal(stored, corrected(cube, plain_model, **CLOSED))
    assert stored.attrs["closure_consistent"] == "true"
    assert correct_cube(url, plain_model, closure_consistent=True).done == 0
    assert correct_cube(url, plain_model, precision="float32").done == count
    stored = store.open_cube(url)["corrected_phase"]
    assert "closure_consistent" not in stored.attrs
    np.testing.assert_array_equal(
        stored, corrected(cube, plain_model, precision="float32")
    )
    assert correct_cube(url, plain_model, **CLOSED).done == count


def test_it_is_planned_as_done(cube: xr.Dataset, plain_model: Path, tmp_path: Path):
    url = tmp_path / "cube"
    ingest_dataset(cube, url, chunk=32, shard=64)
    (alone,) = plan_correct(url, plain_model, precision="float32").steps
    (closed,) = plan_correct(url, plain_model, **CLOSED).steps
    assert (closed.tasks, alone.tasks) == (5, 5 * cube.sizes["pair"])
    assert closed.bytes_read == alone.bytes_read
    assert closed.bytes_written == alone.bytes_written
    beside = closed.memory_per_task - alone.memory_per_task
    block = cube.sizes["pair"] * 60 * 64 * 4
    assert block <= beside < 3 * block
    correct_cube(url, plain_model, **CLOSED)
    (done,) = plan_correct(url, plain_model, **CLOSED).steps
    assert (done.tasks, done.done) == (0, cube.sizes["pair"])


def test_a_new_pair_corrects_all_again(tmp_path: Path):
    model = random_network(tmp_path / "model", seed=5, depth=4, channels=4)
    five = frames(tmp_path / "frames")[:5]
    told = {"correct": {"method": str(model), **CLOSED}}
    grown, anew = tmp_path / "grown", tmp_path / "anew"
    with warnings.catch_warnings(action="ignore"):
        run(job_of(tmp_path, five[:3], grown, **told))
        report = update(job_of(tmp_path, five, grown, **told))
        run(job_of(tmp_path, five, anew, **told))
    assert report.correct is not None and report.correct.done == 5
    one, other = store.open_cube(grown), store.open_cube(anew)
    assert keys(one) == keys(other)
    order = [[i["id"] for i in c.attrs["items"]] for c in (one, other)]
    places = [order[1].index(name) for name in order[0]]
    np.testing.assert_allclose(
        one["corrected_phase"], other["corrected_phase"][places], atol=1e-6
    )
    np.testing.assert_allclose(one["displacement"], other["displacement"], atol=1e-6)
