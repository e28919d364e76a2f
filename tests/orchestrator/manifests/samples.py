"""What the tests beside this file make manifests for."""

from pathlib import Path

from orchestrator.cli.main import main

STUDY = """
study: My_Photos-2
question: Does it run?
data: {digits: {type: digits, limit: 60}}
resources: {workers: 3, cpus_per_worker: 4, gpus_per_worker: 0.5}
stages:
  full: {trainable: classify, config: {dataset: digits, epochs: 1}}
"""
CLUSTERS = """
lab: {ray: "http://head:8265", home: /lab/home, data: /lab/images, mlflow: "http://tracking:5000"}
"""


def printed(kind: str, capsys, *arguments: str) -> str:
    """What `manifest` prints."""
    assert main(["manifest", kind, *arguments]) == 0
    return str(capsys.readouterr().out)


def study_file(folder: Path) -> str:
    """A study file, with a cluster of clusters.yaml beside it."""
    (folder / "clusters.yaml").write_text(CLUSTERS)
    path = folder / "a study.yaml"
    path.write_text(STUDY)
    return str(path)
