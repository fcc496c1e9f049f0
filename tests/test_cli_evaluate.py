"""The commands evaluate and methods, and what they say to bad input."""

import csv
import json

import pytest
from command_line import done, mistake
from judged import stations_of

from cube_denoise import store
from cube_denoise.corrections import CLASSICAL, SEPARATIONS
from cube_denoise.ingest import ingest_dataset
from cube_denoise.models import zoo
from cube_denoise.simulate import simulate_scene

AREA = ("--reference-rows", "0:8", "--reference-columns", "0:8")
pytestmark = pytest.mark.usefixtures("logging_as_it_was")


@pytest.fixture(scope="module")
def scene():
    made = simulate_scene(size=48, dates=6, rate=0.3, gaps=0.02, seed=3)
    made.cube.load()
    return made


@pytest.fixture(scope="module")
def folder(scene, tmp_path_factory):
    """A cube, its truth, stations as CSV."""
    folder = tmp_path_factory.mktemp("evaluate")
    ingest_dataset(scene.cube, folder / "cube")
    store.export_zarr(scene.truth, folder / "truth.zarr")
    stations = stations_of(scene)
    names = ("east", "north", "up")
    with (folder / "stations.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["station", "longitude", "latitude", "time", *names])
        for k, name in enumerate(stations.station.values):
            place = (float(stations.longitude[k]), float(stations.latitude[k]))
            for n, time in enumerate(stations.time.values):
                values = [float(stations[c][k, n]) for c in names]
                writer.writerow([name, *place, str(time)[:19], *values])
    return folder


def test_truth_injection_and_stations_in_one_report(folder, tmp_path):
    before = store.open_repository(folder / "cube").lookup_branch("main")
    result = done(
        *("evaluate", folder / "cube", "--method", "ramp", "--inject", *AREA),
        *("--set", "ramp.surface=bilinear", "--truth", folder / "truth.zarr"),
        *("--gnss", folder / "stations.csv", "--reference-station", "AAAA"),
        *("-o", tmp_path / "out", "--seed", 4),
    )
    record = json.loads((tmp_path / "out/report.json").read_text())
    assert [m["name"] for m in record["methods"]] == ["raw", "ramp"]
    raw, ramp = record["methods"]
    options = json.loads(ramp["label"]["method_options"])
    assert options == {"surface": "bilinear"} and record["seed"] == 4
    assert raw["scores"]["velocity reduction"] == 0
    assert raw["scores"]["steady slope"] == pytest.approx(1, abs=1e-3)
    assert ramp["scores"]["GNSS correlation"] < 1
    assert len(raw["injected"]) == 12
    for heading in ("against the truth", "without truth", "against GNSS", "injected"):
        assert heading in result.stdout
    assert f"report in {tmp_path / 'out/report.html'}" in result.stdout.replace(
        "\n", ""
    )
    assert (tmp_path / "out/report.html").stat().st_size > 100_000
    after = store.open_repository(folder / "cube").lookup_branch("main")
    assert after == before


def test_part_with_a_reference_in_pixels_of_the_cube(folder, scene, tmp_path):
    done(
        *("evaluate", folder / "cube", "--method", "ramp", "--weights", "none"),
        *("--rows", "10:40", "--columns", "4:48", "-o", tmp_path),
        *("--reference-rows", "12:20", "--reference-columns", "4:12"),
        *("--truth", folder / "truth.zarr", "--folds", 2),
    )
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["reference"] == {"rows": [2, 10], "columns": [0, 8]}
    assert (record["stack"]["rows"], record["stack"]["columns"]) == (30, 44)
    assert "rows 10 to 39, columns 4 to 47" in record["title"]
    assert record["folds"] == 2 and record["weights"] == "none"
    # The truth is cut like the cube: else no map would resemble it.
    assert record["methods"][0]["scores"]["velocity correlation"] > 0.8
    assert "injected" not in record["methods"][0]


def test_all_methods_of_the_cube_by_default(folder, tmp_path, monkeypatch):
    from cube_denoise.evaluate import judge

    asked = []

    def judged(cube, methods, **_):
        asked.extend(m.label["method"] for m in methods)
        raise ValueError("enough")

    monkeypatch.setattr(judge, "evaluate_cube", judged)
    mistake("evaluate", folder / "cube", "-o", tmp_path)
    assert {"ramp", "phase-elevation", "pca", *zoo.shipped_models()} <= set(asked)
    assert not {"weather", "wiener"} & set(asked)


def test_what_cannot_be_judged(folder, scene, tmp_path):
    cube = folder / "cube"
    other = tmp_path / "other.zarr"
    store.export_zarr(scene.truth.isel(y=slice(0, 24)), other)
    moved = tmp_path / "moved.zarr"
    store.export_zarr(scene.truth.assign_coords(x=scene.truth.x + 500), moved)
    away = tmp_path / "away.csv"
    text = (folder / "stations.csv").read_text().splitlines()
    header, first, *_ = text
    cells = first.split(",")
    away.write_text("\n".join([header, ",".join([cells[0], "10", "50", *cells[3:]])]))
    flat = tmp_path / "flat"
    ingest_dataset(scene.cube.drop_vars("elevation"), flat)
    ramp = ("--method", "ramp", "-o", tmp_path / "out")
    for sentence, *command in (
        ("'resnet' is not a classical", cube, "--method", "resnet", *ramp[2:]),
        ("METHOD.KEY=VALUE", cube, *ramp, "--set", "surface=plane"),
        ("one of the methods ramp", cube, *ramp, "--set", "pca.components=2"),
        ("has the options surface", cube, *ramp, "--set", "ramp.degree=2"),
        ("surface='cone'", cube, *ramp, "--set", "ramp.surface=cone"),
        ("must be on one grid", cube, *ramp, "--truth", other),
        ("must be on one grid", cube, *ramp, "--truth", moved),
        ("cannot be read", cube, *ramp, "--truth", tmp_path / "none.zarr"),
        ("inside the grid", cube, *ramp, "--gnss", away, *AREA),
        ("needs --gnss", cube, *ramp, "--reference-station", "AAAA"),
        ("or one CSV", cube, *ramp, "--gnss", away, "--gnss", away),
        ("No such file", cube, *ramp, "--gnss", tmp_path / "none.csv"),
        ("--rows '30:60'", cube, *ramp, "--rows", "30:60"),
        ("--columns '9'", cube, *ramp, "--columns", "9"),
        ("go together", cube, *ramp, "--reference-rows", "1:5"),
        ("in the part judged", cube, *ramp, "--rows", "20:48", *AREA),
        ("weights='nice'", cube, *ramp, "--weights", "nice"),
        ("folds=1", cube, *ramp, "--folds", "1"),
        ("there is no cube", tmp_path / "none", *ramp),
    ):
        found = mistake("evaluate", *command)
        assert sentence in found, found
    assert not (tmp_path / "out").exists()
    assert (
        "elevation"
        in done(
            "evaluate",
            flat,
            *AREA,
            *("--method", "phase-elevation", "-o", tmp_path / "flat-out"),
        ).stderr
    )


def test_methods_are_listed_with_options_and_needs():
    blocks: dict[str, str] = {}
    for line in done("methods").stdout.splitlines():
        if not line.startswith(" "):
            blocks[(name := line)] = ""
        else:
            blocks[name] += line
    assert list(blocks) == [*CLASSICAL, *SEPARATIONS, *zoo.shipped_models()]
    assert "surface=plane" in blocks["ramp"]
    assert "needs: elevation" in blocks["phase-elevation"]
    assert "needs: the option delays" in blocks["weather"]
    assert "elevation" in blocks["dncnn-dilated"]
    assert "needs" not in blocks["ramp"]
    assert all(len(text) > 20 for text in blocks.values())


@pytest.mark.parametrize("name", ["evaluate", "methods"])
def test_every_help_has_an_example(name):
    assert f"Example: cube-denoise {name}" in done(name, "--help").output
