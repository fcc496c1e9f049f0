"""The report of an evaluation: a page to read and a file of all numbers."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cube_denoise.conventions import X, Y
from cube_denoise.evaluate import (
    detection_pictures,
    injection_pictures,
    page,
    pictures,
    station_pictures,
)
from cube_denoise.evaluate.columns import SCORES
from cube_denoise.evaluate.findings import findings
from cube_denoise.evaluate.record import record_of, versions
from cube_denoise.evaluate.tables import (
    Table,
    detectable_table,
    score_tables,
    slope_table,
)

if TYPE_CHECKING:
    from cube_denoise.evaluate.judge import Evaluation

log = logging.getLogger(__name__)

PAGE, RECORD = "report.html", "report.json"


def write_report(
    evaluation: "Evaluation", folder: str | Path, *, title: str = "Evaluation"
) -> Path:
    """Write ``report.html``, one page with pictures in it, and ``report.json``.

    Parameters
    ----------
    evaluation : Evaluation
        Of `judge.evaluate_cube`.
    folder : str or pathlib.Path
        Made if it is not there. A report in it is replaced, whole or not at all.
    title : str
        What was judged.

    Returns
    -------
    pathlib.Path
        The page.
    """
    folder = Path(folder)
    texts = {
        RECORD: json.dumps(
            record_of(evaluation, title=title), indent=1, allow_nan=False
        ),
        PAGE: page.page(title, _parts(evaluation), footer=_footer()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = {name: folder / f".{name}.{os.getpid()}" for name in texts}
    try:
        for name, part in written.items():
            part.write_text(texts[name] + "\n", encoding="utf-8")
        for name, part in written.items():
            part.replace(folder / name)
    finally:
        for part in written.values():
            part.unlink(missing_ok=True)
    return folder / PAGE


def _parts(evaluation: "Evaluation") -> Iterator[str]:
    tables = {t.title: t for t in score_tables(evaluation)}
    said = findings(evaluation)
    if said:
        yield page.heading("In short")
        yield page.bullets(said)
    yield from _judged(evaluation)
    yield page.heading("Velocity")
    yield page.paragraph(
        "The pairs are corrected by each method, inverted in the same way and with the "
        "same reference area (the square), and a straight line through time is fitted "
        "to every pixel. Blue is motion toward the satellite, red away from it, grey "
        "is no data. All maps have one scale, that of the raw velocity. A correction "
        "that makes a map calm has not thereby made it right."
    )
    yield page.picture(
        pictures.plot_velocities(evaluation),
        "Line-of-sight velocity from the pairs as each method corrects them.",
    )
    if "against the truth" in tables:
        yield from _truth(evaluation, tables["against the truth"])
    yield from _without_truth(evaluation, tables.get("without truth"))
    if "against GNSS" in tables:
        yield from _stations(evaluation, tables["against GNSS"])
    if "injected" in tables:
        yield from _injected(evaluation, tables["injected"])


def _judged(evaluation: "Evaluation") -> Iterator[str]:
    area, pairs = evaluation.reference, evaluation.pairs
    dates = sorted({d for pair in pairs for d in pair.split("-")})
    maps = evaluation.verdicts[0].maps
    assert maps is not None
    rows, columns = evaluation.spacing
    yield page.heading("What was judged")
    yield page.paragraph(
        f"{len(pairs)} pairs of {len(dates)} dates, {dates[0]} to {dates[-1]}; "
        f"{maps.sizes[Y]} x {maps.sizes[X]} pixels of {rows:.0f} x {columns:.0f} m. "
        f"Reference area: rows {area.y.start} to {area.y.stop - 1}, columns "
        f"{area.x.start} to {area.x.stop - 1}, counted from 0. Weights of the "
        f"inversions: {evaluation.weights}. {evaluation.folds} folds of held-out "
        f"dates, seed {evaluation.seed}."
    )
    yield page.text_table(
        ("method", "options or weights", "notes"),
        [
            (
                v.method,
                _described(v.label),
                " ".join(v.notes),
            )
            for v in evaluation.verdicts
        ],
    )


def _truth(evaluation: "Evaluation", table: Table) -> Iterator[str]:
    yield page.heading("Against the truth")
    yield page.paragraph(
        "The stack is simulated: what moved is known. The slope says how much of it is "
        "kept, the error how far the map is from it, the reduction how much of the "
        "error of the raw velocity is gone. A small error with a small slope is a "
        "method that removes motion and noise alike. Best values are bold."
    )
    yield page.number_table(table)
    yield _explained(table)
    yield page.picture(
        pictures.plot_velocity_errors(evaluation),
        "Error of the velocity, all on one scale; rms in mm/yr.",
    )


def _without_truth(evaluation: "Evaluation", table: Table | None) -> Iterator[str]:
    yield page.heading("Without truth")
    yield page.paragraph(
        "Dates are hidden, the others corrected, and the hidden ones predicted from "
        "them: a method that outputs zero predicts no motion and scores 1, one that "
        "keeps motion and removes noise scores less. The target is noisy itself, so "
        "nothing scores 0. The other columns tell what a method does, not how good it "
        "is: outputting zero would win most of them, so nothing is bold there. "
        "The slope on the raw velocity is that of the corrected on the raw one where "
        "it is largest: below 1, real motion may be lost, or noise."
    )
    if table is not None:
        yield page.number_table(table)
        yield _explained(table)
    held_out = pictures.plot_held_out(evaluation)
    if held_out is not None:
        yield page.picture(
            held_out,
            "Held-out dates: large markers are the ratio over all hidden dates, dots "
            "that of each. Differences between methods are surer than the ratios: all "
            "have the same targets.",
        )
    yield page.picture(
        pictures.plot_structure(evaluation),
        "Structure function: how much two points of a pair differ, by their distance. "
        "Noise and deformation both count; a lower line is a smoother pair.",
    )


def _stations(evaluation: "Evaluation", table: Table) -> Iterator[str]:
    yield page.heading("Against GNSS")
    yield page.paragraph(
        "Radar and GNSS displacement along the line of sight at the stations, each "
        "less its mean over time. A better constant lowers every misfit but those with "
        "the mean over stations removed: trust the latter. Few stations tell little."
    )
    yield page.number_table(table)
    yield _explained(table)
    for demeaned in (False, True):
        figure = station_pictures.plot_stations(evaluation, demeaned=demeaned)
        if figure is not None:
            yield page.picture(
                figure,
                "Radar against GNSS, the mean over stations removed at every date."
                if demeaned
                else "Radar against GNSS; on the line they agree.",
            )
    series = station_pictures.plot_station_series(evaluation)
    if series is not None:
        yield page.picture(series, "Displacement at the stations through time.")


def _injected(evaluation: "Evaluation", table: Table) -> Iterator[str]:
    yield page.heading("Injected deformation: how far to trust it here")
    yield page.paragraph(
        "Known motion is added to the pairs of this stack, consistently over its "
        "dates, the stack is corrected with and without it, and the difference is "
        "what comes back. A slope of 1 keeps the signal, 0 loses it. The smallest "
        "signal found is one that is called a signal 95 % of the time where noise "
        "alone is called one 5 % of the time. The noise is that of this stack: what "
        "each date differs by from steady motion, with other signs, corrected by the "
        "same method. Real motion that is not steady counts as noise there, and noise "
        "that dates share is not in it: the true threshold may be higher. Doing "
        "nothing has a slope of 1 and no error by construction; a correction is worth "
        "its while if it finds smaller signals than raw."
    )
    dates = next(v.recoveries for v in evaluation.verdicts if v.recoveries)[0].dates
    yield page.paragraph(
        f"From {dates} dates the noise of a source, and so its threshold, is known to "
        f"about {100 / np.sqrt(2 * (dates - 2)):.0f} %. Differences between methods "
        "are surer than that, as all have the same noise, but those of a few per cent "
        "mean nothing."
    )
    yield page.number_table(table)
    yield _explained(table)
    yield page.picture(
        detection_pictures.plot_detectable(evaluation),
        "Smallest signal found, median over the sources of each kind: the larger the "
        "marker, the wider the source. Hollow triangles: not found even at the largest "
        "amplitude that was injected.",
    )
    yield page.number_table(detectable_table(evaluation))
    histories = injection_pictures.histories(evaluation)
    for history in histories:
        named = injection_pictures.named(history)
        yield page.picture(
            detection_pictures.plot_detectable_maps(evaluation, history),
            f"Smallest {named} found at each place (bowls; circles have their radius).",
        )
    several = len([v for v in evaluation.verdicts if v.recoveries]) > 1
    for history in histories:
        told = injection_pictures.told(history)
        yield page.picture(
            injection_pictures.plot_slopes(evaluation, history),
            f"Part of {told} that comes back, by radius, shape (rows) and amplitude "
            "(columns): lines are medians over sources, dots single sources.",
        )
        if several:
            yield page.picture(
                injection_pictures.plot_recovered(evaluation, history),
                f"What was injected of {told} (first row), and what comes back. Raw "
                "pairs give back the first row.",
            )
    if several:
        yield page.number_table(slope_table(evaluation))


def _described(label: Mapping[str, str]) -> str:
    """Options or weights of a method."""
    if not label:
        return "nothing is done"
    options = json.loads(label.get("method_options", "{}"))
    texts = [f"{k} = {json.dumps(value)}" for k, value in options.items()]
    if label.get("model_sha256"):
        texts.append(f"weights {label['model_sha256'][:16]}… (SHA-256)")
    return ", ".join(texts) or "no options"


def _explained(table: Table) -> str:
    """What the columns of a table of scores are."""
    told = {name.partition("\n")[0] for name in table.columns}
    scores = SCORES[table.title].items()
    return page.definitions({n: s.text for n, s in scores if n in told})


def _footer() -> str:
    told = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"All numbers, those of single sources and dates too: {RECORD}. By {told}."
