"""The chart of deploy/: what a cluster would take, and an operator would want."""

import copy
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_checks import (
    CHART,
    DEPLOY,
    NAMESPACE,
    RELEASE,
    VALUES,
    WHEELS,
    Object,
    container,
    helm,
    instructions,
    one,
    pods,
    problems,
    render,
    wheels,
)

from cube_denoise import pipeline
from cube_denoise.bulk_plan import read_plan
from cube_denoise.cluster import CPU_IO, GPU
from cube_denoise.job import read_job


def kinds(objects: list[Object]) -> list[str]:
    return sorted(o["kind"] for o in objects)


# --- chart: what a cluster would take --------------------------------------------


@pytest.mark.parametrize("name", sorted(VALUES))
def test_chart_lints(name: str) -> None:
    done = helm("lint", "--strict", str(CHART), "-f", str(VALUES[name]))
    assert done.returncode == 0, done.stdout + done.stderr


def test_values_need_image_cube_and_source() -> None:
    done = helm("lint", str(CHART))
    assert done.returncode != 0
    for missing in ("'cube'", "'repository'", "'source'"):
        assert missing in done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(VALUES))
def test_objects_fit_strict_schemas(name: str) -> None:
    for thing in render(VALUES[name]):
        assert problems(thing) == [], thing["kind"]


def test_each_value_set_makes_its_objects() -> None:
    base = ["ConfigMap", "ServiceAccount"]
    cluster = ["DaskAutoscaler", "DaskCluster"]
    found = {name: kinds(render(path)) for name, path in VALUES.items()}
    gpu = ["DaskCluster", "DaskJob", "DaskWorkerGroup", "DaskWorkerGroup"]
    assert found == {
        "cpu": sorted([*base, *cluster, "CronJob", "NetworkPolicy"]),
        "gpu": sorted([*base, *gpu, "CronJob", "NetworkPolicy"]),
        "secret": sorted([*base, *cluster, "DaskJob", "CronJob", "NetworkPolicy"]),
        "identity": sorted([*base, *cluster, "CronJob", "NetworkPolicy"]),
        "update-only": sorted([*base, "CronJob"]),
    }


def broken(kind: str, path: str, value: Any) -> tuple[list[str], str]:
    """What the checks say to an object with one field changed, and the field."""
    thing = copy.deepcopy(one(render(VALUES["secret"]), kind))
    where: Any = thing
    *folders, last = path.split("/")
    for step in folders:
        where = where[int(step) if step.isdigit() else step]
    where[last] = value
    return problems(thing), last


POD = "spec/jobTemplate/spec/template/spec"


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("CronJob", "spec/concurencyPolicy", "Forbid"),
        ("CronJob", "spec/startingDeadlineSeconds", "3600"),
        ("CronJob", f"{POD}/containers/0/imagee", "x"),
        ("ServiceAccount", "automountToken", False),
        ("NetworkPolicy", "spec/ingres", []),
        ("DaskCluster", "spec/worker/replicas", "four"),
        ("DaskCluster", "spec/worker/replica", 4),
        ("DaskCluster", "spec/worker/spec/containers/0/imagee", "x"),
        ("DaskCluster", "spec/scheduler/spec/containers/0/livenessProbe/path", "/"),
        ("DaskCluster", "spec/scheduler/service/ports/0/port", "8786"),
        ("DaskJob", "spec/job/spec/restart", "Never"),
        ("DaskJob", "spec/cluster/spec/worker/spec/volumes/0/emptyDir/size", "1Gi"),
        ("DaskAutoscaler", "spec/minimum", None),
        ("DaskAutoscaler", "spec/min", 1),
    ],
)
def test_a_broken_object_is_caught(kind: str, path: str, value: Any) -> None:
    found, field = broken(kind, path, value)
    assert found
    assert any(field in text for text in found), found


@pytest.mark.parametrize(
    ("option", "where"),
    [
        ("wrong=1", "wrong"),
        ("cube=/data/cube", "cube"),
        ("cube=s3://key:word@host/cube", "cube"),
        ("image.tag=latest", "/image/tag"),
        ("job.cube=s3://another/cube", "/job/cube"),
        ("job.source=", "/job/source"),
        ("job.search=A005", "/job/search"),
        ("env.AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY"),
        ("env.EARTHDATA_TOKEN=x", "EARTHDATA_TOKEN"),
        ("update.schedule=hourly", "/update/schedule"),
        ("update.suspended=true", "suspended"),
        ("podSecurityContext.runAsNonRoot=false", "/podSecurityContext/runAsNonRoot"),
        ("podSecurityContext.runAsUser=0", "/podSecurityContext/runAsUser"),
        ("worker.threads=0", "/worker/threads"),
        ("worker.resources.limits.memory=8 GB", "/worker/resources/limits/memory"),
        ("worker.resources.limits.cpu=null", "/worker/resources/limits"),
        ("bulk.run=Second_Run", "/bulk/run"),
        ("bulk.workers=many", "/bulk/workers"),
        ("frames[0].nme=a", "/frames"),
        ("cluster.gpuWorkers=1", "cluster.autoscaler.enabled=false"),
        ("cluster.autoscaler.minimum=9", "cluster.autoscaler.maximum"),
        ("gpuWorker.tolerations[0].operator=Is", "/gpuWorker/tolerations/0/operator"),
    ],
)
def test_wrong_values_are_refused(option: str, where: str) -> None:
    cpu = str(VALUES["cpu"])
    done = helm("template", RELEASE, str(CHART), "-f", cpu, "--set", option)
    assert done.returncode != 0
    assert where in done.stderr, done.stderr


# --- chart: what an operator would want ------------------------------------------


@pytest.mark.parametrize("name", sorted(VALUES))
def test_pods_are_restricted_and_bounded(name: str) -> None:
    dockerfile = instructions(DEPLOY / "Dockerfile")
    (user,) = [rest for word, rest in dockerfile if word == "USER"]
    found = pods(render(VALUES[name]))
    assert found
    for component, pod in found:
        spec, only = pod["spec"], container(pod)
        assert spec["securityContext"]["runAsNonRoot"] is True
        group = spec["securityContext"]["runAsGroup"]
        assert f"{spec['securityContext']['runAsUser']}:{group}" == user
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        kinds_of = {k for v in spec["volumes"] for k in v if k != "name"}
        assert kinds_of <= {"emptyDir", "configMap", "secret"}  # "restricted"
        mounts = {m["name"]: m["mountPath"] for m in only["volumeMounts"]}
        assert mounts["scratch"] == "/tmp"
        assert set(mounts) == {v["name"] for v in spec["volumes"]}
        assert {"cpu", "memory"} <= set(only["resources"]["requests"])
        assert {"cpu", "memory"} <= set(only["resources"]["limits"])
        assert spec["terminationGracePeriodSeconds"] >= 30
        if component in ("update", "bulk"):
            assert spec["restartPolicy"] == "Never"
        else:
            ports = {p["name"] for p in only["ports"]}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = only[kind]["httpGet"]
                assert probe == {"path": "/health", "port": "http-dashboard"}
                assert probe["port"] in ports


@pytest.mark.parametrize("name", sorted(VALUES))
def test_dask_objects_find_each_other(name: str) -> None:
    objects = render(VALUES[name])
    pattern = runpy.run_path(str(wheels(*WHEELS) / "dask_kubernetes/constants.py"))[
        "VALID_CLUSTER_NAME"
    ]
    clusters = {}
    for thing in objects:
        if thing["kind"] in ("DaskCluster", "DaskJob"):
            called, spec = thing["metadata"]["name"], thing["spec"]
            clusters[called] = spec.get("cluster", thing)["spec"]
            assert pattern.match(called)
    for called, spec in clusters.items():
        service = spec["scheduler"]["service"]
        assert service["selector"]["dask.org/cluster-name"] == called
        (scheduler,) = spec["scheduler"]["spec"]["containers"]
        named = {p["name"]: p["containerPort"] for p in scheduler["ports"]}
        assert {p["targetPort"]: p["port"] for p in service["ports"]} == named
    for thing in objects:
        if thing["kind"] in ("DaskWorkerGroup", "DaskAutoscaler"):
            assert thing["spec"]["cluster"] in clusters
    scaled = {o["spec"]["cluster"] for o in objects if o["kind"] == "DaskAutoscaler"}
    groups = {o["spec"]["cluster"] for o in objects if o["kind"] == "DaskWorkerGroup"}
    assert not scaled & groups  # dask/dask-kubernetes#914
    update = container(dict(pods(objects))["update"])
    address = {e["name"]: e["value"] for e in update.get("env", ())}.get(
        "DASK_SCHEDULER_ADDRESS"
    )
    standing = [o for o in objects if o["kind"] == "DaskCluster"]
    if standing:
        cluster = standing[0]["metadata"]["name"]
        assert address == f"tcp://{cluster}-scheduler.{NAMESPACE}.svc:8786"
    else:
        assert address is None


def test_other_pods_make_another_cluster() -> None:
    """The operator ignores changed pods; a changed number it does follow."""

    def called(*sets: str) -> str:
        return one(render(VALUES["cpu"], *sets), "DaskCluster")["metadata"]["name"]

    same = called()
    assert called("cluster.autoscaler.maximum=3", "update.suspend=true") == same
    assert called("cluster.autoscaler.minimum=2", "job.workers=3") == same
    others = ("image.tag=v9", "worker.threads=3", "env.AWS_REGION=x", "scratch=1Gi")
    names = {called(option) for option in others}
    assert same not in names
    assert len(names) == len(others)


def test_updates_never_overlap_or_hang() -> None:
    cron = one(render(VALUES["cpu"]), "CronJob")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["startingDeadlineSeconds"] > 0
    assert cron["timeZone"] == "Etc/UTC"
    job = cron["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] > 0
    assert job["backoffLimit"] <= 3
    actions = {r["action"]: r for r in job["podFailurePolicy"]["rules"]}
    assert actions["FailJob"]["onExitCodes"]["values"] == [2, 3]
    name = actions["FailJob"]["onExitCodes"]["containerName"]
    assert container(job["template"])["name"] == name
    suspended = one(render(VALUES["gpu"]), "CronJob")["spec"]
    assert suspended["suspend"] is True


def test_workers_offer_what_tasks_ask_for() -> None:
    workers = dict(pods(render(VALUES["gpu"], "worker.threads=3")))
    cpu, gpu = container(workers["worker"]), container(workers["gpu-worker"])
    assert f"{CPU_IO}=3" in cpu["args"]
    assert f"{GPU}=4" in gpu["args"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert not any("nvidia" in key for key in cpu["resources"]["limits"])
    volumes = {v["name"]: v for v in workers["gpu-worker"]["spec"]["volumes"]}
    assert volumes["shared-memory"]["emptyDir"]["medium"] == "Memory"
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in gpu["volumeMounts"]
    spec = workers["gpu-worker"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert workers["worker"]["spec"]["nodeSelector"] == {"pool": "spot"}


def test_credentials_reach_only_who_needs_them() -> None:
    def sources(pod: Object) -> set[str]:
        found = {s["secretRef"]["name"] for s in container(pod).get("envFrom", ())}
        secrets = [v["secret"] for v in pod["spec"]["volumes"] if "secret" in v]
        return found | {s["secretName"] for s in secrets}

    found = {name: sources(pod) for name, pod in pods(render(VALUES["secret"]))}
    both = {"cube-credentials", "earthdata"}
    assert found.pop("scheduler") == set()
    assert found == {"worker": both, "bulk": both, "update": both}
    objects = render(VALUES["identity"])
    assert all(not sources(pod) for _, pod in pods(objects))
    account = one(objects, "ServiceAccount")["metadata"]
    assert "azure.workload.identity/client-id" in account["annotations"]
    for _, pod in pods(objects):
        assert pod["spec"]["serviceAccountName"] == account["name"]
        assert pod["metadata"]["labels"]["azure.workload.identity/use"] == "true"


def test_nothing_reaches_beyond_the_namespace() -> None:
    for path in VALUES.values():
        for thing in render(path):
            assert not thing["kind"].startswith("Cluster")
            assert thing["metadata"].get("namespace", NAMESPACE) == NAMESPACE
            assert thing["kind"] not in ("Secret", "Role", "RoleBinding")
            labels = thing["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == RELEASE
            assert all(len(str(v)) <= 63 for v in labels.values())
    policy = one(render(VALUES["identity"]), "NetworkPolicy")["spec"]
    for _, pod in pods(render(VALUES["identity"])):
        wanted = policy["podSelector"]["matchLabels"].items()
        assert wanted <= pod["metadata"]["labels"].items()
    peers = [p for rule in policy["ingress"] for p in rule["from"]]
    assert len(peers) == 3
    assert all(peers)  # an empty peer would let in everybody


@pytest.mark.parametrize("name", sorted(VALUES))
def test_the_job_file_is_a_job(name: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(one(render(VALUES[name]), "ConfigMap")["data"]["job.yaml"])
    job = read_job(path)
    given = yaml.safe_load(VALUES[name].read_text())
    assert job == {"workers": 2, "cube": given["cube"], **given["job"]}
    assert set(job) <= set(pipeline.JOB_KEYS)


def test_frames_make_it_a_plan(tmp_path: Path) -> None:
    sets = ("frames[0].name=a", "frames[0].priority=2", "frames[1].name=b")
    objects = render(VALUES["secret"], *sets, "frames[1].search.orbit=D143")
    data = one(objects, "ConfigMap")["data"]
    assert set(data) == {"plan.yaml"}
    path = tmp_path / "plan.yaml"
    path.write_text(data["plan.yaml"])
    given = yaml.safe_load(VALUES["secret"].read_text())
    plan = read_plan(path)
    assert plan.archive == given["cube"]
    first, second = plan.frames()
    assert (first.name, first.priority) == ("a", 2)
    assert first.job["source"] == given["job"]["source"]
    assert first.job["cube"] == f"{given['cube']}/cubes/a"
    assert second.job["search"] == {**given["job"]["search"], "orbit": "D143"}
    found = {name: container(pod)["args"] for name, pod in pods(objects)}
    wanted = ["cube-denoise", "bulk", "/etc/cube-denoise/plan.yaml"]
    assert found["bulk"] == wanted
    assert found["update"] == [*wanted, "--update"]
    for thing in objects:
        assert problems(thing) == []


def test_the_example_of_a_plan_is_one() -> None:
    plan = read_plan(DEPLOY / "plan.yaml")
    assert (plan.count, plan.prioritised) == (2, True)
