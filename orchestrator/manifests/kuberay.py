"""YAML for KubeRay: a RayCluster that stays, or a RayJob that runs one study."""

import shlex
from importlib.metadata import version
from typing import Any

import yaml

from orchestrator.manifests.request import Request, mlflow_file, submit_words

_CLUSTER = """\
# A Ray cluster on Kubernetes, with the KubeRay operator (1.3 or newer). Its nodes come and go with
# the work. Needs a claim of the volume that all pods share, named {claim}.
#   kubectl apply -f cluster.yaml
#   kubectl port-forward service/{label}-head-svc 8265     # leave it open
#   python -m orchestrator check --address http://127.0.0.1:8265 --home {home}
# From a machine that does not see {home}, give `home` of clusters.yaml and --cluster.
"""
_JOB = """\
# The study {name} on Kubernetes, with the KubeRay operator (1.3 or newer). Needs a claim of the
# volume that all pods share, named {claim}; its home {home} keeps the results.
#   kubectl apply -f study.yaml
#   kubectl get rayjob {label} --watch
#   kubectl logs --follow job/{label}        # what `submit` prints
# A head that dies is replaced, and the study goes on where it was. Delete it, and apply it again to
# go on later:  kubectl delete -f study.yaml
"""
_CLAIM = "vision-orchestrator"  # of the shared volume
_STUDIES = "/studies"  # in the pods: the study file


class _Text(str):
    """Is written as a block, line by line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    _Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def manifest(request: Request) -> str:
    """Return a RayJob that runs a study, with its file; without a study a RayCluster."""
    form = _JOB if request.study else _CLUSTER
    words = {"claim": _CLAIM, "label": request.label, "home": request.home, "name": request.name}
    documents = yaml.dump_all(objects(request), Dumper=_Dumper, sort_keys=False, width=100)
    return form.format(**words) + documents


def objects(request: Request) -> list[dict[str, Any]]:
    """Return the objects of Kubernetes."""
    if request.study is None:
        return [_object("ray.io/v1", "RayCluster", request) | {"spec": _cluster(request)}]
    job = _object("ray.io/v1", "RayJob", request) | {"spec": _job(request)}
    files = _files(request)
    return [_object("v1", "ConfigMap", request) | {"data": files}, job] if files else [job]


def _files(request: Request) -> dict[str, str]:
    """Return what the pods find in the folder of the study: file name → text."""
    files: dict[str, str] = {}
    if request.text is not None:
        files[f"{request.label}.yaml"] = _Text(request.text)
    if request.study is not None and request.mlflow is not None:
        files["mlflow.yaml"] = _Text(mlflow_file(request.mlflow))
    return files


def _object(api: str, kind: str, request: Request) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "vision-orchestrator"}
    if request.queue and kind != "ConfigMap":
        labels["kueue.x-k8s.io/queue-name"] = request.queue
    return {"apiVersion": api, "kind": kind,
            "metadata": {"name": request.label, "labels": labels}}  # fmt: skip


def _job(request: Request) -> dict[str, Any]:
    file = f"{_STUDIES}/{request.label}.yaml"
    study = str(request.study) if request.text is None else file
    options = {"address": "http://127.0.0.1:8265", "home": request.home, "data": request.data}
    if request.mlflow is not None:
        options["mlflow"] = f"{_STUDIES}/mlflow.yaml"
    words = shlex.join(word for name, value in options.items() for word in (f"--{name}", value))
    spec = {
        "entrypoint": f"python -m orchestrator {submit_words(request, study)} {words}",
        "backoffLimit": 3,  # a head that was lost: another cluster goes on with the study
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "rayClusterSpec": _cluster(request),
    }
    return {"suspend": True, **spec} if request.queue else spec


def _cluster(request: Request) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": str(request.gpus)} if request.gpus else {}
    worker = {"cpu": str(request.cpus), "memory": "16Gi", **gpus}
    return {
        "rayVersion": version("ray"),  # a cluster has that of who submits
        "enableInTreeAutoscaling": True,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": _pod(request, "ray-head", {"cpu": "2", "memory": "8Gi"}),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": 0,
                "minReplicas": 0,
                "maxReplicas": max(request.workers, 4),
                "rayStartParams": {},
                "template": _pod(request, "ray-worker", worker),
            }
        ],
    }


def _pod(request: Request, name: str, resources: dict[str, str]) -> dict[str, Any]:
    """Return the template of a pod, whose requests are its limits: Ray counts the limits."""
    volumes: list[dict[str, Any]] = [
        {"name": "shared", "persistentVolumeClaim": {"claimName": _CLAIM}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]
    mounts = [
        {"name": "shared", "mountPath": _shared(request)},
        {"name": "memory", "mountPath": "/dev/shm"},  # tensors that processes hand to each other
    ]
    if _files(request):
        volumes += [{"name": "study", "configMap": {"name": request.label}}]
        mounts += [{"name": "study", "mountPath": _STUDIES}]
    container = {
        "name": name,
        "image": request.image,
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": mounts,
    }
    return {"spec": {"containers": [container], "volumes": volumes}}


def _shared(request: Request) -> str:
    """Return the folder where the volume is mounted: the first part of the home's path."""
    return "/" + request.home.strip("/").partition("/")[0]
