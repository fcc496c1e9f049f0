"""An inversion that goes on from a state, against one of everything."""

from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  (the .odc accessor)
import pytest
import xarray as xr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cube_denoise import append as appending
from cube_denoise import extend, store
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR
from cube_denoise.ingest import ingest_dataset
from cube_denoise.inversion import continuation as states
from cube_denoise.inversion.elimination import eliminate
from cube_denoise.inversion.incremental import Continued, resume
from cube_denoise.inversion.solver import solve
from cube_denoise.inversion_window import MAPS, Settings
from cube_denoise.invert import invert
from cube_denoise.last_inversion import KEPT
from cube_denoise.pair_sources import ArrayPairs
from cube_denoise.series_sums import maps_of
from cube_denoise.steps import correct_cube, invert_cube
from cube_denoise.time_models import linear_design
from cube_denoise.velocity import fit_model
from cube_denoise.versions import diff

WAVELENGTH = 0.0555
METRES = WAVELENGTH / (4 * np.pi)
STEP = 8
"""Dates between states, in place of `store.SERIES_DATES`."""
SHAPE = (10, 8)
CORNER = {"y": [0, 4], "x": [0, 4]}
START = np.datetime64("2019-01-06", "s")
TWO = Workers("threads", count=2)


# The arithmetic.


def network(
    rng: np.random.Generator, dates: int, neighbours: int, extra: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of near dates, some left out, and a few of any dates."""
    pairs = {
        (i, i + k)
        for k in range(1, neighbours + 1)
        for i in range(dates - k)
        if rng.random() < 0.85
    }
    for _ in range(extra):
        i, j = sorted(rng.choice(dates, 2, replace=False).tolist())
        pairs.add((i, j))
    first, second = np.array(sorted(pairs)).T
    mixed = rng.permutation(first.size)
    return first[mixed], second[mixed]


def phases(
    rng: np.random.Generator,
    first: np.ndarray,
    second: np.ndarray,
    dates: int,
    pixels: int,
    missing: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Phase, with gaps, and coherence."""
    x = np.cumsum(rng.normal(0, 2, (dates, pixels)), 0)
    phase = x[second] - x[first] + rng.normal(0, 0.4, (first.size, pixels))
    phase[rng.random(phase.shape) < missing] = np.nan
    phase[:, 0] = np.nan
    coherence = rng.uniform(0.0, 1.0, phase.shape)
    return phase.astype("float32"), coherence.astype("float32")


def went_on(
    plan: states.Continuation,
    phase: np.ndarray,
    coherence: np.ndarray,
    years: np.ndarray,
    weights: str,
    state: np.ndarray | None = None,
) -> Continued:
    return resume(
        np.ascontiguousarray(phase[plan.pairs]),
        plan,
        years=years[plan.begin :],
        state=state,
        coherence=np.ascontiguousarray(coherence[plan.pairs]),
        weights=weights,
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    dates=st.integers(6, 30),
    neighbours=st.integers(1, 4),
    extra=st.integers(0, 2),
    missing=st.sampled_from([0.0, 0.2, 0.6]),
    weights=st.sampled_from(["none", "coherence", "variance"]),
    first_origin=st.booleans(),
)
@example(1, 30, 1, 0, 0.2, "coherence", False)
def test_every_state_leads_to_the_same_end(
    seed: int,
    dates: int,
    neighbours: int,
    extra: int,
    missing: float,
    weights: str,
    first_origin: bool,
) -> None:
    """The state and its sums hold all there is to know of older pairs."""
    rng = np.random.default_rng(seed)
    first, second = network(rng, dates, neighbours, extra)
    origin = 0 if first_origin else int(rng.integers(dates))
    phase, coherence = phases(rng, first, second, dates, 70, missing)
    years = np.cumsum(rng.uniform(0.02, 0.1, dates))
    years -= years[0]
    full = solve(
        phase,
        eliminate(first, second, dates, origin),
        coherence=coherence,
        weights=weights,
        years=years,
        errors=True,
    )
    saves = np.unique(rng.integers(1, dates, 4))
    whole = states.continuation(first, second, dates, origin, saves=saves)
    begun = went_on(whole, phase, coherence, years, weights)
    for k, found in enumerate([begun, *[None] * saves.size]):
        begin = 0 if k == 0 else int(saves[k - 1])
        if found is None:
            plan = states.continuation(
                *(first, second, dates, origin),
                begin=begin,
                saves=saves[k:],
                rows=whole.rows,
            )
            taken = states.taken(first, second, origin)
            assert (taken[plan.pairs] >= begin).all()
            state = begun.states[k - 1]
            found = went_on(plan, phase, coherence, years, weights, state)
            np.testing.assert_allclose(
                found.states, begun.states[k:], rtol=1e-7, atol=1e-9
            )
        np.testing.assert_allclose(found.phase, full.phase[begin:], atol=2e-5)
        np.testing.assert_allclose(
            found.phase_std, full.phase_std[begin:], rtol=1e-4, atol=1e-6
        )
        maps = maps_of(found.sums, years, Settings(weights=weights), WAVELENGTH)
        np.testing.assert_array_equal(maps["pair_count"], full.pair_count)
        np.testing.assert_array_equal(maps["gap_count"], full.gap_count)
        np.testing.assert_allclose(
            maps["temporal_coherence"], full.temporal_coherence, atol=1e-5
        )
        np.testing.assert_allclose(maps["residual_rms"], full.residual_rms, atol=1e-5)
        fit = fit_model(
            -METRES * full.phase.astype("float64"),
            linear_design(years),
            propagated=np.nan_to_num(full.rate_variance) * METRES**2,
            expected=np.nan_to_num(full.scatter) * METRES**2,
        )
        np.testing.assert_allclose(maps["velocity"], fit.velocity, atol=1e-6)
        np.testing.assert_allclose(
            maps["velocity_std"], fit.velocity_std, rtol=1e-3, atol=2e-5
        )


def test_older_dates_move_no_more_than_the_frontier() -> None:
    """What lets an update leave older dates as they are."""
    rng = np.random.default_rng(5)
    first, second = network(rng, 40, 3, 0)
    phase, coherence = phases(rng, first, second, 40, 64, 0.1)
    begin = 20
    series = []
    for _ in range(2):
        plan = eliminate(first, second, 40, 0)
        found = solve(phase, plan, coherence=coherence, weights="coherence")
        series.append(found.phase[:, 1:])
        late = states.taken(first, second, 0) >= begin
        phase[late] += rng.normal(0, 3, (late.sum(), 64)).astype("float32")
    end = states.frontier_at(first, second, 0, begin)
    change = np.abs(series[1] - series[0])
    bound = np.fmax.reduce(change[begin:end])
    assert np.nanmin(bound) > 0.01
    known = np.isfinite(change[:begin]) & np.isfinite(bound)
    assert known.mean() > 0.9
    assert (change[:begin] <= bound + 1e-5)[known].all()


def test_too_few_rows_are_refused() -> None:
    first, second = np.array([0, 1, 1, 2]), np.array([1, 2, 3, 3])
    with pytest.raises(ValueError, match="do not hold"):
        states.continuation(first, second, 4, 0, saves=np.array([2]), rows=3)


# Cubes.


@pytest.fixture(autouse=True)
def _close_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SERIES_DATES", STEP)
    monkeypatch.setattr("cube_denoise.store.layout.SERIES_DATES", STEP)
    monkeypatch.setattr(extend, "WORTH", 10.0)
    monkeypatch.setattr(extend, "LEAD", (0, 4))  # too near at times


def stack(
    dates: int,
    seed: int = 0,
    neighbours: int = 2,
    shape: tuple[int, int] = SHAPE,
) -> xr.Dataset:
    """Pairs of near dates in order of their later date, with gaps of all kinds.

    The corner (`CORNER`) has none.
    """
    rng = np.random.default_rng(seed)
    pairs = [
        (j - k, j) for j in range(dates) for k in range(1, neighbours + 1) if j >= k
    ]
    first, second = np.array(pairs).T
    x = np.cumsum(rng.normal(0, 0.5, (dates, *shape)), 0)
    phase = x[second] - x[first] + rng.normal(0, 0.3, (first.size, *shape))
    whole = phase[:, :4, :4].copy()
    phase[rng.random(phase.shape) < 0.05] = np.nan
    phase[:, 5, 5] = np.nan
    phase[: first.size // 2, 6, 6] = np.nan  # linked to nothing for a while
    phase[(second > 12) & (first < 16), 7, 7] = np.nan
    phase[:, :4, :4] = whole
    coherence = rng.uniform(0.3, 0.95, phase.shape)
    times = START + np.arange(dates) * np.timedelta64(12 * 86400, "s")
    dims = (PAIR, "y", "x")
    return xr.Dataset(
        {
            "unwrapped_phase": (dims, phase.astype("float32")),
            "coherence": (dims, coherence.astype("float32")),
        },
        coords={
            "reference_time": (PAIR, times[first]),
            "secondary_time": (PAIR, times[second]),
            "y": 6e6 - 80.0 * np.arange(shape[0]),
            "x": 5e5 + 80.0 * np.arange(shape[1]),
        },
        attrs={"wavelength": WAVELENGTH, "track": "1"},
    ).odc.assign_crs("EPSG:32630")


def until(whole: xr.Dataset, date: int) -> xr.Dataset:
    """Pairs of the first dates."""
    end = START + date * np.timedelta64(12 * 86400, "s")
    return whole.isel({PAIR: np.flatnonzero(whole["secondary_time"].values < end)})


def grow(url: Path, whole: xr.Dataset, **options: Any) -> str:
    """Add what a cube lacks of a stack, invert; what the history says of it."""
    ingest_dataset(whole, url, workers=TWO, chunk=8, shard=8)
    return inverted(url, **options)


def inverted(url: Path, **options: Any) -> str:
    invert_cube(url, reference=CORNER, workers=TWO, **options)
    return str(store.history(url)[0]["message"])


def check(url: Path, **options: Any) -> None:
    """The cube shows what an inversion in full gives."""
    cube = store.open_cube(url)
    full = invert(cube, reference=CORNER, **options).compute()
    for name in ("displacement", *MAPS):
        np.testing.assert_allclose(
            *(cube[name], full[name]),
            atol={"velocity_std": 2e-6}.get(name, 1e-6),
            rtol=1e-5 if name not in ("displacement", "velocity") else 0,
            err_msg=name,
        )
    np.testing.assert_array_equal(cube["time"], full["time"])
    drift = float(cube["inversion_drift"].max())
    assert drift <= extend.MOST_DRIFT
    # Standard deviations of older dates are of the residuals of then.
    stds = cube["displacement_std"].values, full["displacement_std"].values
    np.testing.assert_array_equal(np.isnan(stds[0]) & ~np.isnan(stds[1]), False)
    np.testing.assert_allclose(stds[0][-4:], stds[1][-4:], rtol=1e-4, atol=1e-7)


def change(
    url: Path,
    some: xr.Dataset,
    *,
    replaced: list[tuple[str, str]] | None = None,
    withdrawn: list[tuple[str, str]] | None = None,
    version: int = 1,
) -> None:
    """Put pairs into a cube, in the place of others; take others out."""
    base, cube = store.newest(url)
    dates = [
        [str(v)[:10] for v in cube[name].values]
        for name in ("reference_time", "secondary_time")
    ]
    place = {key: k for k, key in enumerate(zip(*dates, strict=True))}
    keys = list(
        zip(
            *(
                [str(v)[:10] for v in some[name].values]
                for name in ("reference_time", "secondary_time")
            ),
            strict=True,
        )
    )
    appending.append(
        url,
        appending.NewPairs(
            some["reference_time"].values,
            some["secondary_time"].values,
            np.zeros(len(keys)),
            [{"id": str(k), "key": [*k, "1"], "version": version} for k in keys],
        ),
        ArrayPairs(some, 8),
        base=base,
        branch="main",
        asked={"version": version},
        workers=TWO,
        replaced={keys.index(k): place[k] for k in replaced or []},
        withdrawn=[place[k] for k in withdrawn or []],
    )


def key(i: int, j: int) -> tuple[str, str]:
    times = [START + k * np.timedelta64(12 * 86400, "s") for k in (i, j)]
    return str(times[0])[:10], str(times[1])[:10]


@pytest.mark.slow
def test_growing_one_by_one(tmp_path: Path) -> None:
    whole, url = stack(44), tmp_path / "cube"
    told = [grow(url, until(whole, date)) for date in range(30, 45)]
    check(url)
    assert "from" not in told[0] and all("from" in message for message in told[1:])
    assert "from 2020-01-25" in told[-1]  # date 32


def test_each_step_is_the_full_inversion(tmp_path: Path) -> None:
    whole, url = stack(40, seed=3), tmp_path / "cube"
    for date in (25, 26, 31, 40):
        grow(url, until(whole, date))
        check(url)


def test_corrected_pairs(tmp_path: Path) -> None:
    """A correction of each pair by itself leaves the older ones as they were."""
    whole, url = stack(40, seed=21), tmp_path / "cube"
    for date in (38, 40):
        ingest_dataset(until(whole, date), url, workers=TWO, chunk=8, shard=8)
        correct_cube(url, "ramp", workers=TWO)
        told = inverted(url)
    assert "corrected_phase, dates from" in told
    check(url)


@pytest.mark.parametrize(
    "weights", [pytest.param("none", marks=pytest.mark.slow), "variance"]
)
def test_other_weights(tmp_path: Path, weights: str) -> None:
    whole, url = stack(34, seed=4), tmp_path / "cube"
    for date in (32, 34):
        told = grow(url, until(whole, date), weights=weights)
    assert "from" in told
    check(url, weights=weights)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))]
)
def test_random_growth(tmp_path: Path, seed: int) -> None:
    """Pairs come in any order, late ones too, and some go or are made anew."""
    rng = np.random.default_rng(seed)
    whole = stack(36, seed=int(rng.integers(2**31)))
    url = tmp_path / "cube"
    whole["unwrapped_phase"].values[:, 8:] = np.where(
        rng.random((whole.sizes[PAIR], 2, SHAPE[1])) < 0.5,
        np.nan,
        whole["unwrapped_phase"].values[:, 8:],
    )
    there = until(whole, 30)
    late = rng.random(there.sizes[PAIR]) < 0.05
    grow(url, there.isel({PAIR: np.flatnonzero(~late)}))
    ingest_dataset(whole, url, workers=TWO)
    inverted(url)
    check(url)
    cube = store.open_cube(url)
    k = int(rng.integers(whole.sizes[PAIR]))
    picked = cube.isel({PAIR: [k]})
    name = (str(picked["reference_time"].values[0])[:10],)
    name += (str(picked["secondary_time"].values[0])[:10],)
    if rng.random() < 0.5:
        change(url, whole.isel({PAIR: []}), withdrawn=[name])
    else:
        j = [i for i in range(whole.sizes[PAIR]) if _named(whole, i) == name]
        anew = whole.isel({PAIR: j})
        anew["unwrapped_phase"] = anew["unwrapped_phase"] + 0.5
        change(url, anew, replaced=[name], version=2)
    inverted(url)
    check(url)


def _named(data: xr.Dataset, k: int) -> tuple[str, str]:
    one, two = data["reference_time"].values[k], data["secondary_time"].values[k]
    return str(one)[:10], str(two)[:10]


def test_late_replaced_and_withdrawn_pairs(tmp_path: Path) -> None:
    whole, url = stack(44, seed=7), tmp_path / "cube"
    names = [_named(whole, k) for k in range(whole.sizes[PAIR])]
    late = names.index(key(27, 29))
    grow(url, whole.drop_isel({PAIR: [late]}))
    told = grow(url, whole)
    assert "from 2019-07" in told  # date 16, the last well before date 27
    check(url)
    anew = whole.isel({PAIR: [names.index(key(40, 41))]})
    anew["unwrapped_phase"] = anew["unwrapped_phase"] + 0.7
    change(url, anew, replaced=[key(40, 41)], version=2)
    told = inverted(url)
    assert "from 2020-0" in told
    check(url)
    change(url, whole.isel({PAIR: []}), withdrawn=[key(41, 43), key(42, 43)])
    inverted(url)
    assert store.open_cube(url).sizes["time"] == 43
    check(url)
    change(url, whole.isel({PAIR: []}), withdrawn=[key(0, 1), key(0, 2)])
    assert "from" not in inverted(url)  # another reference date
    check(url)


@pytest.mark.slow
def test_a_late_date(tmp_path: Path) -> None:
    """Pairs of a date come after those of later dates: the later ones change place."""
    whole, url = stack(44, seed=25), tmp_path / "cube"
    late = [k for k, d in enumerate(_dates(whole)) if 35 in map(_date, d)]
    grow(url, whole.drop_isel({PAIR: late}))
    assert store.open_cube(url).sizes["time"] == 43
    told = grow(url, whole)
    assert "from 2019-10-21" in told  # date 24
    assert store.open_cube(url).sizes["time"] == 44
    check(url)


def test_blocks_and_order_do_not_matter(tmp_path: Path) -> None:
    whole = stack(40, seed=9, shape=(10, 14))
    found = []
    for name, chunk in (("one", 8), ("other", 64)):
        url = tmp_path / name
        for date in (36, 40):
            part = until(whole, date)
            if name == "other":
                part = part.isel({PAIR: slice(None, None, -1)})
            ingest_dataset(part, url, workers=TWO, chunk=chunk, shard=chunk)
            inverted(url)
        found.append(store.open_cube(url))
    for name in ("displacement", *MAPS):
        np.testing.assert_allclose(
            found[0][name], found[1][name], rtol=1e-6, atol=1e-7, err_msg=name
        )


def test_a_subset_becomes_linked(tmp_path: Path) -> None:
    """A pair between new dates can give old dates a displacement."""
    whole, url = stack(40, seed=11), tmp_path / "cube"
    values = whole["unwrapped_phase"].values
    # Pixel 9, 5: odd and even dates are linked by the last pair alone.
    odd = np.array([(_date(a) + _date(b)) % 2 for a, b in _dates(whole)], bool)
    values[odd, 9, 5] = np.nan
    values[~odd, 9, 5] = 1.0
    values[[k for k, d in enumerate(_dates(whole)) if _date(d[1]) == 39], 9, 5] = 1.0
    grow(url, until(whole, 39))
    before = store.open_cube(url)["displacement"].values[:, 9, 5]
    assert np.isnan(before[1::2]).all() and np.isfinite(before[::2]).all()
    grow(url, whole)
    assert np.isfinite(store.open_cube(url)["displacement"].values[:, 9, 5]).all()
    check(url)


def _dates(data: xr.Dataset) -> list[tuple[Any, Any]]:
    names = ("reference_time", "secondary_time")
    return list(zip(*(data[n].values for n in names), strict=True))


def _date(time: Any) -> int:
    return int((time - START) / np.timedelta64(12 * 86400, "s"))


def test_data_where_there_was_none(tmp_path: Path) -> None:
    """The reference date of a pixel is zero from its first pair on."""
    whole, url = stack(40, seed=13), tmp_path / "cube"
    values = whole["unwrapped_phase"].values
    late = whole["secondary_time"].values >= START + 38 * np.timedelta64(
        12 * 86400, "s"
    )
    values[~late, 9, 3] = np.nan
    values[late, 9, 3] = 1.0
    grow(url, until(whole, 38))
    assert np.isnan(store.open_cube(url)["displacement"].values[0, 9, 3])
    grow(url, whole)
    assert store.open_cube(url)["displacement"].values[0, 9, 3] == 0
    check(url)


def test_only_new_pairs_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, url = stack(40, seed=15), tmp_path / "cube"
    read = []
    plain = extend.read_window

    def counted(cube: xr.Dataset, name: str, window: Any) -> np.ndarray:
        read.append(cube.sizes[PAIR])
        return plain(cube, name, window)

    monkeypatch.setattr(extend, "read_window", counted)
    grow(url, until(whole, 39))
    assert max(read) == 2 * 39 - 3
    read.clear()
    grow(url, whole)
    assert 0 < max(read) <= 2 * (2 * STEP + 4 * 2)
    check(url)


def test_what_differs_is_told(tmp_path: Path) -> None:
    whole, url = stack(40, seed=23), tmp_path / "cube"
    for date in (38, 40):
        grow(url, until(whole, date))
    states_there = [state["id"] for state in store.history(url)]
    found = diff(url, states_there[2])
    assert found["values"]["velocity"]["max_abs"] > 0
    assert not set(found["values"]) & set(KEPT)
    # Nothing but recent dates moved.
    assert found["values"]["displacement"]["rms"] < 1e-3


def test_an_interrupted_update_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, url = stack(40, seed=17), tmp_path / "cube"
    grow(url, until(whole, 38))
    before = store.open_cube(url)["displacement"].load()
    with monkeypatch.context() as patch:
        patch.setattr("cube_denoise.store.staging.COMMIT_SECONDS", 0.0)
        done = []
        work = extend.Extension.__call__

        def dying(self: Any, cube: Any, window: Any) -> Any:
            if done:
                raise RuntimeError("power cut")
            done.append(window)
            return work(self, cube, window)

        patch.setattr(extend.Extension, "__call__", dying)
        one = Workers("threads", count=1)
        ingest_dataset(whole, url, workers=TWO)
        with pytest.raises(RuntimeError, match="power cut"):
            invert_cube(url, reference=CORNER, workers=one)
    assert store.open_cube(url)["displacement"].sizes["time"] == 38
    xr.testing.assert_identical(store.open_cube(url)["displacement"].load(), before)
    assert "from" in inverted(url)
    check(url)


@pytest.mark.parametrize(
    "options",
    [
        {"robust": "l1"},
        {"reference_date": "least-residual"},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"gaps": "linear"},
                {"unwrapping": "mask"},
                {"model": "linear+annual"},
                {"uncertainty": "bootstrap"},
            )
        ),
    ],
)
def test_options_without_states(tmp_path: Path, options: dict[str, str]) -> None:
    whole, url = stack(20), tmp_path / "cube"
    ingest_dataset(whole, url, workers=TWO, chunk=8, shard=8)
    inverted(url)
    assert "inversion_state" in store.open_cube(url)
    report = invert_cube(url, reference=CORNER, workers=TWO, **options)
    (name,) = options
    assert any(f"in full with {name}=" in note for note in report.notes)
    assert "inversion_state" not in store.open_cube(url)


def test_long_pairs_keep_no_states(tmp_path: Path) -> None:
    whole, url = stack(24), tmp_path / "cube"
    long = whole.isel({PAIR: slice(0, 9)})
    times = START + np.arange(24) * np.timedelta64(12 * 86400, "s")
    long = long.assign_coords(
        reference_time=(PAIR, times[:9]), secondary_time=(PAIR, times[15:])
    )
    ingest_dataset(xr.concat([whole, long], PAIR), url, workers=TWO, chunk=8, shard=8)
    report = invert_cube(url, reference=CORNER, workers=TWO)
    assert any("span many dates" in note for note in report.notes)
    assert "inversion_state" not in store.open_cube(url)


def test_an_area_that_was_chosen_is_kept(tmp_path: Path) -> None:
    whole, url = stack(40, seed=19), tmp_path / "cube"
    ingest_dataset(until(whole, 38), url, workers=TWO, chunk=8, shard=8)
    invert_cube(url, workers=TWO)
    before = store.open_cube(url)["velocity"].attrs
    ingest_dataset(whole, url, workers=TWO)
    report = invert_cube(url, workers=TWO)
    after = store.open_cube(url)["velocity"].attrs
    assert after["reference_rows"] == before["reference_rows"]
    assert any("kept" in note for note in report.notes)
