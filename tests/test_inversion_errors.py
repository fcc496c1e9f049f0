"""What an inversion refuses, in one sentence, and that the cube stays as it was."""

import json
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from command_line import call, done, mistake

from cube_denoise import store
from cube_denoise.inversion.solver import solve
from cube_denoise.invert import invert
from cube_denoise.network import Network
from cube_denoise.pipeline import run
from cube_denoise.steps import invert_cube
from cube_denoise.store.repository import open_repository

AREA = {"y": slice(40, 56), "x": slice(40, 56)}
pytestmark = pytest.mark.usefixtures("logging_as_it_was")

GIVEN = ("--reference-rows", "40:56", "--reference-columns", "40:56")
TIMES = ("reference_time", "secondary_time")


def everything(url):
    """Snapshots of all branches, hidden ones too."""
    repository = open_repository(url)
    return {b: repository.lookup_branch(b) for b in repository.list_branches()}


def change(url, edit):
    """Edit a cube's arrays past everything that checks them."""
    session = open_repository(url).writable_session("main")
    edit(zarr.open_group(session.store, mode="r+"))
    session.commit("made wrong on purpose")


def cycle(root):
    """Pair 2 runs backward in time."""
    early, late = (root[name][2] for name in TIMES)
    root[TIMES[0]][2], root[TIMES[1]][2] = late, early


def no_time(root):
    root[TIMES[0]][1] = root[TIMES[1]][1]


def not_a_time(root):
    root[TIMES[1]][3] = np.iinfo("int64").min


def twice(root):
    for name in TIMES:
        root[name][4] = root[name][1]


def empty(root):
    root["unwrapped_phase"][...] = np.nan


def percent(root):
    root["coherence"][3, 90, 90] = 87.0


def below(root):
    root["coherence"][3, 90, 90] = -0.5


def no_wavelength(root):
    root.attrs["wavelength"] = None


CUBES = [
    (cycle, "reference must be before secondary"),
    (no_time, "reference must be before secondary"),
    (not_a_time, "NaT"),
    (twice, "occurs more than once"),
    (empty, "no pair of unwrapped_phase has data there"),
    (percent, "coherence is .* to 87 in rows .*: it must be 0 to 1"),
    (below, "coherence is -0.5 to .*: it must be 0 to 1"),
    (no_wavelength, "wavelength=None"),
]


@pytest.mark.parametrize(("edit", "message"), CUBES, ids=[c[0].__name__ for c in CUBES])
def test_wrong_cubes_are_refused_and_left_alone(edit, message, make_cube):
    url = make_cube()
    change(url, edit)
    before = everything(url)
    with pytest.raises(ValueError, match=message):
        invert(store.open_cube(url), reference=AREA).compute()
    with pytest.raises(ValueError, match=message):
        invert_cube(url, reference=AREA)
    assert everything(url) == before
    said = mistake("invert", url, *GIVEN)
    assert "\n" not in said and len(said) < 300
    assert everything(url) == before
    with pytest.raises(ValueError, match=message):
        invert_cube(url, reference=AREA, branch="main")
    assert "velocity" not in store.open_cube(url)


def test_an_earlier_inversion_survives_a_refusal(make_cube):
    url = make_cube()
    invert_cube(url, reference=AREA)
    velocity = store.open_cube(url).velocity.load()
    change(url, percent)
    before = everything(url)
    assert "must be 0 to 1" in mistake("invert", url, "--weights", "variance", *GIVEN)
    assert everything(url) == before
    xr.testing.assert_identical(store.open_cube(url).velocity.load(), velocity)


def test_an_empty_cube_has_no_reference_to_be_chosen(make_cube):
    url = make_cube()
    change(url, empty)
    before = everything(url)
    assert "half filled in any pair" in mistake("invert", url)
    assert everything(url) == before


OPTIONS = [
    ({"weights": "coh"}, ("--weights", "coh"), "weights='coh' must be one of"),
    ({"robust": "l2"}, ("--robust", "l2"), "robust='l2' must be one of"),
    ({"gaps": "fill"}, ("--gaps", "fill"), "gaps='fill' must be one of"),
    ({"variable": "phase"}, ("--variable", "phase"), "variable='phase' must be one of"),
    (
        {"reference": {"y": [0, 5], "x": [0, 5], "lon": 1, "lat": 2}},
        (*GIVEN, "--reference-point", "1,2"),
        "pixels and point|--reference-rows and --reference-point",
    ),
    (
        {"reference": {"y": [90, 99], "x": [0, 5]}},
        ("--reference-rows", "90:99", "--reference-columns", "0:5"),
        r"within 0\.\.96",
    ),
    (
        {"reference": "nowhere.json"},
        ("--reference-polygon", "nowhere.json"),
        "nowhere.json",
    ),
    (
        {"reference_date": "1999-01-01"},
        ("--reference-date", "1999-01-01"),
        "1999-01-01' is not one of the 5 dates",
    ),
]


@pytest.fixture(scope="module")
def untouched(stack, tmp_path_factory):
    from cube_denoise.ingest import ingest_dataset

    url = tmp_path_factory.mktemp("cubes") / "untouched"
    ingest_dataset(stack, url, chunk=32, shard=64)
    return url


@pytest.mark.parametrize(("options", "arguments", "message"), OPTIONS)
def test_wrong_options_are_refused(options, arguments, message, untouched):
    before = everything(untouched)
    with pytest.raises(ValueError, match=message):
        invert(store.open_cube(untouched), **options)
    with pytest.raises(ValueError, match=message):
        invert_cube(untouched, **options)
    for more in ((), ("--dry-run",)):
        with pytest.raises(ValueError, match=message):
            raise ValueError(mistake("invert", untouched, *arguments, *more))
    assert everything(untouched) == before


def test_options_that_do_not_exist_are_refused(untouched, tmp_path):
    before = everything(untouched)
    with pytest.raises(TypeError, match="damping"):
        invert(store.open_cube(untouched), damping=3)
    with pytest.raises(TypeError, match="damping"):
        invert_cube(untouched, damping=3)
    assert call("invert", untouched, "--damping", "3").exit_code == 2
    job = {"source": "x", "cube": str(untouched), "invert": {"damping": 3}}
    with pytest.raises(ValueError, match=r"job\['invert'\].*damping"):
        run(job)
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    assert "damping" in mistake("run", tmp_path / "job.yaml")
    assert everything(untouched) == before


@pytest.mark.parametrize("wrong", [-1e-3, np.nan, np.inf])
def test_weights_must_be_finite_and_not_negative(wrong):
    plan = Network(np.array([0, 1]), np.array([1, 2]), 3, 0).plan
    phase = np.ones((2, 70), "float32")
    weights = np.ones_like(phase)
    weights[1, 69] = 0
    assert solve(phase, plan, weights=weights).gap_count[69] == 1
    weights[0, 69] = wrong
    with pytest.raises(ValueError, match=r"weights are .*: they must be 0 or more"):
        solve(phase, plan, weights=weights)
    with pytest.raises(ValueError, match=r"weights has shape \(2, 69\): phase has"):
        solve(phase, plan, weights=weights[:, 1:])
    with pytest.raises(ValueError, match="coherence=None"):
        solve(phase, plan, weights="coherence")
    with pytest.raises(ValueError, match="coherence has shape"):
        solve(phase, plan, coherence=weights[:1])


def test_the_order_of_pairs_does_not_matter(stack):
    order = np.random.default_rng(0).permutation(stack.sizes["pair"])
    assert (np.diff(order) < 0).any()
    one = invert(stack, reference=AREA).compute()
    two = invert(stack.isel(pair=order), reference=AREA).compute()
    xr.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-7)
    assert one.velocity.attrs == two.velocity.attrs


def test_a_single_pair_has_a_velocity_of_unknown_error(stack, make_cube):
    """Two dates determine a line, and nothing else."""
    url = make_cube(stack.isel(pair=[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        invert_cube(url, reference=AREA)
        made = store.open_cube(url).load()
    phase = stack.unwrapped_phase[0].values
    level = np.nanmean(phase[AREA["y"], AREA["x"]])
    moved = -stack.attrs["wavelength"] / (4 * np.pi) * (phase - level)
    np.testing.assert_allclose(made.displacement[1], moved, atol=1e-7)
    days = np.diff(made.time.values)[0] / np.timedelta64(1, "D")
    np.testing.assert_allclose(made.velocity, moved / days * 365.25, atol=1e-6)
    assert np.isnan(made.velocity_std).all()
    assert np.isnan(made.displacement_std[1]).all()
    assert made.sizes["time"] == 2
    done("invert", url, "--weights", "none", *GIVEN)


def test_a_block_without_data_stays_without(stack, make_cube):
    url = make_cube()
    whole = invert(store.open_cube(url), reference=AREA).compute()

    def blank(root):
        for name in ("unwrapped_phase", "coherence"):
            root[name][:, :32, :32] = np.nan

    change(url, blank)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for robust, gaps in (("none", "nan"), ("huber", "linear")):
            invert_cube(url, reference=AREA, robust=robust, gaps=gaps)
            made = store.open_cube(url).load()
            lost = made.isel(y=slice(32), x=slice(32))
            for name in ("displacement", "displacement_std", "velocity"):
                assert np.isnan(lost[name]).all(), name
            assert (lost.pair_count == 0).all() and (lost.gap_count == -1).all()
            if robust == "none":
                for name in ("displacement", "velocity", "gap_count"):
                    for part in ({"y": slice(32, None)}, {"x": slice(32, None)}):
                        np.testing.assert_array_equal(
                            made[name].isel(part), whole[name].isel(part)
                        )


def test_a_window_without_data_in_memory(stack):
    phase = stack.unwrapped_phase.copy(deep=True)
    phase[:, :48] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = invert(
            stack.assign(unwrapped_phase=phase),
            reference=AREA | {"y": slice(56, 72)},
            block=48,
            unwrapping="correct",
            uncertainty="bootstrap",
        ).compute()
    assert np.isnan(found.velocity[:48]).all() and (found.gap_count[:48] == -1).all()
