"""What a study and a cluster decide of a manifest."""

import pytest

from orchestrator.cli.main import _FLAGS
from orchestrator.config.mlflow_settings import ClusterSettings
from orchestrator.config.study_loader import from_mapping
from orchestrator.manifests.registry import MANIFESTS
from orchestrator.manifests.request import Request, asked_for


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("digits", "digits"),
        ("My_Photos-2", "my-photos-2"),
        ("2photos", "study-2photos"),
        ("a" * 60, "a" * 40),
        ("x" * 39 + "_y", "x" * 39),
        ("été", "t"),
        ("___", "study"),
    ],
)
def test_a_name_becomes_one_that_kubernetes_takes(name: str, label: str) -> None:
    assert Request(name=name).label == label


def study(**resources: object):
    stages = {"only": {"trainable": "classify", "config": {"dataset": "digits", "epochs": 1}}}
    return from_mapping(
        {"study": "small", "data": {"digits": "digits"}, "stages": stages, "resources": resources}
    )


def test_a_fraction_of_a_gpu_asks_for_a_whole_one() -> None:
    found = asked_for(study(workers=2, cpus_per_worker=3, gpus_per_worker=0.5), None, {})
    assert found == Request(name="small", workers=2, cpus=3, gpus=1)
    assert asked_for(study(gpus_per_worker=0), None, {}).gpus == 0
    assert asked_for(study(gpus_per_worker=4), None, {}).gpus == 4


def test_what_a_study_leaves_open_has_a_value_to_change() -> None:
    assert asked_for(study(), None, {}) == Request(name="small", workers=1, cpus=8, gpus=1)


def test_a_cluster_names_its_folders_and_what_is_given_counts_more() -> None:
    cluster = ClusterSettings(ray="http://h:8265", home="/h", data="/d", mlflow="http://m:5000")
    found = asked_for(None, cluster, {"home": "/mine", "image": None, "queue": "q"})
    assert found == Request(home="/mine", data="/d", mlflow="http://m:5000", queue="q")
    assert asked_for(None, None, {}) == Request()


def test_the_command_line_knows_every_kind() -> None:
    _, options = _FLAGS["kind"]
    assert sorted(options["choices"]) == sorted(MANIFESTS)
