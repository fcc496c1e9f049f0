"""A cube that grew equals one built at once, whatever the order and the batches."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from frames import assert_same_maps, frames, job_of, keys, reprocessed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_denoise import store
from cube_denoise.pipeline import run
from cube_denoise.state import velocity_is_current
from cube_denoise.update import update

pytestmark = pytest.mark.filterwarnings("ignore:.*(not connected|without data)")


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return frames(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def at_once(nine: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    run(job_of(folder, nine, folder / "cube"))
    return folder / "cube"


def grow(url: Path, folder: Path, batches: list[list[Any]], **more: Any) -> None:
    """Update a cube with one batch after the other; the source keeps the earlier."""
    known: list[Any] = []
    for batch in batches:
        known += batch
        report = update(job_of(folder, known, url, **more))
        assert sorted(report.record["added"]) == sorted(r.id for r in batch)
        assert report.correct is None or report.correct.done == len(batch)


def check(grown: Path, at_once: Path, count: int) -> None:
    assert_same_maps(grown, at_once)
    cube, whole = store.open_cube(grown), store.open_cube(at_once)
    assert keys(cube) == keys(whole)
    assert cube.sizes["pair"] == count
    assert (cube["correction_status"] == 1).all()
    assert velocity_is_current(cube)
    for name in ("pair_count", "gap_count"):
        np.testing.assert_array_equal(cube[name], whole[name])


ORDERS = st.tuples(
    st.permutations(range(9)), st.lists(st.integers(1, 8), max_size=3, unique=True)
)


def grown_in_any_order(
    drawn: tuple[list[int], list[int]], nine: list[Any], at_once: Path
) -> None:
    order, cuts = drawn
    edges = [0, *sorted(cuts), 9]
    batches = [[nine[k] for k in order[a:b]] for a, b in pairwise(edges)]
    with TemporaryDirectory() as folder:
        grow(Path(folder) / "cube", Path(folder), batches)
        check(Path(folder) / "cube", at_once, 9)


PLAN = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow],
}


@settings(max_examples=3, **PLAN)
@given(drawn=ORDERS)
def test_any_order_and_batches(
    drawn: tuple[list[int], list[int]], nine: list[Any], at_once: Path
) -> None:
    grown_in_any_order(drawn, nine, at_once)


@pytest.mark.slow
@settings(max_examples=40, **PLAN)
@given(drawn=ORDERS)
def test_many_orders_and_batches(
    drawn: tuple[list[int], list[int]], nine: list[Any], at_once: Path
) -> None:
    grown_in_any_order(drawn, nine, at_once)


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True])
def test_pair_by_pair(
    backwards: bool, nine: list[Any], at_once: Path, tmp_path: Path
) -> None:
    order = nine[::-1] if backwards else nine
    grow(tmp_path / "cube", tmp_path, [[item] for item in order])
    check(tmp_path / "cube", at_once, 9)


def test_replaced_and_withdrawn_on_the_way(
    nine: list[Any], at_once: Path, tmp_path: Path
) -> None:
    """Detours leave no trace: a wrong version first, and a pair that comes and goes."""
    url = tmp_path / "cube"
    wrong = [reprocessed(nine[k], tmp_path / "wrong", 5.0) for k in (1, 4)]
    first = [nine[0], wrong[0], nine[2], nine[3], wrong[1], nine[7]]
    update(job_of(tmp_path, first, url))
    update(job_of(tmp_path, [nine[0], wrong[0], nine[3], *nine[4:7]], url))
    report = update(job_of(tmp_path, nine, url))
    assert len(report.record["replaced"]) == 1
    check(url, at_once, 9)


def test_a_network_as_well(nine: list[Any], plain_model: Path, tmp_path: Path) -> None:
    method = {"method": str(plain_model), "precision": "float32"}
    grow(tmp_path / "grown", tmp_path, [nine[6:], nine[:6]], correct=method)
    run(job_of(tmp_path, nine, tmp_path / "once", correct=method))
    check(tmp_path / "grown", tmp_path / "once", 9)
