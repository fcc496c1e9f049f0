"""Windows cover once and only once, and lazy blocks land where they belong."""

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cube_denoise.blocks import BlockJob, Window, lazy, spans, variable_window, windows


@given(
    st.integers(0, 200), st.integers(0, 200), st.integers(1, 70), st.integers(-5, 250)
)
def test_spans_cover_once_and_are_cut_at_multiples(
    start: int, length: int, size: int, other_start: int
) -> None:
    stop = start + length
    cut = spans(stop, size, start=start)
    covered = [i for s in cut for i in range(s.start, s.stop)]
    assert covered == list(range(start, stop))
    assert all(s.start % size == 0 for s in cut[1:])
    assert all(s.stop - s.start <= size for s in cut)


def test_span_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="size=0"):
        spans(10, 0)


def test_windows_first_dimension_outermost() -> None:
    found = windows(pair=spans(2, 1), y=spans(3, 2))
    assert [(w["pair"].start, w["y"].start) for w in found] == [
        (0, 0),
        (0, 2),
        (1, 0),
        (1, 2),
    ]


def test_variable_window_takes_the_dimensions_of_the_variable() -> None:
    window = {"x": slice(3, 4), "y": slice(1, 2)}
    assert variable_window("velocity", window) == (slice(1, 2), slice(3, 4))
    assert variable_window("displacement", window) == (
        slice(None),
        slice(1, 2),
        slice(3, 4),
    )


def _double(cube: xr.Dataset, window: Window) -> dict[str, np.ndarray]:
    part = cube["unwrapped_phase"].isel(dict(window)).values
    return {"corrected_phase": 2 * part}


@pytest.mark.parametrize("region", [{}, {"y": slice(3, 14), "x": slice(5, 6)}])
@pytest.mark.parametrize("size", [4, 5, 100])
def test_lazy_blocks_land_where_they_belong(
    region: dict[str, slice], size: int
) -> None:
    values = np.random.default_rng(0).normal(size=(3, 17, 11)).astype("float32")
    cube = xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), values)},
        coords={"y": np.arange(17.0), "x": np.arange(11.0), "spatial_ref": 0},
    )
    area = {"y": slice(0, 17), "x": slice(0, 11)} | region
    job = BlockJob(
        outputs=("corrected_phase",),
        compute=_double,
        windows=windows(
            pair=spans(3, 1),
            **{d: spans(area[d].stop, size, start=area[d].start) for d in ("y", "x")},
        ),
        sizes={"pair": 3, "y": 17, "x": 11},
        region=region,
        attributes={"corrected_phase": {"model": "double"}},
    )
    result = lazy(job, cube)
    assert dask.is_dask_collection(result["corrected_phase"])
    expected = (2 * cube["unwrapped_phase"]).isel(region).transpose("pair", "y", "x")
    xr.testing.assert_equal(
        result["corrected_phase"].compute().drop_attrs(),
        expected.drop_attrs().rename("corrected_phase"),
    )
    assert result["corrected_phase"].dtype == "float32"
    assert result["corrected_phase"].attrs["model"] == "double"
    assert result["corrected_phase"].attrs["units"] == "rad"
    assert "spatial_ref" in result.coords
