"""Columns of the judge's report: what a score is, its unit, and which end is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """What a column of the report holds."""

    unit: str
    best: str
    """"low", "high", "one" (as near to 1 as can be), or "" where more is not better."""
    text: str
    """What it is, in a line."""

    @property
    def ranks(self) -> bool:
        """Whether methods can be ranked by it: not by what outputting zero wins."""
        return bool(self.best) and "zero wins" not in self.text


SCORES: dict[str, dict[str, Score]] = {
    "against the truth": {
        "velocity slope": Score("1", "one", "of the estimated on the true velocity"),
        "velocity rms error": Score("mm/yr", "low", "means removed"),
        "velocity reduction": Score(
            "%", "high", "of the rms error of the raw velocity, over common pixels"
        ),
        "velocity 95 %": Score("mm/yr", "low", "95th percentile of the error"),
        "velocity bias": Score("mm/yr", "", "inside the sources less outside"),
        "velocity correlation": Score("1", "high", "with the true velocity"),
        "velocity ssim": Score("1", "high", "standard, 11 x 11 window"),
        "velocity ssim, poster": Score(
            "1", "high", "as Li and Sagiya; sees no pattern"
        ),
        "68 % covers": Score("%", "", "of the true velocity; 68 is honest"),
        "95 % covers": Score("%", "", "of the true velocity; 95 is honest"),
        "displacement rms error": Score("mm", "low", "all dates, means removed"),
        "pair slope": Score("1", "one", "median over pairs"),
        "pair rms error": Score("mm", "low", "median over pairs"),
    },
    "without truth": {
        "held-out ratio": Score("1", "low", "error of unseen dates; zero motion is 1"),
        "closure": Score("rad", "low", "rms of triplets; zero wins"),
        "residual": Score("rad", "low", "rms of the inversion; zero wins"),
        "temporal coherence": Score("1", "high", "median; zero wins"),
        "elevation correlation": Score("1", "low", "rms over pairs; zero wins"),
        "structure 1 km": Score("mm", "low", "root of D(r), pairs; zero wins"),
        "structure 5 km": Score("mm", "low", "root of D(r), pairs; zero wins"),
        "structure 10 km": Score("mm", "low", "root of D(r), pairs; zero wins"),
        "structure 20 km": Score("mm", "low", "root of D(r), pairs; zero wins"),
        "structure 50 km": Score("mm", "low", "root of D(r), pairs; zero wins"),
        "slope on raw velocity": Score("1", "", "where the raw velocity is largest"),
    },
    "against GNSS": {
        "avg": Score("mm", "low", "mean over stations of the mean |difference|"),
        "avg, mean removed": Score("mm", "low", "the same less the mean of stations"),
        "l2": Score("mm", "low", "L2 norm of the differences"),
        "l2, mean removed": Score("mm", "low", "the same less the mean of stations"),
        "GNSS correlation": Score("1", "high", "of displacement at stations"),
    },
    "injected": {
        "steady slope": Score("1", "one", "recovered on injected; median of sources"),
        "steady rms error": Score("mm/yr", "low", "of what came back, median"),
        "steady detectable": Score("mm/yr", "low", "smallest rate found, median"),
        "step slope": Score("1", "one", "recovered on injected; median of sources"),
        "step rms error": Score("mm", "low", "of what came back, median"),
        "step detectable": Score("mm", "low", "smallest step found, median"),
    },
}
"""Columns of the report by group; NaN where a stack does not allow them."""
