"""Job files: the arguments of `pipeline.run` as YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MAPPINGS = ("search", "grid", "correct", "invert")
"""Keys of a job that hold keys and values."""


def read_job(path: str | Path) -> dict[str, Any]:
    """Read a job file; relative paths in it are relative to the file.

    Parameters
    ----------
    path : str or pathlib.Path
        YAML with the keys of `pipeline.JOB_KEYS`. Paths are ``source`` and ``cube``,
        the ``static`` layers of ``search``, the ``reference`` of ``invert`` where it
        names a file, and the ``method`` of ``correct`` where it has a slash in it.

    Returns
    -------
    dict
        Argument of `pipeline.run`, which checks the keys.

    Raises
    ------
    ValueError
        If the file cannot be read or is not a YAML mapping.
    """
    path = Path(path)
    job = read_mapping(path, "job")
    check_mappings(job)
    return with_paths(job, path.resolve().parent)


class _Loader(yaml.SafeLoader):
    """Leaves dates as they are written."""


_Loader.yaml_implicit_resolvers = {
    sign: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
    for sign, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str) -> Any:
    """Values of YAML; dates stay text, as options take them."""
    return yaml.load(text, _Loader)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file of keys and values; `what` it is is said where it is none."""
    try:
        found = read_yaml(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{what} file {path} is not YAML: {reason}") from None
    if not isinstance(found, dict):
        raise ValueError(
            f"{what} file {path} must hold keys and values, such as cube: x"
        )
    return found


def check_mappings(job: Mapping[str, Any]) -> None:
    """Refuse text or numbers where keys and values must be."""
    for key in MAPPINGS:
        if not isinstance(job.get(key, {}) or {}, dict):
            raise ValueError(f"job[{key!r}]={job[key]!r} must hold keys and values")


def with_paths(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The job with paths that are relative to `folder` made absolute."""
    job = dict(job)
    for key in ("source", "cube"):
        if isinstance(job.get(key), str):
            job[key] = near(job[key], folder)
    asked = job.get("search") or {}
    if isinstance(static := asked.get("static"), list):
        job["search"] = {**asked, "static": [near(str(s), folder) for s in static]}
    invert = job.get("invert") or {}
    if isinstance(place := invert.get("reference"), str) and place != "auto":
        job["invert"] = {**invert, "reference": near(place, folder)}
    correct = job.get("correct")
    if correct and "/" in str(correct.get("method", "")):
        job["correct"] = {**correct, "method": near(correct["method"], folder)}
    return job


def near(place: str, folder: Path) -> str:
    """A place as seen from a folder."""
    return place if "://" in place else str(folder / Path(place).expanduser())
