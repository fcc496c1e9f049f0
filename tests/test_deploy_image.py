"""What deploy/ runs and says: commands, image, gateway, README."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from deploy_checks import (
    CHART,
    DEPLOY,
    GATEWAY,
    RELEASE,
    ROOT,
    VALUES,
    Object,
    command_problem,
    container,
    instructions,
    is_sent,
    pods,
    problems,
    render,
    wheels,
)
from packaging.requirements import Requirement

from cube_denoise import raster_access
from cube_denoise.cluster import CPU_IO

DOCKERFILE = instructions(DEPLOY / "Dockerfile")
TEXT = "\n".join(" ".join(instruction) for instruction in DOCKERFILE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (DEPLOY / "README.md").read_text()
COMMAND = re.compile(r"(?<![\w/.-])(?:cube-denoise|dask) [^`\n|]+")


# --- commands --------------------------------------------------------------------


def manifest_commands() -> Iterator[list[str]]:
    for path in VALUES.values():
        for _, pod in pods(render(path)):
            yield container(pod)["args"]


def image_commands() -> Iterator[list[str]]:
    for word, rest in DOCKERFILE:
        if word == "CMD":
            yield json.loads(rest)
        if word == "RUN":
            for text in COMMAND.findall(re.sub(r"&&|;;|>", "\n", rest)):
                yield shlex.split(text)


def readme_commands() -> Iterator[list[str]]:
    """Whole lines of its code; of its prose also a command's mere name."""
    for text in COMMAND.findall(README):
        command = shlex.split(text)
        yield [*command, "--help"] if len(command) == 2 else command


def test_every_command_exists() -> None:
    """`update` among them: the CronJob needs it, and no list here excuses it."""
    found = [*manifest_commands(), *image_commands(), *readme_commands()]
    seen = {" ".join(c[:2]) for c in found}
    assert {"cube-denoise run", "cube-denoise update", "dask worker"} <= seen
    assert {"dask scheduler", "dask cuda"} <= seen
    wrong = sorted({p for c in found if (p := command_problem(c)) is not None})
    assert not wrong, f"deploy/ names what the image would not have: {wrong}"


def test_an_unknown_command_is_caught() -> None:
    good = ["cube-denoise", "run", "job.yaml"]
    assert command_problem(good) is None
    for bad in (
        ["cube-denoise", "refresh", "job.yaml"],
        ["cube-denoise", "run"],
        ["cube-denoise", "run", "job.yaml", "--colour", "red"],
        ["dask-worker", "--name", "x"],
        ["dask", "workers"],
        ["dask", "worker", "--thread", "2"],
        ["dask", "cuda", "workers"],
        ["dask", "cuda", "worker", "--threads", "2"],
    ):
        assert command_problem(bad), bad


def test_workers_start_as_the_manifest_says(tmp_path: Path) -> None:
    """Scheduler and worker by their arguments, probes and name, on this machine."""
    found = dict(pods(render(VALUES["cpu"])))
    free = {}
    for port in ("8786", "8787", "8788"):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            free[port] = str(listening.getsockname()[1])
    running = []
    environment = os.environ | {
        "DASK_SCHEDULER_ADDRESS": f"tcp://127.0.0.1:{free['8786']}",
        "TMPDIR": str(tmp_path),
    }
    try:
        for component in ("scheduler", "worker"):
            only = container(found[component])
            args = [re.sub("878[678]", lambda m: free[m[0]], a) for a in only["args"]]
            args = [a.replace("$(DASK_WORKER_NAME)", "track-worker-1") for a in args]
            args = [str(tmp_path) if a == "/tmp" else a for a in args]
            log = (tmp_path / component).open("w")
            command = [sys.executable, "-m", *args]
            running.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            )
            (port,) = [
                str(p["containerPort"])
                for p in only["ports"]
                if p["name"] == only["livenessProbe"]["httpGet"]["port"]
            ]
            url = f"http://127.0.0.1:{free[port]}/health"
            assert healthy(url), (tmp_path / component).read_text()
        from distributed import Client

        with Client(environment["DASK_SCHEDULER_ADDRESS"], timeout=20) as client:
            client.wait_for_workers(1, timeout=20)
            (worker,) = client.scheduler_info()["workers"].values()
        assert worker["name"] == "track-worker-1"
        assert worker["resources"] == {CPU_IO: 2}
        assert worker["nthreads"] == 2
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(20)


def healthy(url: str) -> bool:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            time.sleep(0.2)
    return False


# --- image -----------------------------------------------------------------------


def test_image_is_small_and_not_root() -> None:
    words = [word for word, _ in DOCKERFILE]
    assert words.count("FROM") == 2
    assert all(r.split()[0] == "${BASE}" for w, r in DOCKERFILE if w == "FROM")
    named = {r.split("=")[0] for w, r in DOCKERFILE if w == "ARG"}
    assert {"BASE", "EXTRAS", "TORCH_INDEX"} <= named
    (user,) = [rest for word, rest in DOCKERFILE if word == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert words.index("USER") < len(words) - 1
    assert words[-1] == "RUN", "the smoke test is the last layer, as that user"
    assert "cube-denoise --version" in DOCKERFILE[-1][1]
    for module in re.search(r"import ([\w, ]+)", DOCKERFILE[-1][1])[1].split(", "):
        assert find_spec(module), module


def test_image_brings_what_numba_compiles(tmp_path: Path) -> None:
    """The start of a container copies it to where numba may write, and goes on."""
    (build,) = [r for w, r in DOCKERFILE if w == "RUN" and "cube_denoise.warm" in r]
    (compiled,) = re.findall(r"NUMBA_CACHE_DIR=(\S+)", build)
    assert find_spec("cube_denoise.warm")
    (kept,) = re.findall(r"^ENV .*NUMBA_CACHE_DIR=(\S+)", TEXT, re.M)
    (entry,) = [json.loads(r) for w, r in DOCKERFILE if w == "ENTRYPOINT"]
    (tmp_path / "opt/numba").mkdir(parents=True)
    (tmp_path / "opt/numba/kernel.nbc").write_text("compiled")
    (tmp_path / "tmp").mkdir()
    here = [
        re.sub(r"(?<= )/(opt|tmp)/", rf"{tmp_path}/\1/", word)
        for word in [*entry, "echo", "two words", "$HOME"]
    ]
    done = subprocess.run(here, capture_output=True, text=True, check=True)
    assert done.stdout == "two words $HOME\n" and not done.stderr
    assert (compiled, kept) == ("/opt/numba", "/tmp/numba")
    assert (tmp_path / "tmp/numba/kernel.nbc").read_text() == "compiled"


def test_image_copies_only_what_is_there() -> None:
    ignore = ROOT / ".dockerignore"
    for word, rest in DOCKERFILE:
        if word != "COPY" or rest.startswith("--from="):
            continue
        *sources, _ = rest.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert is_sent(source, ignore), f".dockerignore keeps back {source}"
    for kept in (".git", ".venv", "tests", "deploy/chart", ".env", "demo"):
        assert not is_sent(kept, ignore), kept
    assert is_sent("cube_denoise/cli/__init__.py", ignore)
    assert not is_sent("cube_denoise/cli/__pycache__", ignore)


def test_image_sets_what_the_package_sets() -> None:
    (rests,) = [[r for w, r in DOCKERFILE if w == "ENV"]]
    settings = dict(pair.split("=", 1) for r in rests for pair in shlex.split(r))
    for name in ("OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "HOME", "TMPDIR"):
        assert name in settings
    own = raster_access.gdal_options("https://example.org/a.tif")
    shared = {k for k in settings if k.startswith(("GDAL_", "VSI_"))}
    assert "GDAL_DISABLE_READDIR_ON_OPEN" in shared
    assert {k: str(own[k]) for k in shared} == {k: settings[k] for k in shared}


def test_image_is_locked() -> None:
    """Every direct dependency has one version, and it is one that pyproject takes."""
    pins = {}
    for path in (ROOT / "constraints.txt", DEPLOY / "constraints.txt"):
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                name, version = line.split("==")
                pins[name] = version
    extras = {r for w, r in DOCKERFILE if w == "ARG" and r.startswith("EXTRAS=")}
    extras |= set(re.findall(r"EXTRAS=[\w,]+", README))
    names = {name for text in extras for name in text.partition("=")[2].split(",")}
    optional = PROJECT["optional-dependencies"]
    assert {"cluster", "cuda", "gateway"} <= names <= set(optional)
    wanted = [*PROJECT["dependencies"], *(r for e in names for r in optional[e])]
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            version = pins.get(requirement.name)
            assert version and requirement.specifier.contains(version), (
                f"{text} has {version}: make deploy/constraints.txt again, as it says"
            )
    (base,) = [r for w, r in DOCKERFILE if w == "ARG" and r.startswith("BASE=")]
    python = re.search(r"python:(\d\.\d+)", base)[1]
    lock = (DEPLOY / "constraints.txt").read_text()
    assert f"--python-version {python}" in lock


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == PROJECT["version"]
    assert ("ARG", f"VERSION={PROJECT['version']}") in DOCKERFILE


# --- gateway and README ----------------------------------------------------------


def test_gateway_values_fit_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of its chart (2024.1 and later), and its own classes read the options."""
    values = yaml.safe_load((DEPLOY / "gateway-values.yaml").read_text())
    assert set(values) == {"gateway"}
    assert set(values["gateway"]) == {"backend", "extraConfig"}
    backend = values["gateway"]["backend"]
    assert set(backend) == {"image", "environment", "scheduler", "worker"}
    assert set(backend["image"]) <= {"name", "tag", "pullPolicy"}
    known = {"cores", "memory", "extraPodConfig", "extraContainerConfig"}
    for role in ("scheduler", "worker"):
        assert set(backend[role]) <= known
        spec = {
            **backend[role]["extraPodConfig"],
            "containers": [
                {"name": role, "image": "x", **backend[role]["extraContainerConfig"]}
            ],
        }
        meta = {"name": "x"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        assert problems(pod) == []
        assert spec["securityContext"]["runAsNonRoot"] is True

    pytest.importorskip("traitlets")
    from traitlets.config import Config

    folder = wheels(*GATEWAY)
    monkeypatch.syspath_prepend(str(folder))
    # Its own imports a web server, which reading options does not take.
    helpers = ModuleType("dask_gateway_server.utils")
    helpers.FrozenAttrDict = lambda options: SimpleNamespace(**options)
    monkeypatch.setitem(sys.modules, helpers.__name__, helpers)
    config = Config()
    for code in values["gateway"]["extraConfig"].values():
        exec(code, {"c": config})
    sources = [
        (folder / "dask_gateway_server/backends" / name).read_text()
        for name in ("base.py", "kubernetes/backend.py")
    ]
    traits = {t for s in sources for t in re.findall(r"^    (\w+) = \w+\(", s, re.M)}
    assert set(config.KubeClusterConfig) <= traits
    options = config.Backend.cluster_options
    chosen = options.parse_options({"worker_cores": 4})
    made = options.get_configuration(chosen, user=None)
    assert set(made) <= traits
    assert made["worker_memory"] == 8 * 2**30
    assert f"{CPU_IO}=4" in made["worker_cmd"]
    assert command_problem([*made["worker_cmd"], "tls://x:8786"]) is None
    assert command_problem(config.KubeClusterConfig.scheduler_cmd) is None
    with pytest.raises(ValueError, match="worker_cores"):
        options.parse_options({"worker_cores": 64})


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_readme_values_and_settings_are_taken(tmp_path: Path) -> None:
    """All YAML of the README together is a values file; so is every ``--set`` in it."""
    values: Object = {}
    for block in blocks(README, "yaml"):
        for key, value in yaml.safe_load(block).items():
            old = values.get(key, {})
            values[key] = old | value if isinstance(value, dict) else value
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    lines = re.sub(r"\\\n\s*", "", README).splitlines()
    installs = [line for line in lines if "deploy/chart -n" in line]
    assert len(installs) >= 3
    for line in installs:
        objects = render(path, *re.findall(r"--set (\S+)", line))
        assert all(problems(o) == [] for o in objects)
    names = {o["metadata"]["name"] for o in render(path, "bulk.enabled=true")}
    for name in re.findall(rf"{RELEASE}-cube-denoise[\w-]*", README):
        bulk = name.replace("-first-runner", "-1")
        assert bulk in names, f"{name} of the README is not in {names}"
    for name in re.findall(
        r"`((?:cluster|bulk|update|worker|gpuWorker)\.[\w.]+)", README
    ):
        known = yaml.safe_load((CHART / "values.yaml").read_text())
        for step in name.split("."):
            assert step in known, name
            known = known[step]


def test_nothing_looks_like_a_secret() -> None:
    shapes = (
        r"AKIA[0-9A-Z]{16}",
        r"-----BEGIN [A-Z ]*PRIVATE KEY",
        r"eyJ[\w-]{10,}\.[\w-]{10,}",
        r"(?i)(secret|password|token|access_?key)\w*[\"']?\s*[:=]\s*[\"']?[\w/+]{12,}",
        r"://[^/\s:@]+:[^/\s@]+@",
    )
    assert re.search(shapes[3], "AWS_SECRET_ACCESS_KEY: abcdefghijklmnop")
    for path in [ROOT / ".dockerignore", *DEPLOY.rglob("*")]:
        if path.is_file():
            for shape in shapes:
                found = re.search(shape, path.read_text())
                assert not found, f"{path}: {found and found[0]}"
