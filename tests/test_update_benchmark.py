"""What an update reads and writes goes with its new pairs."""

import json

import pytest

from benchmarks import update

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def value(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    rows = update.main(["--quick", "--out", str(path)])
    if not rows:
        pytest.skip("no S3 server")
    assert json.loads(path.read_text()) == [r.record for r in rows]
    return {(r.case.split(",")[0], r.method, r.metric): r.value for r in rows}


PAIRS, NEW = update.PAIRS[True], update.NEW


def test_only_the_new_pairs_are_corrected(value):
    assert value["run", "correct", "pairs corrected"] == PAIRS
    assert value["update", "correct", "pairs corrected"] == NEW


def test_pixels_go_with_the_new_pairs(value):
    share = NEW / PAIRS
    for step, metric in (
        ("ingest", "rasters read"),
        ("ingest", "chunks written"),
        ("correct", "chunks read"),
        ("correct", "chunks written"),
    ):
        ratio = value["update", step, metric] / value["run", step, metric]
        assert ratio == pytest.approx(share, rel=0.1), (step, metric)


def test_what_is_written_besides_does_not_grow_with_the_cube(value):
    def besides(case):
        return sum(
            value[case, step, "written"] - value[case, step, "chunks written"]
            for step in ("ingest", "correct")
        )

    assert besides("update") < 1.25 * besides("run")


def test_the_inversion_reads_what_it_needs(value):
    """The pixels of all pairs once, and the reference area, here in the same chunks."""
    needs = next(v for (c, _, _), v in value.items() if c == "the inversion needs")
    assert needs > 0
    assert 0.9 * needs < value["update", "invert", "chunks read"] < 1.7 * needs


def test_steps_and_the_rest_make_the_whole(value):
    for case in ("run", "update"):
        for metric in update.METRICS:
            parts = [
                value[case, step, metric]
                for step in ("ingest", "correct", "invert", "search, publish")
            ]
            assert min(parts) >= 0
            assert sum(parts) == pytest.approx(value[case, "all", metric])
