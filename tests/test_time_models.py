"""Names of time models, their design matrices, and what dates cannot determine."""

import numpy as np
import pytest

from cube_denoise.time_models import TimeModel, linear_design

TIMES = np.datetime64("2019-01-01", "s") + 12 * 86400 * np.arange(92)
EVERYTHING = (
    "piecewise:2019-07-01,2020-01-01+annual+semiannual+step:2020-06-01+step:2021-01-01"
    "+exp:2020-06-01:90d+log:2020-09-01:30d"
)


def days(text):
    return (TIMES - np.datetime64(text, "s")) / np.timedelta64(86400, "s")


def test_every_term_is_its_closed_form():
    design = TimeModel.parse(EVERYTHING).design(TIMES)
    column = dict(zip(design.names, design.matrix.T, strict=True))
    unit = dict(zip(design.names, design.units, strict=True))
    year = 2 * np.pi * days("2000-01-01") / 365.25
    since, after = np.fmax(days("2020-06-01"), 0), np.fmax(days("2020-09-01"), 0)
    first, second, third = (unit.pop(f"rate_{k}") for k in (1, 2, 3))
    assert (first, second, third) == ("m year-1",) * 3
    assert set(unit.values()) == {"m"}
    expected = {
        "offset": np.ones(92),
        "rate_1": np.minimum(days("2019-01-01"), 181) / 365.25,
        "rate_2": np.clip(days("2019-07-01"), 0, 184) / 365.25,
        "rate_3": np.fmax(days("2020-01-01"), 0) / 365.25,
        "annual_cosine": np.cos(year),
        "annual_sine": np.sin(year),
        "semiannual_cosine": np.cos(2 * year),
        "semiannual_sine": np.sin(2 * year),
        "step_20200601": 1.0 * (days("2020-06-01") >= 0),
        "step_20210101": 1.0 * (days("2021-01-01") >= 0),
        "exponential_20200601_90d": 1 - np.exp(-since / 90),
        "logarithmic_20200901_30d": np.log(1 + after / 30),
    }
    assert list(column) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(column[name], values, atol=1e-12, err_msg=name)


def test_velocity_is_the_mean_rate_over_the_span():
    """A line broken where it is straight has the velocity of the straight one."""
    design = TimeModel.parse("piecewise:2019-07-01,2020-01-01+annual").design(TIMES)
    assert design.rate @ [5.0, 3.0, 3.0, 3.0, 9.0, 9.0] == pytest.approx(3.0)
    span = days("2019-01-01")[-1]
    pieces = np.array([181, 184, span - 365]) / span
    np.testing.assert_allclose(design.rate[1:4], pieces)
    gained = design.matrix[-1] - design.matrix[0]
    np.testing.assert_allclose(design.rate[:4], gained[:4] / design.years[-1])


def test_names_come_back():
    assert str(TimeModel.parse(EVERYTHING)) == EVERYTHING
    assert TimeModel.parse(str(TimeModel())) == TimeModel()
    assert TimeModel.parse(" annual + linear ") == TimeModel(annual=True)
    assert str(TimeModel(steps=[np.datetime64("2020-06-01T06")])) == (
        "linear+step:2020-06-01T06:00:00"
    )
    assert TimeModel.parse(EVERYTHING) == TimeModel(
        knots=["2019-07-01", "2020-01-01"],
        annual=True,
        semiannual=True,
        steps=["2020-06-01", "2021-01-01"],
        exponential=[("2020-06-01", 90)],
        logarithmic=[("2020-09-01", 30)],
    )


def test_linear_model_and_linear_years_are_one():
    named = TimeModel.parse("linear").design(TIMES)
    years = linear_design(2019 + named.years)
    np.testing.assert_allclose(years.matrix, named.matrix, atol=1e-12)
    assert years.names == named.names and years.units == named.units
    np.testing.assert_array_equal(years.rate, named.rate)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linear+quadratic", "'quadratic' in .* is no term"),
        ("linear+step", "is no term: use .*step:DATE"),
        ("linear:3", "is no term"),
        ("linear+", "'' in 'linear.' is no term"),
        ("linear+step:June", "'June' is no date"),
        ("linear+step:", "'' is no date"),
        ("linear+exp:2020-06-01", "must be like"),
        ("linear+exp:2020-06-01:soon", "must be like"),
        ("linear+exp:2020-06-01:-3d", "must be positive"),
        ("linear+log:2020-06-01:0d", "must be positive"),
        ("annual", "must hold linear or piecewise"),
        ("linear+piecewise:2020-01-01", "must hold linear or piecewise"),
        ("piecewise:2020-01-01+piecewise:2021-01-01", "must hold linear or piecewise"),
        ("piecewise:2020-01-01,2019-01-01", "must increase"),
        ("linear+annual+annual", "more than once"),
        ("linear+step:2020-06-01+step:2020-06-01T00", "given twice"),
        ("linear+exp:2020-06-01:90d+exp:2020-06-01:90.0d", "given twice"),
    ],
)
def test_bad_names_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        TimeModel.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linear+step:2019-01-01", "step.*outside the dates.*cannot determine"),
        ("linear+step:2022-06-01", "step.*outside the dates"),
        ("piecewise:2018-06-01", "knots.*outside the dates"),
        ("linear+exp:2018-12-01:30d", "exponential.*outside the dates"),
        ("linear+log:2022-12-01:30d", "logarithmic.*outside the dates"),
        ("linear+exp:2019-01-01:90000d", "cannot tell exponential.*from its other"),
        ("linear+step:2020-06-01+step:2020-06-02", "cannot tell step_20200602"),
    ],
)
def test_what_dates_cannot_determine_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        TimeModel.parse(text).design(TIMES)


def test_cycles_need_dates_that_sample_them():
    with pytest.raises(ValueError, match=r"cannot tell annual_sine"):
        TimeModel.parse("linear+annual").design(TIMES[:5])
    yearly = np.array([f"{y}-03-01" for y in range(2010, 2018)], "datetime64[s]")
    with pytest.raises(ValueError, match="cannot tell annual"):
        TimeModel.parse("linear+annual").design(yearly)
    TimeModel.parse("linear+annual").design(TIMES[:31])


def test_bad_dates_are_refused():
    model = TimeModel.parse("linear+annual")
    with pytest.raises(ValueError, match="4 parameters and there are 3 dates"):
        model.design(TIMES[[0, 30, 60]])
    for bad in (TIMES[::-1], TIMES[[0, 0, 1]], np.append(TIMES, np.datetime64("NaT"))):
        with pytest.raises(ValueError, match="increasing"):
            model.design(bad)


def test_step_takes_its_day():
    """A step at the date of an acquisition is in that acquisition."""
    model = TimeModel.parse("linear+step:2019-01-13")
    np.testing.assert_array_equal(model.design(TIMES).matrix[:3, 2], [0, 1, 1])
