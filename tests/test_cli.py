"""The command line: every step, and what it says to bad input."""

import http.server
import json
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from command_line import call, done, mistake

import cube_denoise as cd
from cube_denoise import store
from cube_denoise.simulate.hyp3 import write_hyp3_products

COMMANDS = (
    *("index", "search", "ingest", "correct", "invert", "run", "update"),
    *("info", "plot", "export", "history", "diff", "rollback", "maintain"),
    *("evaluate", "methods", "simulate", "train", "adapt", "demo"),
)
MEXICO = Path(__file__).parents[2] / "shared/data/mexico-city-s1"
pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def state(cube):
    repository = store.open_repository(cube)
    return {b: repository.lookup_branch(b) for b in store.visible_branches(repository)}


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    from cube_denoise.models import zoo

    folder = tmp_path_factory.mktemp("models") / "identity"
    return zoo.save_model(zoo.create_model("dncnn"), folder, training={}, card="")


@pytest.fixture(scope="module")
def scene():
    return cd.simulate_scene(size=64, dates=4, seed=5)


@pytest.fixture(scope="module")
def products(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "products"
    write_hyp3_products(scene.cube, folder)
    return folder


@pytest.fixture(scope="module")
def catalog(products):
    out = products.parent / "catalog.json"
    assert call("index", products, "-o", out).exit_code == 0
    return out


@pytest.fixture(scope="module")
def cube(catalog, identity):
    """A cube with everything; tests that change it take `copy`."""
    url = catalog.parent / "cube"
    for step in (
        ("ingest", catalog, url),
        ("correct", url, "--method", identity),
        ("invert", url),
    ):
        result = call(*step)
        assert result.exit_code == 0, result.output
    return url


@pytest.fixture
def copy(cube, tmp_path):
    return shutil.copytree(cube, tmp_path / "cube")


# --- what works ------------------------------------------------------------------


def test_help_is_fast_and_complete():
    code = (
        "import sys; sys.argv = ['cube-denoise', '--help']\n"
        "from cube_denoise.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'xarray', 'zarr'} & set(sys.modules)))"
    )
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")
    positions = [out.index(f"│ {name}") for name in COMMANDS]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    "name",
    [
        "index",
        "search",
        "ingest",
        "correct",
        "invert",
        "run",
        "update",
        "history",
        "diff",
        "rollback",
        "maintain",
        "info",
        "plot",
        "export",
        "simulate",
        "train",
        "demo",
    ],
)
def test_every_help_has_an_example(name):
    assert f"Example: cube-denoise {name} " in done(name, "--help").output


def test_package_is_run_as_a_module():
    run = [sys.executable, "-m", "cube_denoise", "--version"]
    found = subprocess.run(run, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == cd.__version__


def test_search_narrows_and_writes(catalog, tmp_path):
    items = tmp_path / "items.json"
    search = ["search", catalog, "--filter", "insar:temporal_baseline<=12"]
    done(*search, "--orbit", "A005", "-o", items)
    assert len(json.loads(items.read_text())["features"]) == 3
    assert len(done(*search).stdout.splitlines()) == 3


def test_whole_way_keeps_what_was_simulated(cube, scene):
    made = cd.open_cube(cube)
    assert made.sizes["pair"] == scene.cube.sizes["pair"]
    np.testing.assert_allclose(
        made.unwrapped_phase.values, scene.cube.unwrapped_phase.values, atol=1e-5
    )
    np.testing.assert_array_equal(
        made.corrected_phase.values, made.unwrapped_phase.values
    )
    assert np.isfinite(made.velocity.values).mean() > 0.9


def test_again_does_nothing(catalog, copy, identity):
    before = state(copy)
    assert "0 pairs added" in done("ingest", catalog, copy).output
    assert "are corrected" in done("correct", copy, "--method", identity).output
    assert "up to date" in done("invert", copy).output
    assert state(copy) == before


def test_other_options_invert_anew(copy):
    done("invert", copy, "--weights", "none")
    assert cd.open_cube(copy).velocity.attrs["weights"] == "none"
    done("invert", copy)
    assert cd.open_cube(copy).velocity.attrs["weights"] == "coherence"


def test_branch_leaves_main_alone(copy):
    before = state(copy)
    done("invert", copy, "--branch", "raw", "--variable", "unwrapped_phase")
    assert state(copy)["main"] == before["main"]
    assert "raw" in done("info", copy, "--branch", "raw").output


def test_info_tells_what_is_there(cube):
    found = json.loads(done("info", cube, "--json").stdout)
    assert (found["pairs"], found["dates"], found["rows"]) == (6, 4, 64)
    assert found["correction"]["corrected"] == 6
    assert [s["message"].split(":")[0] for s in found["steps"]] == [
        "invert",
        "correct",
        "ingest",
        "create",
    ]
    velocity = cd.open_cube(cube).velocity.values
    median = found["velocity"]["percentiles_mm_per_year"]["50"]
    assert median == pytest.approx(np.nanmedian(velocity) * 1e3, abs=0.01)
    text = done("info", cube).output
    assert "6 of 4 dates" in text and "EPSG:32613" in text


def test_plot_writes_pngs(cube, tmp_path):
    made = cd.open_cube(cube)
    point = f"{float(made.x[3])},{float(made.y[5])}"
    out = done("plot", cube, "-o", tmp_path, "--pair", 2, "--point", point).stdout
    names = {Path(n).name for n in out.split()}
    assert names == {
        *("velocity.png", "velocity-std.png", "pair-2.png", "network.png"),
        "series.png",
    }
    assert all((tmp_path / n).stat().st_size > 5000 for n in names)


def test_export_both_formats(cube, tmp_path):
    done("export", cube, tmp_path / "plain.zarr")
    assert xr.open_zarr(tmp_path / "plain.zarr").sizes["pair"] == 6
    done("export", cube, tmp_path / "maps", "--format", "cog", "--variable", "velocity")
    with rasterio.open(tmp_path / "maps/velocity.tif") as raster:
        assert raster.shape == (64, 64)


@pytest.mark.parametrize("form", ["--cube", "--products"])
def test_simulate(tmp_path, form):
    out = tmp_path / "out"
    done("simulate", out, form, "--size", 32, "--dates", 3, "--seed", 1)
    truth = xr.open_zarr(tmp_path / "out-truth.zarr")
    assert truth.displacement.shape == (3, 32, 32)
    if form == "--cube":
        assert cd.open_cube(out).sizes["pair"] == 3
    else:
        assert len(list(out.iterdir())) == 3
    assert "not empty" in mistake("simulate", out, form)


def test_train_writes_a_model(tmp_path, monkeypatch):
    from cube_denoise.training import run

    def small(name, out, **options):
        assert options == {"seed": 1, "steps": 2, "workers": 0, "device": "cpu"} | {
            "threads": None
        }
        return out

    monkeypatch.setattr(run, "train", small)
    arguments = ("dncnn", tmp_path / "m", "--seed", 1, "--steps", 2, "--device", "cpu")
    arguments += ("--workers", 0)
    assert str(tmp_path / "m") in done("train", *arguments).output


def test_mistakes_in_training_are_told(tmp_path):
    out = tmp_path / "m"
    assert "name='gan': known networks are dncnn," in mistake("train", "gan", out)
    assert "steps=0 must be" in mistake("train", "dncnn", out, "--steps", 0)
    assert "device='tpu'" in mistake("train", "dncnn", out, "--device", "tpu")
    missing = mistake("train", "dncnn", out, "--noise", tmp_path / "nothing")
    assert str(tmp_path / "nothing") in missing
    assert not list(tmp_path.iterdir())


def test_run_does_all_with_paths_relative_to_the_file(catalog, identity, tmp_path):
    shutil.copytree(catalog.parent / "products", tmp_path / "products")
    done("index", tmp_path / "products", "-o", tmp_path / "catalog.json")
    shutil.copytree(identity, tmp_path / "models/identity")
    (tmp_path / "job.yaml").write_text(
        "source: catalog.json\ncube: cubes/one\n"
        "correct: {method: models/identity}\n"
        "invert:\n  weights: none\n  reference: {y: [0, 8], x: [0, 8]}\n"
    )
    assert "6 pairs added" in done("run", tmp_path / "job.yaml").output
    made = cd.open_cube(tmp_path / "cubes/one")
    assert made.velocity.attrs["reference_rows"] == [0, 8]
    assert "6 there before" in done("run", tmp_path / "job.yaml").output


def test_ctrl_c_says_how_to_go_on(cube, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cube_denoise.steps.invert_cube", interrupted)
    result = call("invert", cube)
    assert result.exit_code == 130
    assert result.stderr.endswith("run the same command again to go on\n")


@pytest.mark.skipif(not MEXICO.exists(), reason=f"needs the data folder {MEXICO}")
def test_mexico_city_from_files_to_velocity(tmp_path):
    catalog, items, url = (tmp_path / n for n in ("c.json", "i.json", "cube"))
    done(
        *("index", MEXICO, "-o", catalog, "--track", "A005"),
        *("--pattern", "unw/cropA_{reference}-{secondary}_VV_8rlks_eqa_unw.tif"),
        *("--coherence", "coh/cropA_{reference}-{secondary}_VV_8rlks_flat_eqa_cc.tif"),
        *("--elevation", "dem/cropA_T005A_dem.tif"),
        *("--baselines", "pairs.csv", "--acquisitions", "acquisitions.csv"),
    )
    done("search", catalog, "--orbit", "A005", "-o", items)
    done("ingest", items, url)
    area = ("--reference-rows", "45:55", "--reference-columns", "15:25")
    done("invert", url, "--weights", "none", *area)
    velocity = cd.open_cube(url).velocity
    low, high = np.nanpercentile(velocity, [1, 99])
    assert low == pytest.approx(-0.266, abs=0.002)
    assert high == pytest.approx(0.026, abs=0.002)
    assert abs(np.nanmean(velocity[45:55, 15:25])) < 1e-6
    assert velocity.x.attrs["units"] == "degrees_east"


# --- what does not ----------------------------------------------------------------


def test_unreadable_raster_fails_its_pair_only(products, tmp_path):
    folder = shutil.copytree(products, tmp_path / "products")
    done("index", folder, "-o", tmp_path / "catalog.json")
    broken = sorted(folder.glob("*/*_unw_phase.tif"))[1]
    broken.write_bytes(b"not a raster")
    result = call("ingest", tmp_path / "catalog.json", tmp_path / "cube")
    assert result.exit_code == 3, result.output
    assert "5 pairs added, 0 there before, 1 failed" in result.stdout
    assert f"failed: {broken.parent.name}: " in result.stderr
    job = tmp_path / "job.yaml"
    job.write_text("source: catalog.json\ncube: cube\n")
    assert call("run", job).exit_code == 3
    out = done("index", folder, "-o", tmp_path / "catalog.json")
    assert f"left out {broken.parent.name}" in out.stderr


def stack(folder, *, crs="EPSG:32613", unit="rad"):
    folder.mkdir()
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1} | {
        "height": 8,
        "width": 8,
        "crs": crs,
        "transform": rasterio.Affine(100, 0, 0, 0, -100, 800),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(folder / "20200101-20200113.tif", "w", **profile) as raster:
            raster.write(np.ones((1, 8, 8), "float32"))
            raster.update_tags(WAVELENGTH_METRES="0.0555", DATA_UNITS=unit)
    pattern = ("--pattern", "{reference}-{secondary}.tif", "--track", "A005")
    return ("index", folder, *pattern, "-o", folder.parent / "c.json")


def test_missing_crs_wrong_unit_wrong_pattern(tmp_path):
    assert "has no CRS" in mistake(*stack(tmp_path / "a", crs=None))
    assert "must be in 'rad'" in mistake(*stack(tmp_path / "b", unit="mm"))
    command = stack(tmp_path / "c")
    done(*command)
    assert "give --pattern" in mistake("index", tmp_path / "c")
    assert "needs --track" in mistake(*command[:4])
    assert "matches no file" in mistake(
        *command[:3], "{reference}_{secondary}", *command[4:]
    )
    assert "existing folder" in mistake("index", tmp_path / "nowhere")


def test_searches_that_cannot_be(catalog, tmp_path):
    assert "no interferogram" in mistake("search", catalog, "--orbit", "D001")
    assert "west < east" in mistake("search", catalog, "--bbox", "5,5,1,1")
    assert "4 numbers" in mistake("search", catalog, "--bbox", "5,5")
    assert "filter" in mistake("search", catalog, "--filter", "nonsense")
    assert "cannot be read" in mistake("search", tmp_path / "nowhere.json")
    job = tmp_path / "job.yaml"
    job.write_text(f"source: {catalog}\ncube: c\nsearch: {{orbit: D001}}\n")
    assert "no interferogram" in mistake("run", job)
    assert not (tmp_path / "c").exists()


def test_tracks_do_not_mix(catalog, copy, scene, tmp_path):
    before = state(copy)
    other = scene.cube.isel(pair=[0]).assign_attrs(track="A100")
    write_hyp3_products(other, tmp_path / "products")
    done("index", tmp_path / "products", "-o", tmp_path / "catalog.json")
    text = mistake("ingest", tmp_path / "catalog.json", copy)
    assert "A100" in text and "A005" in text
    for product in (catalog.parent / "products").iterdir():
        if not (tmp_path / "products" / product.name).exists():
            shutil.copytree(product, tmp_path / "products" / product.name)
    done("index", tmp_path / "products", "-o", tmp_path / "catalog.json")
    text = mistake("ingest", tmp_path / "catalog.json", tmp_path / "new")
    assert "A100" in text and "A005" in text
    assert state(copy) == before and not (tmp_path / "new").exists()


def test_cube_stays_as_it_was(catalog, copy, identity, tmp_path):
    before = state(copy)
    wrong = shutil.copytree(identity, tmp_path / "wrong")
    (wrong / "model.safetensors").write_bytes(b"pickle, perhaps")
    job = tmp_path / "job.yaml"
    job.write_text(f"source: {catalog}\ncube: {copy}\nmodel: dncnn\n")
    for sentence, *command in (
        ("neither a shipped model", "correct", copy, "--method", "resnet"),
        ("not a safetensors file", "correct", copy, "--method", wrong),
        (
            "'float16'",
            "correct",
            copy,
            "--method",
            identity,
            "--set",
            "precision=float16",
        ),
        ("weights='nice'", "invert", copy, "--weights", "nice"),
        ("variable='phase'", "invert", copy, "--variable", "phase"),
        ("go together", "invert", copy, "--reference-rows", "1:5"),
        ("first:last", "invert", copy, *area("1-5", "1:5")),
        ("within 0..64", "invert", copy, *area("0:99", "1:5")),
        ("cluster='fast'", "invert", copy, "--cluster", "fast"),
        ("differs", "ingest", catalog, copy, "--resolution", 50),
        ("keys ['model']", "run", job),
        ("there is no cube", "info", tmp_path / "none"),
        ("branches main", "info", copy, "--branch", "x"),
        ("branches main", "export", copy, tmp_path / "z", "--branch", "x"),
        ("is not in the cube", "export", copy, tmp_path / "z", "--variable", "speed"),
        ("must be 0 to 5", "plot", copy, "-o", tmp_path, "--pair", 6),
        ("outside the cube", "plot", copy, "-o", tmp_path, "--point", "1,1"),
        ("2 numbers", "plot", copy, "-o", tmp_path, "--point", "1"),
    ):
        text = mistake(*command)
        assert sentence in text, text
    assert state(copy) == before
    assert not (tmp_path / "z").exists()


def area(rows, columns):
    return ("--reference-rows", rows, "--reference-columns", columns)


def test_job_files_that_are_none(tmp_path):
    job = tmp_path / "job.yaml"
    assert "cannot be read" in mistake("run", job)
    job.write_text("cube: [")
    assert "is not YAML" in mistake("run", job)
    job.write_text("just a word")
    assert "keys and values" in mistake("run", job)
    job.write_text("source: x\ncube: y\ninvert: fast")
    assert "job['invert']='fast'" in mistake("run", job)
    job.write_text("source: x")
    assert "no 'cube'" in mistake("run", job)


def test_bucket_that_refuses(catalog, monkeypatch):
    class Refusal(http.server.BaseHTTPRequestHandler):
        def refuse(self):
            body = b"<Error><Code>AccessDenied</Code></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = refuse  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    try:
        for command in (("info", "s3://b/c"), ("ingest", catalog, "s3://b/c")):
            assert "s3://b/c: access is denied; set AWS" in mistake(*command)
    finally:
        server.shutdown()
        server.server_close()


def test_folder_that_refuses(cube, tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in mistake(
        *("export", cube, tmp_path / "file/z", "--format", "cog")
    )
    assert "file" in mistake("export", cube, tmp_path / "file")
    assert "file" in mistake("plot", cube, "-o", tmp_path / "file")
