"""What many tests start from: a small simulated stack and networks that do something.

The networks have random weights, running statistics included: a new one is exactly the
identity, and an identity passes any test of invariance.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3_server
import xarray as xr

from cube_denoise.ingest import ingest_dataset
from cube_denoise.simulate import simulate_scene
from cube_denoise.simulate.hyp3 import write_hyp3_products


def random_network(folder: Path, *, seed: int, **config: object) -> Path:
    """Save a small DnCNN with random weights; `config` as of `DnCNNConfig`."""
    import torch

    from cube_denoise.models import zoo
    from cube_denoise.models.dncnn import DnCNN, DnCNNConfig

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DnCNN(DnCNNConfig(**config))  # type: ignore[arg-type]
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.running_mean, std=0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.2)
        torch.nn.init.normal_(model.layers[-1].weight, std=0.05)
        torch.nn.init.normal_(model.layers[-1].bias, std=0.05)
    return zoo.save_model(model, folder, training={}, card="test")


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finite view (radius 6), without elevation."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    return random_network(folder, seed=1, depth=6, channels=8)


@pytest.fixture(scope="session")
def dilated_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finite view (radius 16), with elevation, scale and validity channels."""
    return random_network(
        tmp_path_factory.mktemp("models") / "dilated",
        seed=2,
        depth=8,
        channels=8,
        inputs=("displacement", "log_scale", "elevation", "valid"),
        normalisation="robust",
        dilations=(1, 2, 4),
    )


@pytest.fixture(scope="session")
def identity_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that removes nothing: all new ones are so."""
    from cube_denoise.models import zoo
    from cube_denoise.models.dncnn import DnCNN, DnCNNConfig

    folder = tmp_path_factory.mktemp("models") / "identity"
    model = DnCNN(DnCNNConfig(depth=4, channels=4))
    return zoo.save_model(model, folder, training={}, card="test")


@pytest.fixture(scope="session")
def stack() -> xr.Dataset:
    """Seven pairs of 96 x 96 pixels with gaps, elevation and look vectors."""
    scene = simulate_scene(
        size=96, dates=5, max_temporal_baseline=24, gaps=0.1, seed=11
    )
    return scene.cube.load()


@pytest.fixture(scope="session")
def product_folder(stack: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stack` as HyP3 products. Not to be changed."""
    folder = tmp_path_factory.mktemp("products")
    write_hyp3_products(stack, folder)
    return folder


@pytest.fixture(scope="session")
def small_cube(stack: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stack` as a cube of chunks of 32 and shards of 64. Not to be changed."""
    url = tmp_path_factory.mktemp("cubes") / "small"
    ingest_dataset(stack, url, chunk=32, shard=64)
    return url


@pytest.fixture
def make_cube(stack: xr.Dataset, tmp_path: Path) -> Callable[..., Path]:
    """Make cubes of one's own: ``make_cube(dataset=stack, chunk=, shard=)``."""
    count = 0

    def make(dataset: xr.Dataset = stack, *, chunk: int = 32, shard: int = 64) -> Path:
        nonlocal count
        count += 1
        url = tmp_path / f"cube-{count}"
        ingest_dataset(dataset, url, chunk=chunk, shard=shard)
        return url

    return make


@pytest.fixture(scope="session")
def s3_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.Server]:
    """An S3 server for all tests that need one of the usual login, at their own places.

    ``s3_of_all.use(patch)`` sets the environment.
    """
    with s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Commands set up logging and warnings: undo it."""
    form = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield
    warnings.formatwarning = form
    logging.captureWarnings(False)
    for name in ("cube_denoise", "py.warnings"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).setLevel(logging.NOTSET)
