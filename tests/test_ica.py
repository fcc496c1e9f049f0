"""Independent components: maps known exactly, mixed so that PCA cannot tell them."""

import json
import time

import numpy as np
import pytest

from cube_denoise.correct import correct
from cube_denoise.corrections import find_correction
from cube_denoise.corrections.components import Sample
from cube_denoise.corrections.independent import bootstrap_maps, stable_maps
from cube_denoise.corrections.principal import PrincipalComponents
from tests.test_components import DATES, STEADY, YEARS, cube_of, flat

SHAPE = (50, 60)


def standard(maps):
    maps = maps.reshape(len(maps), -1)
    maps = maps - maps.mean(1, keepdims=True)
    return maps / maps.std(1, keepdims=True)


def maps_apart():
    """A bowl, hills and stripes: far from Gaussian, nearly uncorrelated."""
    y, x = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
    bowl = np.exp(-((y - 14) ** 2 + (x - 15) ** 2) / 50)
    hills = np.sign(np.sin(x / 3.1) * np.sin(y / 2.3))
    stripes = np.sign(np.sin(2 * np.pi * x / 20))
    return standard(np.stack([bowl, hills, stripes]))


def mixed(seed=0, noise=0.05):
    """Three maps of equal strength: any rotation of them is as good to PCA."""
    rng = np.random.default_rng(seed)
    growing = (STEADY - STEADY.mean()) / STEADY.std()
    courses = np.stack([growing, *(flat(rng.normal(size=DATES)) for _ in range(2))])
    maps = maps_apart()
    phase = courses.T @ maps + noise * rng.normal(size=(DATES, maps.shape[1]))
    phase -= phase.mean(0)
    phase -= phase.mean(1, keepdims=True)
    return Sample(phase, YEARS, np.arange(DATES), np.zeros(DATES), None), courses


def match(found, truth):
    """Largest abs(correlation) of each true map with those found."""
    return np.abs(standard(found) @ truth.T / truth.shape[1]).max(0)


def test_it_separates_what_principal_components_mix():
    sample, courses = mixed()
    principal = PrincipalComponents(components=3).separate(sample)
    assert match(principal.maps, maps_apart()).min() < 0.9
    found = find_correction("ica").separate(sample)
    assert len(found.maps) == 3
    assert match(found.maps, maps_apart()).min() > 0.98
    assert (found.stability > 0.9).all()
    alike = np.abs(np.corrcoef(found.courses.T, courses)[:3, 3:])
    assert alike.max(0).min() > 0.98
    model = found.courses @ found.maps
    assert np.square(sample.phase - model).mean() < 0.02 * sample.phase.var()


def test_growing_map_is_kept_and_the_others_go():
    _, courses = mixed()
    growing, noise = (
        (courses[part].T @ maps_apart()[part]).reshape(DATES, *SHAPE)
        for part in (slice(0, 1), slice(1, 3))
    )
    cube = cube_of(growing + noise)
    corrected = correct(cube, "ica")["corrected_phase"].compute()
    verdicts = json.loads(corrected.attrs["verdicts"])
    assert sorted(v["verdict"] for v in verdicts) == ["kept", "removed", "removed"]
    left, truth, removed = (
        p - p.mean((1, 2), keepdims=True)
        for p in (
            corrected.values.astype("f8"),
            cube_of(growing, constants=0.0)["unwrapped_phase"].values.astype("f8"),
            cube_of(noise, constants=0.0)["unwrapped_phase"].values.astype("f8"),
        )
    )
    assert np.vdot(left, truth) / np.vdot(truth, truth) == pytest.approx(1, abs=0.02)
    assert (left - truth).std() < 0.05 * removed.std()


def test_noise_is_less_stable_than_sources():
    rng = np.random.default_rng(6)
    noise = rng.normal(size=(DATES, 3000))
    noise -= noise.mean(0)
    noise -= noise.mean(1, keepdims=True)
    indices = [
        stable_maps(bootstrap_maps(phase, 3, runs=30, seed=0), 30)[1].max(initial=0.0)
        for phase in (mixed()[0].phase, noise)
    ]
    assert indices[0] > 0.9 and indices[1] < 0.5


def test_stability_index_by_hand():
    """Two clusters of known similarity."""
    rng = np.random.default_rng(0)
    basis = standard(rng.normal(size=(40, 4000)))
    one = basis[0] + 0.1 * basis[2:12]
    two = -(basis[1] + 0.3 * basis[12:22])
    pool = standard(np.concatenate([two, one])).astype("float32")
    maps, index = stable_maps(pool, runs=10)
    assert len(maps) == 2
    alike = np.abs(np.corrcoef(pool.astype("float64")))
    for k, inside in enumerate((range(10, 20), range(10))):
        inside = list(inside)
        outside = [n for n in range(20) if n not in inside]
        pairs = [alike[a, b] for a in inside for b in inside if a != b]
        cross = [alike[a, b] for a in inside for b in outside]
        assert index[k] == pytest.approx(np.mean(pairs) - np.mean(cross), abs=1e-5)
        assert any(np.allclose(maps[k], pool[n]) for n in inside)
    assert index[0] > index[1]


def test_too_few_maps_are_no_component():
    maps, index = stable_maps(np.ones((3, 10), "float32"), runs=30)
    assert maps.shape == (0, 10) and index.size == 0


def test_runs_that_do_not_converge_are_left_out(monkeypatch):
    from cube_denoise.corrections import independent

    monkeypatch.setattr(independent, "MOST_ITERATIONS", 1)
    assert bootstrap_maps(mixed()[0].phase, 3, runs=5, seed=0).shape == (0, 3000)
    cube = cube_of(mixed()[0].phase.reshape(DATES, *SHAPE))
    with pytest.warns(UserWarning, match="found 0 components and none of them goes"):
        corrected = correct(cube, "ica", runs=5)["corrected_phase"]
    np.testing.assert_array_equal(corrected, cube["unwrapped_phase"])


def test_unstable_components_stay():
    cube = cube_of(mixed()[0].phase.reshape(DATES, *SHAPE))
    with pytest.warns(UserWarning, match="none of them goes"):
        corrected = correct(cube, "ica", stability=1.0)["corrected_phase"]
    verdicts = json.loads(corrected.attrs["verdicts"])
    assert {v["reason"] for v in verdicts} == {"unstable: cannot be named"}


def test_seed_decides():
    phase = mixed()[0].phase
    one, same, other = (bootstrap_maps(phase, 3, runs=6, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or not np.allclose(one, other)


@pytest.mark.parametrize(
    "options",
    [{"components": 0}, {"components": 0.9}, {"runs": 4}, {"stability": 1.5}],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        find_correction("ica", **options)


def test_it_is_quick():
    rng = np.random.default_rng(1)
    smooth = rng.normal(size=(13, 60, 100)).cumsum(1).cumsum(2) / 30
    start = time.process_time()
    correct(cube_of(smooth), "ica")["corrected_phase"].compute()
    assert time.process_time() - start < 10
