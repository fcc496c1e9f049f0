"""The benchmark of updates: it runs, and its numbers mean what they say."""

import json
from pathlib import Path

import pytest

from benchmarks import incremental


@pytest.mark.slow
def test_updates_are_exact_and_cheaper(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    incremental.main(["--quick", "--out", str(out)])
    rows = json.loads(out.read_text())
    value = {(r["case"], r["method"], r["metric"]): r["value"] for r in rows}
    worst = [v for (_, _, metric), v in value.items() if metric.startswith("largest")]
    assert len(worst) == 6
    assert 0 < max(worst) < incremental.LIMIT
    assert value["72 dates", "update", "read"] < value["72 dates", "full", "read"]
