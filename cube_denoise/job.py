"""Job files: the arguments of `pipeline.run` as YAML."""

from pathlib import Path
from typing import Any

import yaml


def read_job(path: str | Path) -> dict[str, Any]:
    """Read a job file; relative paths in it are relative to the file.

    Parameters
    ----------
    path : str or pathlib.Path
        YAML with the keys of `pipeline.JOB_KEYS`. Paths are ``source`` and ``cube``,
        the ``reference`` of ``invert`` where it names a file, and the ``method`` of
        ``correct`` where it has a slash in it.

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
    try:
        job = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"job file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"job file {path} is not YAML: {reason}") from None
    if not isinstance(job, dict):
        raise ValueError(f"job file {path} must hold keys and values, such as cube: x")
    for key in ("search", "grid", "correct", "invert"):
        if not isinstance(job.get(key, {}) or {}, dict):
            raise ValueError(f"job[{key!r}]={job[key]!r} must hold keys and values")
    folder = path.resolve().parent
    for key in ("source", "cube"):
        if isinstance(job.get(key), str):
            job[key] = _near(job[key], folder)
    invert = job.get("invert") or {}
    if isinstance(place := invert.get("reference"), str) and place != "auto":
        job["invert"] = {**invert, "reference": _near(place, folder)}
    correct = job.get("correct")
    if correct and "/" in str(correct.get("method", "")):
        job["correct"] = {**correct, "method": _near(correct["method"], folder)}
    return job


def _near(place: str, folder: Path) -> str:
    return place if "://" in place else str(folder / Path(place).expanduser())
