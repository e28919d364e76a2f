"""The kinds of manifests. To add one: a file here with a function Request → text, and a line."""

from collections.abc import Callable

from orchestrator.manifests import docker, kuberay, ray_cluster, slurm
from orchestrator.manifests.request import Request

MANIFESTS: dict[str, Callable[[Request], str]] = {
    "docker": docker.dockerfile,
    "kuberay": kuberay.manifest,
    "ray": ray_cluster.cluster,
    "slurm": slurm.script,
}
