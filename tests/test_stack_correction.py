"""The stack network as a correction: windows, tiles and what it leaves alone."""

import numpy as np
import pytest
import torch
import xarray as xr

import cube_denoise as cd
from cube_denoise import store
from cube_denoise.corrections.stack_network import StackNetworkCorrection
from cube_denoise.dry_run import plan_correct
from cube_denoise.ingest import ingest_dataset
from cube_denoise.models import zoo
from cube_denoise.models.autoencoder import (
    SeriesAutoencoder,
    SeriesAutoencoderConfig,
    fill_in_time,
)
from cube_denoise.models.stack import StackConfig, StackNetwork
from cube_denoise.simulate import PairErrors, simulate_stack
from cube_denoise.steps import correct_cube, invert_cube

SMALL = StackConfig(channels=(4, 8), heads=2)


def network() -> StackNetwork:
    """With random weights."""
    torch.manual_seed(1)
    model = StackNetwork(SMALL)
    with torch.no_grad():
        for head in (*model.heads, model.finest):
            head.layer.weight.normal_(0, 0.05)
    return model.eval()


@pytest.fixture(scope="module")
def large() -> xr.Dataset:
    """Larger than a tile along both axes, with gaps."""
    return simulate_stack(
        seed=3, shape=(260, 272), dates=4, pair_errors=PairErrors(gaps=0.1)
    ).cube


def corrected(cube: xr.Dataset, model, **options) -> np.ndarray:
    return cd.correct(cube, model, **options)["corrected_phase"].values


def test_windows_change_nothing(large):
    whole = corrected(large, network(), block=512)
    cut = corrected(large, network(), block=192)
    np.testing.assert_array_equal(whole, cut)
    part = {"y": slice(37, 150), "x": slice(230, 272)}
    np.testing.assert_array_equal(
        corrected(large, network(), region=part, block=128),
        whole[:, part["y"], part["x"]],
    )


def test_data_are_kept_and_changed(large):
    raw = large["unwrapped_phase"].values
    found = corrected(large, network())
    linked = np.isfinite(raw).all(0)
    assert np.isfinite(found[:, linked]).all()
    assert np.isnan(found[np.isnan(raw)]).all()
    assert np.abs(found - raw)[:, linked].mean() > 0.1


class Believing(torch.nn.Module):
    """Takes all it is given for displacement, but for the mean of every date."""

    receptive_radius = None

    def forward(self, series, visible, years, elevation, coherence):
        seen = series - series.mean((2, 3), keepdim=True)
        return seen, torch.ones_like(seen)


@pytest.mark.parametrize("shape", [(90, 110), (300, 520)])
def test_motion_wider_than_a_tile_is_kept(shape):
    full = PairErrors(gaps=0)
    cube = simulate_stack(seed=5, shape=shape, dates=5, snr=1.0, pair_errors=full).cube
    cube = cube.drop_vars(["phase_quantiles", "valid_fraction"], errors="ignore")
    phase = cube["unwrapped_phase"].values
    found = corrected(cube, StackNetworkCorrection(model=Believing()))
    # A constant per pair is no matter: the network knows none.
    missed = found - phase
    missed -= missed.mean((1, 2), keepdims=True)
    assert np.abs(missed).max() < 1e-3 * np.abs(phase).max()


@pytest.mark.parametrize("kind", ["stack", "autoencoder"])
def test_a_model_folder_is_found_by_what_it_sees(tmp_path, kind):
    cube = simulate_stack(seed=4, shape=(40, 48), dates=6).cube
    torch.manual_seed(0)
    config = SeriesAutoencoderConfig(dates=3, channels=4, between=0, decoder=1)
    model = network() if kind == "stack" else SeriesAutoencoder(config).eval()
    folder = zoo.save_model(model, tmp_path / kind, training={}, card="")
    found = cd.correct(cube, folder)["corrected_phase"]
    assert found.attrs["method"] == kind and found.attrs["model_sha256"]
    np.testing.assert_allclose(found.values, corrected(cube, model), atol=1e-4)
    url = tmp_path / "cube"
    ingest_dataset(cube, url)
    (planned,) = plan_correct(url, folder).steps
    assert planned.tasks == 1 and planned.pairs == cube.sizes["pair"]
    assert planned.core_seconds > 0 and planned.memory_per_task > cube.nbytes
    assert correct_cube(url, folder).done == cube.sizes["pair"]
    assert invert_cube(url, weights="none").done
    (planned,) = plan_correct(url, folder).steps
    assert planned.done == cube.sizes["pair"] and not planned.tasks
    kept = store.open_cube(url)
    np.testing.assert_allclose(kept["corrected_phase"], found, atol=1e-4)
    assert correct_cube(url, folder).done == 0


def test_a_finite_view_has_a_halo(large):
    """Tiles of the autoencoder join as if there were none."""
    torch.manual_seed(2)
    config = SeriesAutoencoderConfig(dates=3, channels=4, between=0, decoder=1)
    model = SeriesAutoencoder(config).eval()
    with torch.no_grad():
        model.output.weight.normal_(0, 0.3)
    whole = corrected(large, model, block=512)
    np.testing.assert_array_equal(corrected(large, model, block=192), whole)
    seams = whole[:, :, 250:262] - large["unwrapped_phase"].values[:, :, 250:262]
    steps = np.nanmean(np.abs(np.diff(seams, axis=2)), (0, 1))
    assert steps.max() < 2 * np.median(steps)


def test_gaps_are_filled_in_time():
    series = torch.tensor([0.0, 5.0, 9.0, 9.0, 4.0, 9.0])[None, :, None, None]
    seen = torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.bool)[None, :, None, None]
    years = torch.tensor([[0.0, 1.0, 1.5, 2.0, 3.0, 4.0]])
    found = fill_in_time(series, seen, years).ravel().tolist()
    assert found == [5.0, 5.0, 4.75, 4.5, 4.0, 4.0]
    assert not fill_in_time(series, seen & False, years).any()


def test_few_dates_are_refused():
    cube = simulate_stack(seed=1, shape=(32, 32), dates=3).cube
    with pytest.raises(ValueError, match=r"link 3 dates.*StackNetwork.*4 or more"):
        cd.correct(cube, network())


def test_closure_is_kept(large):
    raw, found = large["unwrapped_phase"].values, corrected(large, network())
    times = [large[n].values for n in ("reference_time", "secondary_time")]
    number = {pair: k for k, pair in enumerate(zip(*times, strict=True))}
    dates = np.unique(times)
    one, two, three = (number[dates[i], dates[j]] for i, j in ((0, 1), (1, 2), (0, 2)))

    def closure(phase):
        return phase[one] + phase[two] - phase[three]

    np.testing.assert_allclose(closure(found), closure(raw), atol=1e-4)
