"""Read clusters.yaml, which names clusters: `lab: {ray: http://HEAD:8265, home: /shared/home}`.

It stands beside `--mlflow FILE`, else in the working folder, else in the user's configuration
folder, ~/.config/vision-orchestrator.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.config.errors import ErrorList, Refused, StudyError, suggestion
from orchestrator.config.mlflow_settings import FILE, ClusterSettings, MlflowSettings
from orchestrator.config.yaml_loader import YamlError, read_mapping
from orchestrator.needs.environment import Environment

CLUSTERS = "clusters.yaml"


def clusters_file(mlflow_file: str | None) -> Path:
    """Return the clusters.yaml that counts; where there is none, that of the user."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    own = Path(base).expanduser() / "vision-orchestrator" / CLUSTERS
    near = Path(mlflow_file or FILE).parent / CLUSTERS
    return near if os.path.lexists(near) else own


def read_clusters(path: Path) -> dict[str, ClusterSettings]:
    """Return name → cluster; none where there is no file. Raises StudyError with all errors."""
    if not os.path.lexists(path):
        return {}
    try:
        mapping = read_mapping(path)
    except YamlError as error:
        raise StudyError(str(path), [str(error)]) from error
    errors = ErrorList()
    found = {name: errors.validate(ClusterSettings, value, str(name))
             for name, value in mapping.items()}  # fmt: skip
    if errors.lines:
        raise StudyError(str(path), errors.lines)
    return {str(name): cluster for name, cluster in found.items() if cluster is not None}


def choose_cluster(name: str | None, mlflow_file: str | None) -> ClusterSettings | None:
    """Return the cluster that `--cluster` names, and log this process in to it; None without a
    name. Raises Refused or StudyError."""
    if name is None:
        return None
    path = clusters_file(mlflow_file)
    clusters = read_clusters(path)
    if name not in clusters:
        known = suggestion(name, clusters) or f" (it names {', '.join(clusters) or 'none'})"
        raise Refused(f"--cluster {name}: no such cluster in {path}{known}", 2)
    cluster = clusters[name]
    if cluster.token is not None:
        log_in(_token_of(cluster, f"{path}: {name}.token"))
    return cluster


def log_in(token: str) -> None:
    """Give this process a token for Ray, where Ray's own client looks for it."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def _token_of(cluster: ClusterSettings, key: str) -> str:
    """Return the token of a cluster that has one. key: names it in errors. Raises Refused."""
    source = cluster.token
    if source is not None and source.env is not None:
        token = os.environ.get(source.env, "").strip()
        if not token:
            raise Refused(f"{key}.env: the environment variable {source.env} is not set", 2)
        return token
    file = Path(str(source and source.file)).expanduser()
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise Refused(f"{key}.file: {file} cannot be read ({why})", 2) from error
    if not token:
        raise Refused(f"{key}.file: {file} is empty", 2)
    return token


def with_mlflow(settings: MlflowSettings, cluster: ClusterSettings | None) -> MlflowSettings:
    """Return the settings of MLflow, with the address that a cluster names, if any."""
    if cluster is None or cluster.mlflow is None:
        return settings
    return settings.model_copy(update={"tracking_uri": cluster.mlflow})


def missing_settings(cluster: ClusterSettings | None, study: Mapping[str, object]) -> list[str]:
    """Return what a cluster sets of `resources` and `environment` and a study does not, as values
    of `--set`."""
    if cluster is None:
        return []
    own = study.get("resources") or {}
    found = [
        f"resources.{key}={json.dumps(value)}"
        for key, value in cluster.resources.written().items()
        if not (isinstance(own, Mapping) and key in own)
    ]
    if theirs := cluster.environment.written():
        written = Environment.model_validate(study.get("environment") or {})
        both = written.over(cluster.environment).written() if written.written() else theirs
        found.append(f"environment={json.dumps(both)}")
    return found
