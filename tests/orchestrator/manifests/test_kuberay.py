"""The YAML for KubeRay: its pods fit Kubernetes' own schema, its cluster what Ray's autoscaler
reads."""

from typing import Any

import kubernetes_validate
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from tests.orchestrator.manifests.samples import STUDY, printed, study_file

KUBERNETES = "1.30"


def objects(capsys, *arguments: str) -> dict[str, dict[str, Any]]:
    """Kind → object, each checked as far as Kubernetes knows it."""
    found = {
        item["kind"]: item for item in yaml.safe_load_all(printed("kuberay", capsys, *arguments))
    }
    if "ConfigMap" in found:
        kubernetes_validate.validate(found["ConfigMap"], KUBERNETES, strict=True)
    cluster = cluster_of(found)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    return found


def cluster_of(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if "RayCluster" in found:
        return dict(found["RayCluster"]["spec"])
    return dict(found["RayJob"]["spec"]["rayClusterSpec"])


def as_autoscaler(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What Ray's autoscaler makes of the cluster."""
    meta = {"name": "a", "namespace": "b"}
    return dict(
        _derive_autoscaling_config_from_ray_cr({"metadata": meta, "spec": cluster_of(found)})
    )


def test_a_job_brings_its_study(capsys, tmp_path) -> None:
    found = objects(capsys, study_file(tmp_path), "--set", "seeds=[0, 1]", "--queue", "team")
    assert found["ConfigMap"]["data"] == {"my-photos-2.yaml": STUDY}
    job = found["RayJob"]
    assert (
        job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team" and job["spec"]["suspend"]
    )
    assert job["spec"]["entrypoint"] == (
        "python -m orchestrator submit /studies/my-photos-2.yaml --set 'seeds=[0, 1]' "
        "--address http://127.0.0.1:8265 --home /shared/home --data /shared/data"
    )
    (container,) = cluster_of(found)["headGroupSpec"]["template"]["spec"]["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"shared": "/shared", "memory": "/dev/shm", "study": "/studies"}


def test_the_autoscaler_sees_what_a_worker_has(capsys, tmp_path) -> None:
    seen = as_autoscaler(objects(capsys, study_file(tmp_path)))
    worker = seen["available_node_types"]["workers"]
    assert worker["resources"]["CPU"] == 4 and worker["resources"]["GPU"] == 1
    assert (worker["min_workers"], worker["max_workers"]) == (0, 4)
    head = seen["available_node_types"][seen["head_node_type"]]
    assert head["resources"]["CPU"] == 0 and "GPU" not in head["resources"]


def test_a_built_in_study_needs_no_file_but_that_of_mlflow(capsys, tmp_path, monkeypatch) -> None:
    assert set(objects(capsys, "digits")) == {"RayJob"}
    study_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = objects(capsys, "digits", "--cluster", "lab")
    assert found["ConfigMap"]["data"] == {"mlflow.yaml": "tracking_uri: http://tracking:5000\n"}
    entrypoint = found["RayJob"]["spec"]["entrypoint"]
    assert entrypoint.startswith("python -m orchestrator submit digits --address")
    assert entrypoint.endswith("--home /lab/home --data /lab/images --mlflow /studies/mlflow.yaml")


def test_without_a_study_it_is_a_cluster_that_stays(capsys) -> None:
    found = objects(capsys)
    assert set(found) == {"RayCluster"}
    assert "kueue.x-k8s.io/queue-name" not in found["RayCluster"]["metadata"]["labels"]
