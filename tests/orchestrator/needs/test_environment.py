"""What a study may say of packages and variables, and what a cluster adds to it."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.needs.environment import Environment


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pip": ["a"], "uv": ["b"]}, "installs by one of both"),
        ({"pip": [" "]}, "pattern"),
        ({"env": {"RAY_ADDRESS": "x"}}, "are set by others"),
        ({"env": ["ORCHESTRATOR_HOME"]}, "are set by others"),
        ({"env": {"A": "$HOME/x"}}, "a text without"),
        ({"env": {"A": "x${B}"}}, "a text without"),
        ({"env": {"a b": "x"}}, "pattern"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Environment(**keys)


def test_named_variables_are_apart_from_plain_ones() -> None:
    named = Environment(env={"MODE": "fast", "HF_TOKEN": "${TEAM_TOKEN}"})
    assert named.plain == {"MODE": "fast"} and named.sources == {"HF_TOKEN": "TEAM_TOKEN"}
    listed = Environment(env=["HF_TOKEN"])
    assert listed.plain == {} and listed.sources == {"HF_TOKEN": "HF_TOKEN"}


def test_a_study_replaces_packages_of_a_cluster_and_single_variables() -> None:
    cluster = Environment(pip=["timm"], env={"A": "1", "B": "${B}"})
    study = Environment(uv=["einops"], env=["A"])
    both = study.over(cluster)
    assert both.packages == {"uv": ["einops"]}
    assert (both.plain, both.sources) == ({}, {"A": "A", "B": "B"})
    assert Environment(env={"C": "2"}).over(cluster).packages == {"pip": ["timm"]}
