"""What a study may ask of nodes: its form, and how keys of a stage replace those of the study."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.needs.labels import matches
from orchestrator.needs.nodes import Node
from orchestrator.needs.resources import Resources


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"gpu": "A100", "gpus_per_worker": 0.0}, "gpus_per_worker is 0: remove one of both"),
        ({"gpu": "no such thing"}, "pattern"),
        ({"memory_gb": 0}, "greater than 0"),
        ({"labels": {"zone": "a b"}}, "is no value of a label"),
        ({"labels": {"zone": []}}, "is no value of a label"),
        ({"labels": {"a zone": "a"}}, "pattern"),
        ({"custom": {"CPU": 1.0}}, "has a key of its own"),
        ({"custom": {"accelerator_type:A100": 1.0}}, "has a key of its own"),
        ({"custom": {"license": 1.5}}, "whole numbers only"),
    ],
)
def test_what_no_node_can_have_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Resources(**keys)


@pytest.mark.parametrize(
    ("written", "fits"),
    [
        ("a", {"a"}),
        ("!a", {"b", "c", None}),
        (["a", "b"], {"a", "b"}),
        ("in(a,b)", {"a", "b"}),
        ("!in(a, b)", {"c", None}),
    ],
)
def test_a_label_names_nodes(written: str | list[str], fits: set[str | None]) -> None:
    selectors = Resources(labels={"zone": written}).selectors()
    found = {
        value
        for value in ("a", "b", "c", None)
        if matches(selectors, {} if value is None else {"zone": value})
    }
    assert found == fits


def test_a_node_is_what_ray_says_of_it() -> None:
    resources = {"CPU": 4.0, "memory": 8e9, "object_store_memory": 1e9, "node:10.0.0.1": 1.0,
                 "accelerator_type:A100": 1.0, "GPU": 2.0}  # fmt: skip
    node = Node.of(resources, {"zone": "a"})
    assert node == Node(4.0, 2.0, 8e9, (("accelerator_type:A100", 1.0),), (("zone", "a"),))


def test_keys_of_a_stage_replace_those_of_the_study() -> None:
    study = Resources(workers=2, labels={"zone": "a"}, max_failures=5)
    stage = Resources(gpu="A100", labels={"disk": ["ssd", "nvme"]})
    both = stage.over(study)
    assert (both.workers, both.gpu, both.max_failures.node) == (2, "A100", 5)
    assert both.selectors() == {"disk": "in(ssd, nvme)"}
    with pytest.raises(ValidationError, match="remove one of both"):
        stage.over(Resources(gpus_per_worker=0))
