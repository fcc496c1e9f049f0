"""The command separate, and the cube and the sheet that it leaves."""

import json

import numpy as np
import pytest
from command_line import call, mistake

import cube_denoise as cd
from cube_denoise.cluster import Workers
from cube_denoise.separate import separate, separate_cube
from cube_denoise.simulate import simulate_scene

pytestmark = [
    pytest.mark.usefixtures("logging_as_it_was"),
    pytest.mark.filterwarnings("ignore:.*none of them goes"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """21 pairs of 8 dates, and a cube of five."""
    folder = tmp_path_factory.mktemp("separate")
    scene = simulate_scene(size=40, dates=9, seed=3).cube
    cd.ingest_dataset(scene, folder / "cube", chunk=32, shard=64)
    cd.ingest_dataset(scene.isel(pair=slice(0, 5)), folder / "few", chunk=32, shard=64)
    return folder / "cube"


def test_look_writes_a_sheet_and_leaves_the_cube(url, tmp_path):
    options = ("--method", "pca", "--set", "components=3", "--look")
    result = call("separate", url, *options, "-o", tmp_path / "sheet")
    assert result.exit_code == 0, result.output
    assert "cluster 1: " in result.output and "corrected" not in result.output
    page = (tmp_path / "sheet/sheet.html").read_text()
    assert page.count("data:image/png") == 4 and "Velocity with and without" in page
    record = json.loads((tmp_path / "sheet/sheet.json").read_text())
    assert record["pairs"] == 21 and record["clusters"][0]["cluster"] == 1
    assert "corrected_phase" not in cd.open_cube(url)


def test_cube_is_corrected_and_says_by_what(url):
    result = call("separate", url, "--method", "pca", "--remove", "1")
    assert result.exit_code == 0, result.output
    assert "corrected 21 pairs" in result.output
    cube = cd.open_cube(url)
    told = cube["corrected_phase"].attrs
    assert told["method"] == "pca-clustering"
    assert json.loads(told["method_options"])["remove"] == [1]
    clusters = json.loads(told["clusters"])
    assert (clusters[0]["verdict"], clusters[0]["reason"]) == ("removed", "asked for")
    expected = separate(cube, method="pca", remove=(1,)).corrected
    assert np.array_equal(
        cube["corrected_phase"], expected["corrected_phase"], equal_nan=True
    )
    again = call("separate", url, "--method", "pca", "--remove", "1")
    assert again.exit_code == 0 and "all pairs are corrected" in again.output


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "cluster", ["threads", pytest.param("dask", marks=pytest.mark.slow)]
)
def test_workers_and_chunks_change_nothing(tmp_path, cluster):
    """Components are those of cells of all pairs; pairs are corrected by block."""
    scene = simulate_scene(size=40, dates=9, seed=3).cube
    corrected = []
    for chunk, workers in (
        (64, Workers("threads", count=1)),
        (16, Workers(cluster, count=2)),
    ):
        url = tmp_path / str(chunk)
        cd.ingest_dataset(scene, url, chunk=chunk, shard=chunk)
        separate_cube(
            url,
            method="pca",
            seed=1,
            remove=(1,),
            workers=workers,
        )
        corrected.append(cd.open_cube(url)["corrected_phase"].values)
    raw = scene["unwrapped_phase"].values
    assert np.nanstd(corrected[0] - raw) > 0.01
    assert np.array_equal(*corrected, equal_nan=True)


def test_mistakes_are_named(url):
    few = url.with_name("few")
    message = mistake("separate", few, "--method", "pca")
    assert "needs 20 pairs" in message
    assert "method='som'" in mistake("separate", url, "--method", "som")
    assert "--look" in mistake("separate", url, "--look")
    assert "clusters [99]" in mistake("separate", url, "--method", "ica", "--keep", 99)
    assert "clustering='x'" in mistake("separate", url, "--clustering", "x")
