"""Separation of stacks into clusters: every step against what was put in."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import adjusted_rand_score

from cube_denoise.conventions import displacement_to_phase, years_since
from cube_denoise.correct import correct
from cube_denoise.corrections import find_correction
from cube_denoise.corrections.correction import in_turn
from cube_denoise.invert import invert
from cube_denoise.separate import separate
from cube_denoise.separation.clusters import Clusterer, cluster, described
from cube_denoise.separation.coarse import CoarseStack, read_coarse
from cube_denoise.separation.evidence import (
    CLEARLY,
    GROWS,
    SIGNIFICANT,
    growth,
    judge,
    smoothness,
)
from cube_denoise.separation.methods import PrincipalClustering, VAEClustering
from cube_denoise.separation.removal import DateMaps, date_maps, summed_parts
from cube_denoise.separation.sources import Components, unit_maps
from cube_denoise.simulate.assembly import short_pairs

SIDE, DATES = 40, 24
WAVELENGTH = 0.0555


def make_cube(*, noise=0.3, gaps=0.05, seed=3):
    """A steady bowl, delay that goes with elevation, and white noise; and the truth."""
    rng = np.random.default_rng(seed)
    times = np.datetime64("2020-01-03", "s") + np.arange(DATES) * np.timedelta64(
        12, "D"
    )
    years = years_since(times, times[0])
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    bowl = -0.05 * np.exp(-12 * ((x - 0.3) ** 2 + (y + 0.3) ** 2))
    elevation = 500 * (1 + np.sin(4 * x + 1) * np.cos(3 * y))
    pairs = short_pairs(times, 36)
    bowl_phase = displacement_to_phase(bowl, WAVELENGTH)
    white = rng.normal(size=DATES)
    dates = years[:, None, None] * bowl_phase
    dates = dates + white[:, None, None] * (elevation - 500) / 200
    phase = dates[pairs.second] - dates[pairs.first]
    phase += noise * rng.normal(size=phase.shape)
    phase[rng.random(phase.shape) < gaps] = np.nan
    cube = xr.Dataset(
        {
            "unwrapped_phase": (
                ("pair", "y", "x"),
                phase.astype("float32"),
                {"units": "rad"},
            ),
            "elevation": (("y", "x"), elevation.astype("float32")),
        },
        {
            "reference_time": ("pair", times[pairs.first].astype("datetime64[ns]")),
            "secondary_time": ("pair", times[pairs.second].astype("datetime64[ns]")),
        },
        {"wavelength": WAVELENGTH},
    )
    return cube, bowl, white


@pytest.fixture(scope="module")
def simulated():
    return make_cube()


@pytest.fixture(scope="module")
def stack(simulated):
    return read_coarse(simulated[0], side=20)


def flat_stack(*, dates=20, side=12):
    """Coarse stack of nothing, of all pairs of up to three dates apart."""
    first, second = np.nonzero(
        (np.subtract.outer(np.arange(dates), np.arange(dates)) < 0)
        & (np.subtract.outer(np.arange(dates), np.arange(dates)) >= -3)
    )
    y, _ = np.mgrid[:side, :side]
    return CoarseStack(
        phase=np.zeros((first.size, side, side), "float32"),
        known=np.ones((side, side), bool),
        pairs=np.arange(first.size),
        first=first,
        second=second,
        years=np.arange(dates) * 12 / 365.25,
        looks=1,
        spacing=(100.0, 100.0),
        elevation=10.0 * (y % 5),
    )


# --- coarse ---------------------------------------------------------------------------


def test_cells_are_means_and_gaps_are_what_the_dates_say():
    whole, with_gaps = (
        read_coarse(make_cube(noise=0, gaps=g)[0], looks=1, side=0) for g in (0, 0.05)
    )
    assert with_gaps.known.all()
    difference = with_gaps.phase - whole.phase
    difference -= np.median(difference, axis=(1, 2), keepdims=True)
    # Dates at the ends hang on few pairs: a cell that lacks those is bridged.
    assert np.mean(np.abs(difference) < 0.02) > 0.95
    assert np.sqrt(np.mean(difference**2)) < 0.05
    cube = make_cube(noise=0, gaps=0)[0]
    halved = read_coarse(cube, looks=2, side=0)
    raw = cube["unwrapped_phase"].values.reshape(-1, SIDE // 2, 2, SIDE // 2, 2)
    means = raw.mean((2, 4))
    means -= np.median(means, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(halved.phase, means, atol=1e-4)
    assert (read_coarse(cube, side=13).looks, read_coarse(cube, side=40).looks) == (
        4,
        1,
    )


def test_cells_at_the_edge_are_smaller(simulated):
    cube = simulated[0].isel(y=slice(0, 37), x=slice(0, 38))
    found = read_coarse(cube, looks=3, side=0)
    assert found.known.shape == (13, 13) and found.elevation.shape == (13, 13)
    corner = cube["elevation"].values[36:, 36:].mean()
    assert found.elevation[-1, -1] == pytest.approx(corner, rel=1e-6)


def test_what_is_missing_everywhere_is_unknown(simulated):
    cube = simulated[0].copy(deep=True)
    cube["unwrapped_phase"][:, 8:16, :8] = np.nan
    found = read_coarse(cube, looks=2, side=0)
    assert not found.known[4:8, :4].any() and found.known.sum() == 384
    assert not found.phase[:, ~found.known].any() and np.isfinite(found.phase).all()


def test_too_few_pairs_are_refused_with_the_number(simulated):
    cube = simulated[0]
    with pytest.raises(ValueError, match=r"19 pairs with data .* needs 20 pairs"):
        read_coarse(cube.isel(pair=slice(0, 19)), side=20)
    few = cube.isel(pair=cube["secondary_time"].argsort()[:15])
    with pytest.raises(ValueError, match="8 dates"):
        read_coarse(xr.concat([few, few, few], "pair").isel(pair=slice(0, 15)), side=20)
    with pytest.raises(ValueError, match="needs 100 or more"):
        read_coarse(cube, looks=8, side=0)


# --- clusters -------------------------------------------------------------------------


def grouped_maps(seed=0, groups=3, members=15, loners=6):
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(groups, 200))
    maps = [
        s * (p + 0.2 * rng.normal(size=200))
        for p in patterns
        for s in rng.choice([-1.0, 3.0], members)
    ]
    maps += list(rng.normal(size=(loners, 200)))
    labels = np.repeat([*range(groups), -1], [members] * groups + [loners])
    order = rng.permutation(labels.size)
    return unit_maps(np.array(maps))[order], labels[order]


@pytest.mark.parametrize("method", ["fishdbc", "hdbscan"])
def test_groups_are_found_whatever_sign_and_size(method):
    maps, truth = grouped_maps()
    found = cluster(Components(maps, None, None), method=method)
    assert adjusted_rand_score(truth, found.labels) > 0.85
    assert (found.stability > 0.75).all() and len(found.stability) == 3
    sizes = [(found.labels == k).sum() for k in range(3)]
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_allclose(found.maps.std(1), 1)
    np.testing.assert_allclose(found.maps.mean(1), 0, atol=1e-12)


def test_maps_that_come_later_join():
    """One by one or at once: the same clusters."""
    maps, truth = grouped_maps()
    at_once, growing = Clusterer("fishdbc"), Clusterer("fishdbc")
    at_once.add(maps)
    growing.add(maps[:20])
    for one in maps[20:]:
        growing.add(one[None])
    labels = growing.labels()
    assert adjusted_rand_score(at_once.labels(), labels) > 0.95
    assert adjusted_rand_score(truth, labels) > 0.85


def test_clusters_of_one_map_are_joined():
    rng = np.random.default_rng(0)
    one = rng.normal(size=400)
    other = one + 0.6 * rng.normal(size=400)  # r = 0.86
    maps = [p + 0.05 * rng.normal(size=400) for p in (one, other) for _ in range(12)]
    maps += [3 * rng.normal(size=400) + 0 * one for _ in range(4)]
    pool = Components(unit_maps(np.array(maps)), None, None)
    clusterer = Clusterer("fishdbc")
    clusterer.add(pool.maps)
    assert clusterer.labels().max() == 1  # tight enough to be told apart
    found = cluster(pool)
    assert len(found.maps) == 1 and (found.labels[:24] == 0).all()


def test_most_stable_clusters_are_kept():
    maps, truth = grouped_maps()
    rough = grouped_maps(seed=1, groups=1, members=20, loners=0)[0]
    rough = unit_maps(rough + 0.06 * np.random.default_rng(3).normal(size=rough.shape))
    both = Components(np.concatenate([maps, rough]), None, None)
    assert len(cluster(both).maps) == 4
    found = cluster(both, most=3)
    assert len(found.maps) == 3 and (found.labels[len(maps) :] == -1).all()
    assert adjusted_rand_score(truth, found.labels[: len(maps)]) > 0.85


def test_empty_maps_belong_nowhere():
    maps, truth = grouped_maps()
    maps = np.concatenate([np.zeros((3, 200), "float32"), maps])
    for method in ("fishdbc", "hdbscan"):
        labels = cluster(Components(maps, None, None), method=method).labels
        assert (labels[:3] == -1).all()
        assert adjusted_rand_score(truth, labels[3:]) > 0.85
    few = cluster(Components(maps[:6], None, None))
    assert (few.labels == -1).all() and few.maps.shape == (0, 200)


def test_stability_is_within_less_outside():
    maps = unit_maps(np.array([[1, 0, -1.0], [1, 0, -1], [1, -2, 1], [1, -2, 1]]))
    found = described(maps, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(found.stability, 1, atol=1e-6)
    halves = described(maps, np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(halves.stability, -0.5, atol=1e-6)


def test_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fishdbc", None)
    with pytest.raises(ValueError, match=r"cube-denoise\[separation\]"):
        Clusterer("fishdbc")
    with pytest.raises(ValueError, match="clustering='kmeans'"):
        Clusterer("kmeans")


# --- evidence -------------------------------------------------------------------------


def test_growth_is_seen_and_white_courses_are_not():
    rng = np.random.default_rng(0)
    years = np.arange(20) * 12 / 365.25
    rho, p = growth(-3 * years + 0.1 * rng.normal(size=20), years)
    assert rho < -0.9 and p == pytest.approx(0.001)
    found = [growth(rng.normal(size=20), years)[1] for _ in range(30)]
    assert np.mean(np.array(found) < 0.05) < 0.15 and 0.3 < np.mean(found) < 0.7
    assert growth(np.zeros(20), years) == (0.0, 1.0)


def test_seasons_are_no_growth():
    """Of a year and a quarter, in which an annual cycle looks like a trend."""
    rng = np.random.default_rng(0)
    years = np.arange(38) * 12 / 365.25
    season = np.sin(2 * np.pi * years)
    assert abs(np.corrcoef(season, years)[0, 1]) > 0.1
    found = [growth(season + 0.2 * rng.normal(size=38), years)[1] for _ in range(20)]
    assert np.median(found) > 0.2
    rho, p = growth(season + 3 * years, years)
    assert rho > 0.9 and p == pytest.approx(0.001)


def test_smoothness_tells_walks_from_white_noise():
    rng = np.random.default_rng(0)
    lag, p = smoothness(np.cumsum(rng.normal(size=30)))
    assert lag > 0.5 and p < 0.01
    found = [smoothness(rng.normal(size=30))[1] for _ in range(30)]
    assert np.mean(np.array(found) < 0.05) < 0.15
    assert smoothness(np.ones(30)) == (0.0, 1.0)


def test_every_verdict_has_its_reason():
    stack = flat_stack()
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:12, :12]
    random = rng.normal(size=144)
    maps = [
        random,
        stack.elevation.ravel(),
        x.ravel() - 2.0 * y.ravel(),
        random,
        random,
    ]
    white = rng.normal(size=20)
    courses = [
        stack.years,
        white,
        white,
        np.cos(2 * np.pi * stack.years / stack.years[-1]),
        white,
    ]
    amplitudes = stack.differences @ np.array(courses).T
    own = rng.normal(size=(amplitudes.shape[0], 1))  # of pairs, not of dates
    amplitudes = np.concatenate([amplitudes, own], axis=1)
    found = described(
        unit_maps(np.array([*maps, random]).repeat(2, 0)), np.arange(6).repeat(2)
    )
    found = replace(found, stability=np.array([0.9, 0.9, 0.9, 0.9, 0.9, 0.9]))
    seen = partial(judge, stack, found, amplitudes, np.full(6, 0.1))
    assert [(e.verdict, e.reason.split(":")[0]) for e in seen()] == [
        ("kept", "grows with the temporal baseline"),
        ("removed", "follows elevation"),
        ("removed", "a plane"),
        ("kept", "smooth in time"),
        ("removed", "white in time"),
        ("kept", "dates do not explain it"),
    ]
    assert seen()[0].consistency == pytest.approx(1)
    assert seen()[1].elevation == pytest.approx(1, abs=1e-6) or seen()[
        1
    ].elevation == pytest.approx(-1, abs=1e-6)
    assert {e.reason for e in seen(least_stability=0.95)} == {"unstable"}
    asked = seen(keep=[2], remove=[1])
    assert [e.verdict for e in asked[:2]] == ["removed", "kept"]
    assert {e.reason for e in asked[:2]} == {"asked for"}
    with pytest.raises(ValueError, match=r"clusters \[7\]: there are 6"):
        seen(keep=[7])


def test_what_follows_elevation_must_grow_clearly_to_stay():
    """A trend that only many dates make significant is that of the delay."""
    stack = flat_stack()
    rng = np.random.default_rng(3)
    maps = unit_maps(np.array([stack.elevation.ravel(), rng.normal(size=144)]))
    found = described(maps.repeat(2, 0), np.arange(2).repeat(2))
    found = replace(found, stability=np.array([0.9, 0.9]))
    rate = (stack.years - stack.years.mean()) / stack.years.std()
    while True:
        course = 0.6 * rate + rng.normal(size=rate.size)
        rho, p = growth(course, stack.years)
        if CLEARLY > rho > GROWS and p < SIGNIFICANT:
            break
    for trend, verdicts in ((0, ("removed", "kept")), (3, ("kept", "kept"))):
        amplitude = stack.differences @ (course + trend * rate)
        both = np.stack([amplitude, amplitude], 1)
        evidence = judge(stack, found, both, np.full(2, 0.1))
        assert tuple(e.verdict for e in evidence) == verdicts
        assert evidence[1].reason == "grows with the temporal baseline"


# --- removal --------------------------------------------------------------------------


def test_date_maps_do_not_depend_on_the_window():
    rng = np.random.default_rng(0)
    maps = DateMaps(
        rng.normal(size=(3, 5, 6)).astype("float32"), 4, np.zeros(1), np.ones(1)
    )
    whole = maps.at({"y": slice(0, 20), "x": slice(0, 23)})
    part = maps.at({"y": slice(7, 13), "x": slice(5, 22)})
    assert np.array_equal(part, whole[:, 7:13, 5:22])


def test_planes_are_interpolated_exactly():
    y, x = (np.mgrid[:5, :6] + 0.5) * 4
    maps = DateMaps((2 * y - x)[None].astype("float32"), 4, np.zeros(1), np.ones(1))
    found = maps.at({"y": slice(2, 18), "x": slice(2, 22)})[0]
    rows, columns = np.mgrid[2:18, 2:22] + 0.5
    np.testing.assert_allclose(found, 2 * rows - columns, atol=1e-5)


def test_what_goes_of_dates_goes_whole(simulated, stack):
    """What closes is removed as it is; its median stays."""
    rng = np.random.default_rng(0)
    dates = rng.normal(size=(DATES, stack.known.sum()))
    removed = stack.differences @ dates
    maps = date_maps(simulated[0], stack, removed)
    found = stack.differences @ maps.maps.reshape(DATES, -1)
    expected = removed - (stack.differences @ np.median(dates, axis=1))[:, None]
    shift = found - expected
    np.testing.assert_allclose(shift, shift[:, :1].repeat(shift.shape[1], 1), atol=1e-4)


# --- methods --------------------------------------------------------------------------


def slope_and_error(cube, phase, bowl):
    found = invert(
        cube.assign(corrected_phase=phase),
        weights="none",
        variable="corrected_phase",
        reference={"y": slice(30, 38), "x": slice(0, 8)},
    )["velocity"].values
    inside = bowl < 0.2 * bowl.min()
    there = np.isfinite(found)
    assert there.mean() > 0.9
    slope = np.polyfit(bowl[inside & there], found[inside & there], 1)[0]
    return slope, np.std((found - bowl)[~inside & there])


@pytest.mark.parametrize("method", ["pca", "ica"])
def test_stratified_delay_goes_and_the_bowl_stays(method, simulated):
    cube, bowl, white = simulated
    found = separate(cube, method=method, components=3)
    table = found.clusters
    gone = table.isel(cluster=(table["verdict"] == "removed").values)
    assert (np.abs(gone["elevation"]) > 0.9).any()
    k = int(np.abs(gone["elevation"]).argmax())
    assert abs(np.corrcoef(gone["course"][:, k], white)[0, 1]) > 0.95
    raw = slope_and_error(cube, cube["unwrapped_phase"], bowl)
    slope, error = slope_and_error(cube, found.corrected["corrected_phase"], bowl)
    assert abs(slope - 1) < max(0.1, abs(raw[0] - 1))
    assert error < 0.7 * raw[1]


@pytest.mark.filterwarnings("ignore:nmf-clustering found")
def test_non_negative_factors_are_clustered_alike(simulated):
    cube = simulated[0]
    found = separate(cube, method="nmf", components=3)
    table = found.clusters.isel(cluster=(found.clusters["stability"] < 0.2).values)
    assert (table["verdict"] == "kept").all() and (table["reason"] == "unstable").all()
    assert found.clusters.sizes["cluster"] <= 3


def test_closure_and_gaps_stay(simulated):
    cube = simulated[0]
    phase = correct(cube, "pca-clustering")["corrected_phase"]
    removed = cube["unwrapped_phase"] - phase
    assert (np.isfinite(phase) == np.isfinite(cube["unwrapped_phase"])).all()
    first, second = cube["reference_time"].values, cube["secondary_time"].values
    for k in range(0, cube.sizes["pair"], 9):
        for m in np.flatnonzero(first == second[k]):
            long = (first == first[k]) & (second == second[m])
            if long.any():
                loop = removed[k] + removed[m] - removed[int(np.flatnonzero(long)[0])]
                assert float(np.abs(loop).max()) < 1e-4


def test_blocks_and_seeds_do_not_matter_twice(simulated):
    cube = simulated[0]
    found = [
        correct(cube, "ica-clustering", block=b, seed=4)["corrected_phase"].values
        for b in (1024, 17)
    ]
    assert np.array_equal(*found, equal_nan=True)
    part = correct(cube, "ica-clustering", seed=4, region={"y": slice(3, 21)})
    assert np.array_equal(part["corrected_phase"], found[0][:, 3:21], equal_nan=True)


def test_a_person_overrules(simulated):
    cube = simulated[0]
    table = separate(cube, method="pca", components=3).clusters
    numbers = table["cluster"].values.tolist()
    with pytest.warns(UserWarning, match="none of them goes"):
        kept = separate(cube, method="pca", components=3, keep=numbers)
    assert (kept.clusters["reason"] == "asked for").all()
    assert np.array_equal(
        kept.corrected["corrected_phase"], cube["unwrapped_phase"], equal_nan=True
    )
    gone = separate(cube, method="pca", components=3, remove=numbers).clusters
    assert (gone["verdict"] == "removed").all()
    with pytest.raises(ValueError, match="can only stay or go"):
        find_correction("pca-clustering", keep=(1,), remove=(1,))


def test_table_names_its_dimensions(simulated):
    cube = simulated[0]
    table = separate(cube, method="pca", components=3, looks=4).clusters
    assert table["map"].dims == ("cluster", "y", "x")
    assert table["map"].shape[1:] == (10, 10) and table.attrs["looks"] == 4
    assert table["amplitude"].dims == ("pair", "cluster")
    # The amplitudes of pairs are differences of the courses, as far as dates go.
    assert table["course"].dims == ("time", "cluster")
    assert {"growth", "growth_p", "verdict", "reason"} <= set(table.data_vars)


@pytest.mark.parametrize("tile", [10, 40])
def test_autoencoder_splits_pairs_seed_by_seed(simulated, tile):
    """Whole scenes and overlapping tiles; the same seed gives the same."""
    cube = simulated[0].isel(pair=slice(0, 24))
    method = VAEClustering(
        epochs=1, tile=tile, looks=2, components=2, latent=2, stability=0.0, seed=3
    )
    one, again = (method.separated(cube, in_turn) for _ in range(2))
    parts = one.components.parts
    assert parts.shape == (2 * cube.sizes["pair"], 20, 20)
    assert np.array_equal(parts, again.components.parts)
    assert np.array_equal(one.clusters.labels, again.clusters.labels)
    assert np.isfinite(parts).all() and parts.any()
    assert one.parts.shape == (len(one.evidence), len(parts) // 2, 400)
    assert one.fit["epochs"] == 1


def test_members_of_a_pair_are_summed(stack):
    """As the paper removes them, by option."""
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(2 * len(stack.phase), *stack.known.shape))
    pair = np.repeat(np.arange(len(stack.phase)), 2)
    maps = unit_maps(parts[:, stack.known])
    found = described(maps, np.resize([0, 0, 0, 1, -1], len(maps)))
    taken = summed_parts(stack, Components(maps, pair, parts), found)
    assert np.allclose(taken[0, 0], (parts[0] + parts[1])[stack.known])
    assert np.allclose(taken[0, 1], parts[2][stack.known])
    assert np.allclose(taken[1, 1], parts[3][stack.known])
    assert not taken[1, 0].any() and not taken[1, 2].any()
    assert summed_parts(stack, Components(maps, None, None), found) is None


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("pca-clustering", {"components": 0}, "components=0"),
        ("pca-clustering", {"clustering": "kmeans"}, "clustering='kmeans'"),
        ("ica-clustering", {"runs": 2}, "runs=2"),
        ("nmf-clustering", {"stability": 2.0}, "stability=2.0"),
        ("nmf-clustering", {"looks": -1}, "looks=-1"),
        ("vae-clustering", {"arch": "gru"}, "arch='gru'"),
        ("vae-clustering", {"tile": 7}, "tile=7"),
        ("vae-clustering", {"runs": 7}, "has the options"),
    ],
)
def test_bad_options_are_named(name, options, text):
    with pytest.raises(ValueError, match=text):
        find_correction(name, **options)


def test_too_many_components_are_named(simulated):
    cube = simulated[0].isel(pair=slice(0, 24))
    with pytest.raises(ValueError, match="components=9 of 24 pairs: at most 8"):
        separate(cube, method="pca", components=9)
    with pytest.raises(ValueError, match="method='som'"):
        separate(cube, method="som")


def test_flat_stacks_stay(simulated):
    cube = simulated[0]
    flat = cube.assign(unwrapped_phase=cube["unwrapped_phase"] * 0)
    with pytest.warns(UserWarning, match="none of them goes"):
        phase = correct(flat, PrincipalClustering())["corrected_phase"]
    assert np.array_equal(phase, flat["unwrapped_phase"], equal_nan=True)
