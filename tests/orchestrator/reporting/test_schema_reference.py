"""Every key of a study file is described, in the terminal and in the study reference alike."""

import json
import re
from pathlib import Path

import pytest
import yaml

import orchestrator.config
from orchestrator.cli.main import main
from orchestrator.config.errors import StudyError
from orchestrator.config.study_loader import from_mapping
from orchestrator.reporting.schema_reference import (
    GROUPS,
    Topic,
    markdown,
    names_text,
    topic_text,
    topics,
)
from trainables.data.datasets import DATASETS
from trainables.tasks.registry import PRODUCERS, TRAINABLES

REFERENCE = Path(str(orchestrator.config.__file__)).with_name("README.md")
TOPICS = topics()


def key(topic: str, name: str) -> dict[str, object]:
    (found,) = [key for key in TOPICS[topic].plain()["keys"] if key["name"] == name]
    return dict(found)


def test_the_study_reference_is_what_the_code_generates() -> None:
    command = "python -m orchestrator describe --markdown > orchestrator/config/README.md"
    assert REFERENCE.read_text(encoding="utf-8") == markdown(), f"run {command}"


def test_everything_that_a_study_can_name_is_described() -> None:
    named = {*TRAINABLES, *PRODUCERS, *DATASETS, "search", "resources", "compare", "study", "stage"}
    assert named <= TOPICS.keys()
    assert {topic.group for topic in TOPICS.values()} == set(GROUPS)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_every_key_has_a_meaning_and_fits_80_columns(topic: Topic) -> None:
    assert topic.about
    assert [key.name for key in topic.keys if not key.meaning] == []
    lines = topic_text(topic).splitlines()
    assert max(map(len, lines)) <= 80
    first_words = {line.split(" ")[0] for line in lines}
    assert {key.name for key in topic.keys} <= first_words
    assert all(key.name in markdown() for key in topic.keys)


@pytest.mark.parametrize(
    ("topic", "name", "expected"),
    [
        ("classify", "epochs", ("whole number", "≥ 1 and ≤ 1000000", False, 20)),
        ("classify", "dataset", ("text", "", True, None)),
        ("classify", "small_input", ("true or false", "", False, False)),
        ("byol", "momentum_schedule", ("constant, cosine", "", False, "constant")),
        ("segment", "crop", ("whole number", "≥ 32", False, None)),
        ("segment", "scales", ("list of 2 numbers", "> 0", False, [0.5, 2.0])),
        ("classify", "changes", ("list of mappings (see `changes`)", "", False, [])),
        ("resources", "cpus_per_worker", ("auto or whole number", "≥ 1", False, "auto")),
        ("compare", "differences", ("list of lists of 2 texts", "", False, [])),
        ("study", "stages", ("mapping of name → mapping (see `stage`)", "", True, None)),
        ("sam", "weights", ("text", "", False, None)),
        ("cifar10", "size", ("whole number", "≥ 4 and ≤ 8192", False, 32)),
    ],
)
def test_a_key_has_type_range_and_default(
    topic: str, name: str, expected: tuple[str, str, bool, object]
) -> None:
    row = key(topic, name)
    assert (row["type"], row["range"], row["required"], row["default"]) == expected


def test_a_key_that_only_gets_another_default_keeps_its_meaning() -> None:
    assert key("byol", "lr")["meaning"] == key("classify", "lr")["meaning"]
    assert key("byol", "lr")["default"] != key("classify", "lr")["default"]


def test_a_data_set_type_has_no_keys_of_other_types() -> None:
    names = {name: {key.name for key in TOPICS[name].keys} for name in ("csv", "office_home")}
    assert names["office_home"] - names["csv"] == {"domains"}
    assert "download" not in names["csv"]
    assert not {"images", "masks", "classes", "name_pattern"} & names["csv"]


def test_names_stand_in_groups_80_columns_wide() -> None:
    text = names_text(TOPICS.values())
    assert max(map(len, text.splitlines())) <= 80
    assert set(re.findall(r"[\w.]+", text)) >= TOPICS.keys()


def test_the_example_of_the_reference_is_a_study_and_its_errors_are_those_shown() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    example = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert len(from_mapping(example).stages) == 3
    example["stages"]["rotation"]["config"]["epocs"] = 1
    example["stages"]["tuned"]["after"] = "rotations"
    with pytest.raises(StudyError) as error:
        from_mapping(example, "flowers.yaml")
    assert f"```text\nerror: {error.value}\n```" in text


def test_the_command_prints_a_topic_names_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "segment"]) == 0
    assert capsys.readouterr().out == topic_text(TOPICS["segment"]) + "\n"
    assert main(["describe"]) == 0
    assert capsys.readouterr().out == names_text(TOPICS.values()) + "\n"
    assert main(["describe", "segment", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == TOPICS["segment"].plain()
    assert main(["describe", "--json"]) == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)] == list(TOPICS)
    assert main(["describe", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown()


def test_an_unknown_name_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "clasify"]) == 2
    line = "error: nothing is called 'clasify' (did you mean 'classify'?)\n"
    assert capsys.readouterr().err == line
