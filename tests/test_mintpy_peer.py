"""MintPy 1.6.4 itself inverts what we export; we read what it writes. Needs PyPI once.

MintPy runs by its own command, in an environment of its own.
"""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from command_line import done

import cube_denoise as cd
from benchmarks.inversion_peers import PeerError, environment, limits

pytestmark = pytest.mark.slow

ROW, COLUMN = 30, 12
WEIGHTS = {"coh": "coherence", "fim": "variance", "no": "none"}
"""MintPy's name of a weight -> ours of the same, up to a factor."""
CONFIG = f"""\
mintpy.reference.yx = {ROW},{COLUMN}
mintpy.troposphericDelay.method = no
mintpy.topographicResidual = no
mintpy.save.kmz = no
mintpy.plot = no
"""


@pytest.fixture(scope="module")
def program():
    try:
        return environment("MintPy").with_name("smallbaselineApp.py")
    except PeerError as error:
        pytest.skip(f"MintPy cannot be installed: {error}")


def run_mintpy(program: Path, project: Path, *options: str, config: str = CONFIG):
    """Run MintPy's application on a project with ``inputs``."""
    (project / "my.cfg").write_text(config)
    told = subprocess.run(
        [program, "my.cfg", *options],
        cwd=project,
        env=os.environ | limits(1) | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-2000:]


def layer(path: Path, name: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file[name][:]


@pytest.fixture(scope="module")
def case(program, tmp_path_factory):
    """A cube, its truth, and a MintPy project of it, inverted with coherence."""
    folder = tmp_path_factory.mktemp("mintpy")
    scene = cd.simulate_scene(
        size=40, dates=8, max_temporal_baseline=36, gaps=0.0, rate=1.0, seed=3
    )
    pairs = scene.cube.load()
    pairs["unwrapped_phase"][4, :20, :20] += np.float32(2 * np.pi)  # to be weighed
    pairs["unwrapped_phase"][:, :5, 35:] = np.nan  # the sea
    cd.ingest_dataset(pairs, folder / "cube", chunk=16, shard=32)
    project = folder / "project"
    done("export", folder / "cube", project / "inputs", "--format", "mintpy")
    config = CONFIG + "mintpy.networkInversion.weightFunc = coh\n"
    run_mintpy(program, project, config=config)
    return SimpleNamespace(
        cube=folder / "cube", project=project, truth=scene.truth, folder=folder
    )


def inverted(url: Path, weights: str, **options):
    reference = {"y": slice(ROW, ROW + 1), "x": slice(COLUMN, COLUMN + 1)}
    cube = cd.open_cube(url)
    return cd.invert(cube, weights=weights, reference=reference, **options).compute()


@pytest.mark.parametrize("theirs", WEIGHTS)
def test_velocities_are_equal(theirs, case, program):
    if theirs != "coh":
        config = CONFIG + f"mintpy.networkInversion.weightFunc = {theirs}\n"
        for name in ("timeseries", "velocity", "temporalCoherence", "numInvIfgram"):
            (case.project / f"{name}.h5").unlink(missing_ok=True)
        run_mintpy(program, case.project, "--start", "invert_network", config=config)
    ours = inverted(case.cube, WEIGHTS[theirs])
    valid = np.isfinite(ours.velocity.values)
    assert valid.sum() == 40 * 40 - 25
    velocity = layer(case.project / "velocity.h5", "velocity")
    apart = np.abs(velocity - ours.velocity.values)[valid].max()
    print(f"{theirs}: velocities differ by at most {apart:.2g} m/yr")
    assert apart < 1e-6  # asked for: 1e-4
    assert np.ptp(velocity[valid]) > 0.5
    series = layer(case.project / "timeseries.h5", "timeseries")
    apart = np.abs(series - ours.displacement.values)[:, valid].max()
    assert apart < 1e-6


def test_the_sign_is_that_of_the_motion(case):
    """The simulated motion, toward the satellite, is what MintPy finds."""
    truth = case.truth.velocity.values
    found = layer(case.project / "velocity.h5", "velocity")
    valid = np.isfinite(inverted(case.cube, "none").velocity.values)
    slope = np.polyfit(truth[valid], found[valid], 1)[0]
    assert slope == pytest.approx(1, abs=0.2)


def test_we_read_the_series_that_mintpy_writes(case, tmp_path):
    done("ingest", case.project / "timeseries.h5", tmp_path / "cube")
    ours = inverted(tmp_path / "cube", "none")
    theirs = layer(case.project / "timeseries.h5", "timeseries")
    valid = np.isfinite(ours.velocity.values)
    assert valid.sum() == 40 * 40 - 25  # the sea is none, the reference pixel is
    np.testing.assert_allclose(
        ours.displacement.values[:, valid], theirs[:, valid], atol=1e-7
    )


def test_two_commands_put_a_correction_into_a_project(case, program, tmp_path):
    """As the README has it; the project's own files stay as they are."""
    stack = case.project / "inputs/ifgramStack.h5"
    before = stack.read_bytes()
    job = {
        "source": str(stack),
        "cube": "cube",
        "correct": {"method": "temporal-filter"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done("run", tmp_path / "job.yaml")
    done(
        *("export", tmp_path / "cube", tmp_path / "corrected/inputs"),
        *("--format", "mintpy", "--like", stack),
    )
    assert stack.read_bytes() == before
    config = CONFIG + "mintpy.networkInversion.weightFunc = coh\n"
    run_mintpy(program, tmp_path / "corrected", config=config)
    found = layer(tmp_path / "corrected/velocity.h5", "velocity")
    ours = inverted(tmp_path / "cube", "coherence", variable="corrected_phase")
    valid = np.isfinite(ours.velocity.values)
    assert np.abs(found - ours.velocity.values)[valid].max() < 1e-6
    raw = inverted(tmp_path / "cube", "coherence", variable="unwrapped_phase")
    assert np.abs(found - raw.velocity.values)[valid].max() > 1e-4


def test_every_step_of_mintpy_runs(case, program, tmp_path):
    """With errors of elevation, for which it needs the range to the satellite."""
    done("export", case.cube, tmp_path / "inputs", "--format", "mintpy")
    config = CONFIG.replace("mintpy.topographicResidual = no\n", "")
    run_mintpy(program, tmp_path, config=config)
    assert np.isfinite(layer(tmp_path / "demErr.h5", "dem")).any()
    assert np.isfinite(layer(tmp_path / "velocity.h5", "velocity")).any()
