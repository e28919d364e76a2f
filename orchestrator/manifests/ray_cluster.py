"""YAML for Ray's own cluster launcher, `ray up`: machines that are reached with ssh."""

from typing import Any

import yaml

from orchestrator.manifests.request import Request, submit_words

_HEAD = """\
# A Ray cluster of machines that you reach with ssh. Write their addresses below, then:
#   ray up --yes cluster.yaml            # starts Ray on all of them
#   ray dashboard cluster.yaml           # leave it open: the dashboard is at http://127.0.0.1:8265
#   python -m orchestrator check --address http://127.0.0.1:8265 --home {home}
#   python -m orchestrator {submit} --address http://127.0.0.1:8265 --home {home}
#   ray down --yes cluster.yaml
# {home} is a folder that this machine and all of them see under this path. `provider` may
# name a cloud instead: https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html
"""


def cluster(request: Request) -> str:
    """Return the YAML, with the image of `manifest docker`."""
    head = _HEAD.format(home=request.home, submit=submit_words(request, request.study or "digits"))
    return head + yaml.safe_dump(as_mapping(request), sort_keys=False)


def as_mapping(request: Request) -> dict[str, Any]:
    """Return what the YAML holds."""
    folders = dict.fromkeys([request.home, request.data])
    options = [f"--volume={folder}:{folder}" for folder in folders]
    options += ["--shm-size=8g"]
    gpus = ["--gpus=all"] if request.gpus else []
    return {
        "cluster_name": request.label,
        "provider": {
            "type": "local",
            "head_ip": "HEAD",
            "worker_ips": [f"NODE{number}" for number in range(1, request.workers + 1)],
        },
        "auth": {"ssh_user": "USER"},
        "docker": {
            "image": request.image,
            "container_name": request.label,
            "run_options": options,
            "worker_run_options": gpus,
        },
        "max_workers": request.workers,
        "head_start_ray_commands": [
            "ray stop",
            "ray start --head --num-cpus=0 --port=6379 --dashboard-host=127.0.0.1 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": ["ray stop", "ray start --address=$RAY_HEAD_IP:6379"],
    }
