"""The task of the stack network: samples, learning and scores."""

from functools import partial

import numpy as np
import pytest
import torch

from cube_denoise.models import registry, zoo
from cube_denoise.models import stack_features as features
from cube_denoise.models.autoencoder import SeriesAutoencoder, SeriesAutoencoderConfig
from cube_denoise.models.registry import Variant
from cube_denoise.models.stack import StackConfig, StackNetwork
from cube_denoise.stack_samples import StackSampling
from cube_denoise.training import recipe, run, stacks
from cube_denoise.training.recipe import Recipe
from cube_denoise.training.series import REST, SeriesTask
from cube_denoise.training.stacks import StackTask, centred, held_out_scores
from cube_denoise.training.task import Setup

FEW = StackSampling(sides=(32,), dates=(5, 8), volume=32 * 32 * 16, bank=3)
TASK = StackTask(sampling=FEW)
TINY = {"channels": (8, 12), "heads": 2}


class Believing(torch.nn.Module):
    """Takes all it is given for displacement."""

    receptive_radius = None

    def forward(self, series, visible, years, elevation, coherence):
        return series, torch.full_like(series, 1e9)


class Denying(torch.nn.Module):
    """Sees no displacement at all, and is sure of it."""

    receptive_radius = None

    def forward(self, series, visible, years, elevation, coherence):
        return 0 * series, 0 * series


def setup(**options) -> Setup:
    return Setup(StackConfig(**TINY), 0, **options)


def test_batches_depend_on_split_seed_and_number_alone():
    first, again = (TASK.draw(setup(), "train", 3) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first.years, TASK.draw(setup(), "train", 4).years)
    held = TASK.draw(setup(), "validation", 3)
    assert held.series.shape != first.series.shape or not torch.equal(
        held.series, first.series
    )


def test_a_recipe_of_pairs_is_refused():
    with pytest.raises(ValueError, match="recipe='dncnn-paper'"):
        TASK.draw(setup(recipe="dncnn-paper"), "train", 0)


def test_the_loss_prefers_the_truth():
    batch = TASK.draw(setup(), "train", 0)

    class Knowing(torch.nn.Module):
        def forward(self, *given):
            dates = batch.visible.any(3).any(2)
            return features.centred(batch.displacement, dates), 1e-3 + 0 * batch.series

    exact = TASK.loss(Knowing(), batch)
    assert exact < TASK.loss(StackNetwork(StackConfig(**TINY)), batch)


def test_scores_of_what_is_known():
    kept, lost = (held_out_scores(m, count=3) for m in (Believing(), Denying()))
    assert kept["rms_error_reduction"] == pytest.approx(0, abs=1e-6)
    assert kept["coverage_68"] == 1
    assert lost["amplitude_slope"] == 0
    assert lost["false_alarm_corrected_mm"] == 0
    assert lost["coverage_68"] < 0.01
    assert kept["false_alarm_corrected_mm"] == kept["false_alarm_raw_mm"] > 1


def test_centred_in_space_and_time():
    series = (
        np.random.default_rng(0).normal(size=(5, 6, 7)) + np.arange(5)[:, None, None]
    )
    np.testing.assert_allclose(centred(series).mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(centred(series).mean((1, 2)), 0, atol=1e-12)
    series[2, 3, 4] = np.nan
    assert np.isnan(centred(series)).sum() == 1


def test_training_makes_a_model_that_corrects(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.VARIANTS, "stack-tiny", Variant("StackNetwork", TINY))
    settings = Recipe(task=TASK, steps=12, evaluate_every=6, evaluation_batches=2)
    monkeypatch.setitem(recipe.RECIPES, "stack-tiny", settings)
    monkeypatch.setattr(stacks, "held_out_scores", lambda model: {"amplitude_slope": 1})
    for name in ("calibrated", "with_trend_share"):
        monkeypatch.setattr(stacks, name, lambda model: model)
    folder = run.train("stack-tiny", tmp_path / "made", device="cpu", threads=1)
    assert isinstance(zoo.load_model(folder), StackNetwork)
    assert zoo.what_it_sees(folder) == "stack"
    assert "all dates at once" in (folder / "README.md").read_text()


def test_series_of_the_autoencoder():
    sampling = StackSampling(
        sides=(32,), dates=(3, 3), volume=32 * 32 * 6, bank=3, hiding=0, gappy=0
    )
    task = SeriesTask(sampling=sampling)
    config = SeriesAutoencoderConfig(dates=3, channels=4, between=0, decoder=1)
    given = Setup(config, 0)
    batch = task.draw(given, "train", 1)
    assert batch.series.shape == (2, 3, 32, 32)
    assert not batch.series[:, 0].any()
    assert batch.elevation.min() == 0 and batch.elevation.max() == 1
    exact = task.loss(lambda series, elevation: batch.displacement, batch)
    assert float(exact) == pytest.approx(np.log(REST), abs=1e-6)
    # What removes nothing errs by the noise, whatever its size.
    nothing = task.loss(lambda series, elevation: series[:, -1:], batch)
    assert float(nothing) == pytest.approx(np.log(1 + REST**2) / 2, abs=1e-6)
    with pytest.raises(ValueError, match=r"sampling.dates=\(3, 3\) must be \(9, 9\)"):
        task.draw(Setup(SeriesAutoencoderConfig(), 0), "train", 0)


def test_scores_of_an_autoencoder(monkeypatch):
    torch.manual_seed(0)
    config = SeriesAutoencoderConfig(dates=3, channels=4, between=0, decoder=1)
    few = partial(held_out_scores, count=3)
    monkeypatch.setattr("cube_denoise.training.series.held_out_scores", few)
    found = SeriesTask().scores(SeriesAutoencoder(config).eval())
    # A new one sees no displacement.
    assert found["amplitude_slope"] == 0 and found["false_alarm_corrected_mm"] == 0
