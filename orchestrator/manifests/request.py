"""Describes what a manifest is made for: a study, what one of its Runs needs, where things lie."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.mlflow_settings import ClusterSettings
from orchestrator.config.study_schema import Study
from orchestrator.config.yaml_loader import built_in_studies, find, read_text

HOME, DATA = "/shared/home", "/shared/data"  # where clusters.yaml says nothing else
NAME = "vision-orchestrator"
IMAGE = f"{NAME}:latest"
_CPUS, _GPUS = 8, 1  # of a worker, where the study leaves it to the cluster
_LONGEST = 40  # characters: KubeRay makes longer names of it, which end at 63


@dataclass(frozen=True)
class Request:
    """Describes what is asked for.

    study: what `submit` gets, a file or the name of a built-in study; None: no study is started.
    text: the study file's content; None for a built-in study. settings: KEY=VALUE of its `--set`.
    workers, cpus, gpus: of one Run, and of each of its workers. home, data: folders that all hosts
    see. mlflow: address of a server; None: one in the home. queue: a Slurm partition or a queue of
    Kueue.
    """

    study: str | None = None
    text: str | None = None
    settings: tuple[str, ...] = ()
    name: str = NAME
    workers: int = 1
    cpus: int = _CPUS
    gpus: int = _GPUS
    home: str = HOME
    data: str = DATA
    mlflow: str | None = None
    image: str = IMAGE
    queue: str | None = None

    @property
    def label(self) -> str:
        """Return the name as Kubernetes and Slurm take it: lower case, digits, hyphens."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower())[:_LONGEST].strip("-")
        return plain if plain[:1].isalpha() else f"study-{plain}".strip("-")


def asked_for(
    study: Study | None, cluster: ClusterSettings | None, given: Mapping[str, Any]
) -> Request:
    """Return what is asked for by a study, an entry of clusters.yaml, and by name. given: fields of
    a `Request`, which count most; None is not given."""
    fields: dict[str, Any] = {}
    if study is not None:
        wanted = study.resources
        cpus, gpus = wanted.cpus_per_worker, wanted.gpus_per_worker
        fields |= {
            "name": study.name,
            "workers": wanted.workers,
            "cpus": _CPUS if isinstance(cpus, str) else cpus,
            "gpus": _GPUS if isinstance(gpus, str) else math.ceil(gpus),
        }
    if cluster is not None:
        there = {"home": cluster.home, "data": cluster.data, "mlflow": cluster.mlflow,
                 "image": cluster.image}  # fmt: skip
        fields |= {name: str(value) for name, value in there.items() if value}
    return Request(**fields | {name: value for name, value in given.items() if value is not None})


def source_of(study: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """Return the fields that say where a study comes from. study: a file, or the name of a built-in
    study; settings: of `--set`. Raises StudyError."""
    if study is None:
        return {}
    path = find(study)
    if path == built_in_studies().get(study):
        return {"study": study, "settings": tuple(settings)}
    return {"study": str(path.absolute()), "text": read_text(path), "settings": tuple(settings)}


def submit_words(request: Request, study: str) -> str:
    """Return `submit STUDY --set ...` for a shell."""
    words = ["submit", study, *(word for item in request.settings for word in ("--set", item))]
    return shlex.join(words)


def mlflow_file(address: str) -> str:
    """Return an mlflow.yaml that names a server."""
    return f"tracking_uri: {address}\n"
