"""Principal components of the dates of a stack."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cube_denoise.corrections.components import Sample, Separated
from cube_denoise.corrections.separation import Separation


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents(Separation):
    """Remove the principal components of the dates that do not grow with time.

    The components are the eigenvectors of the covariance of the dates over pixels,
    largest variance first. What the smaller components hold stays. A component is
    whatever varies most, be it deformation, atmosphere or both: where they mix, so does
    the verdict. For the rule and its blind spots see `separation.Separation`.

    Parameters
    ----------
    components : int or float
        How many of the largest, or (0 to 1) as many as hold this share of the
        variance; at most the number of dates less 3.
    keep, remove : sequence of int
        Components, counted from 1, to keep or to remove whatever the rule says. With
        one that grows with time, steady motion goes too.

    Raises
    ------
    ValueError
        If `components` is neither; if `keep` and `remove` overlap.
    """

    name: ClassVar[str] = "pca"
    components: int | float = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        count = self.components
        if not (0 < count < 1 or (count >= 1 and count == int(count))):
            raise ValueError(
                f"components={count} must be a number of components or, between 0 and "
                "1, a share of the variance"
            )

    def separate(self, sample: Sample) -> Separated:
        """See `separation.Separation.separate`."""
        variance, vectors = principal_axes(sample.phase)
        count = int(self.components)
        if count < 1:
            held = np.cumsum(variance) / variance.sum()
            count = 1 + int(np.searchsorted(held, self.components))
        count = min(count, variance.size, sample.years.size - 3)
        scale = np.sqrt(variance[:count])
        maps = (vectors[:, :count] / scale).T @ sample.phase
        return Separated(vectors[:, :count] * scale, maps)


def principal_axes(phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of the covariance of the rows, largest first.

    Parameters
    ----------
    phase : numpy.ndarray, shape (dates, pixels)
        Rows of zero mean.

    Returns
    -------
    variance : numpy.ndarray, shape (axes,)
        Those that are not zero to rounding.
    vectors : numpy.ndarray, shape (dates, axes)
    """
    variance, vectors = np.linalg.eigh(phase @ phase.T / phase.shape[1])
    order = np.argsort(variance)[::-1]
    order = order[variance[order] > 1e-12 * variance[order[0]]]
    return variance[order], vectors[:, order]
