"""The application: logging, errors, options that commands share."""

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console

log = logging.getLogger(__name__)

MISTAKE, PAIRS_FAILED, INTERRUPTED = 2, 3, 130
"""Exit codes beside 0."""
FOREIGN = {
    "IcechunkError",
    "YAMLError",
    "RasterioError",
    "ProjError",
    "CubeChangedError",
    "ClusterError",
}
"""Names of what else a wrong input or a refusing place raises."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Interferograms to velocity maps: search, ingest, correct, invert, look.",
)

Branch = Annotated[str, typer.Option(help="Branch of the cube to change or read.")]
Count = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Threads, processes, GPUs or workers; as many as there are.",
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        help="threads, processes, dask (local processes), cuda (local GPUs), gateway "
        "or gateway://host, kubernetes or kubernetes://name, or the address of a Dask "
        "scheduler (tcp://...). auto takes that of DASK_SCHEDULER_ADDRESS, else GPUs, "
        "else threads."
    ),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(help="Of each worker of --cluster dask or cuda, such as 4GiB."),
]
Dry = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Tell what it would do and cost; read and write no data."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the dry run as JSON.")]
Cube = Annotated[
    str,
    typer.Argument(
        help="Cube: local path, s3://..., gs://... or az://...", metavar="CUBE"
    ),
]
Box = Annotated[
    str | None,
    typer.Option("--bbox", help="West,south,east,north in degrees.", metavar="W,S,E,N"),
]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command; its mistakes end in one sentence and an exit code."""

    @functools.wraps(function)
    def guarded(*args: Any, **options: Any) -> None:
        with _errors():
            function(*args, **options)

    return app.command(function.__name__)(guarded)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not isinstance(error, (ValueError, OSError)) and not kinds & FOREIGN:
            raise
        log.debug("where it happened", exc_info=error)
        typer.echo(f"error: {_sentence(error)}", err=True)
        raise typer.Exit(MISTAKE) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _version(asked: bool) -> None:
    if asked:
        from cube_denoise import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log details, and where errors are.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Set up logging: rich in a terminal, plain lines elsewhere."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        console = Console(stderr=True)
        handler = RichHandler(
            console=console, show_path=False, omit_repeated_times=False
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
        form = "%(asctime)s %(levelname)s %(message)s"
        handler.setFormatter(logging.Formatter(form, "%H:%M:%S"))
    for name in ("cube_denoise", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    warnings.formatwarning = lambda message, *_, **__: str(message)
    logging.captureWarnings(True)


def settings(given: list[str] | None) -> dict[str, Any]:
    """Options of ``--set KEY=VALUE``; values are read as YAML: 3 is a number."""
    import yaml

    found = {}
    for text in given or ():
        key, sign, value = text.partition("=")
        if not (sign and key.isidentifier()):
            raise ValueError(f"--set {text!r} must be KEY=VALUE, such as degree=2")
        found[key] = yaml.safe_load(value)
    return found


def numbers(text: str | None, option: str, count: int) -> Any:
    """Numbers of ``1,2,3``; None for None."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise ValueError(
            f"{option} {text!r} must be {count} numbers with commas between"
        )
    return values
