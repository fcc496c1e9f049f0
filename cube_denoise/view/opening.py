"""What a URL holds: a cube or a published product."""

from pathlib import Path

from cube_denoise import store
from cube_denoise.product_folder import ProductFolder
from cube_denoise.view.cube import CubeSource
from cube_denoise.view.product import ProductSource
from cube_denoise.view.source import Source


def open_source(url: str | Path, *, branch: str = "main") -> Source:
    """Open a cube or a published product for the page.

    Parameters
    ----------
    url : str or pathlib.Path
        Local path, ``s3://``, ``gs://`` or ``az://``.
    branch : str
        Branch of a cube; a product has none.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If there is neither, or the branch is not there, or nothing can be shown yet.
    """
    if store.exists(url):
        return CubeSource(url, branch=branch)
    if ProductFolder(url).record() is None:
        raise ValueError(
            f"url={str(url)!r}: there is neither a cube nor a published product"
        )
    if branch != "main":
        raise ValueError(f"{branch=}: a published product has no branches")
    return ProductSource(url)
