"""Old keys of studies mean what they meant, and one warning says the new name."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.errors import StudyError
from orchestrator.config.renamed_keys import rename_old_keys
from orchestrator.config.study_loader import from_mapping, read
from orchestrator.config.study_schema import Study

STUDY = yaml.safe_load("""
study: s
data: {x: digits}
stages:
  A: {trainable: classify, config: {dataset: x, epochs: 2}}
  B: {trainable: classify, config: {dataset: x, epochs: 2}}
""")
SMALL_INPUT = (
    "`stem` is now called `small_input`: write `small_input: true` for `stem: small`, "
    "`small_input: false` for `stem: imagenet`"
)
DIFFERENCES = "compare: `gains` is now called `differences`"


def written(folder: Path, **stage: Any) -> str:
    mapping = copy.deepcopy(STUDY)
    for key, value in stage.items():
        mapping["stages"]["A"].setdefault(key, {}).update(value)
    file = folder / "s.yaml"
    file.write_text(yaml.safe_dump(mapping, sort_keys=False), encoding="utf-8")
    return str(file)


def small_inputs(study: Study) -> list[bool]:
    configs = [variant.config for variant in study.stages[0].variants]
    return [config.model_dump()["small_input"] for config in configs]


@pytest.mark.parametrize(("old", "new"), [("small", True), ("imagenet", False)])
def test_stem_in_a_config_is_small_input(tmp_path: Path, old: str, new: bool) -> None:
    study = read(written(tmp_path, config={"stem": old}))
    assert small_inputs(study) == [new]
    assert study.warnings == (f"stages.*.config: {SMALL_INPUT}",)
    assert list(study.mapping["stages"]["A"]["config"]) == ["dataset", "epochs", "small_input"]


def test_stem_in_a_grid_is_small_input_in_labels_too(tmp_path: Path) -> None:
    study = read(written(tmp_path, grid={"stem": ["imagenet", "small"]}))
    assert small_inputs(study) == [False, True]
    values = [variant.values for variant in study.stages[0].variants]
    assert values == [(("small_input", False),), (("small_input", True),)]
    assert study.warnings == (f"stages.*.grid: {SMALL_INPUT}",)


def test_stem_in_the_space_of_a_search_is_small_input(tmp_path: Path) -> None:
    space = {"stem": {"choice": ["small", "imagenet"]}}
    study = read(written(tmp_path, search={"trials": 2, "space": space}))
    (axis,) = study.searches["A"].space.items()
    assert (axis[0], axis[1].choice) == ("small_input", [True, False])
    assert study.warnings == (f"stages.*.search.space: {SMALL_INPUT}",)
    mapping = {"stages": {"A": {"search": {"space": {"P.stem": {"choice": ["small"]}}}}}}
    assert len(rename_old_keys(mapping)) == 1
    assert mapping["stages"]["A"]["search"]["space"] == {"P.small_input": {"choice": [True]}}


def test_gains_are_differences(tmp_path: Path) -> None:
    study = from_mapping({**STUDY, "compare": {"gains": [["A", "B"]]}})
    assert study.compare.differences == [["A", "B"]]
    assert study.warnings == (DIFFERENCES,)
    assert from_mapping(study.mapping).warnings == ()
    assert from_mapping(study.mapping) == study


@pytest.mark.parametrize(
    ("settings", "expected", "warnings"),
    [
        (["stages.A.config.stem=small"], True, (f"stages.*.config: {SMALL_INPUT}",)),
        (["stages.A.config.small_input=true", "stages.A.config.stem=imagenet"], False,
         (f"stages.*.config: {SMALL_INPUT}",)),
        (["stages.A.config.stem=imagenet", "stages.A.config.small_input=true"], True,
         (f"stages.*.config: {SMALL_INPUT}",)),
        (["stages.A.config.small_input=true"], True, ()),
    ],
)  # fmt: skip
def test_the_last_setting_wins_under_either_name(
    tmp_path: Path, settings: list[str], expected: bool, warnings: tuple[str, ...]
) -> None:
    study = read(written(tmp_path, config={"small_input": not expected}), settings)
    assert small_inputs(study) == [expected]
    assert study.warnings == warnings


def test_gains_in_a_setting_are_differences(tmp_path: Path) -> None:
    study = read(written(tmp_path), ["compare.gains=[[A, B]]"])
    assert study.compare.differences == [["A", "B"]]
    assert study.warnings == (DIFFERENCES,)


def test_several_places_are_one_warning(tmp_path: Path) -> None:
    mapping = copy.deepcopy(STUDY)
    for stage in mapping["stages"].values():
        stage["config"]["stem"] = "small"
    assert from_mapping(mapping).warnings == (f"stages.*.config: {SMALL_INPUT}",)
    assert "stem" in mapping["stages"]["A"]["config"]  # the caller's mapping is left as it is


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"stem": "tiny"}, "small_input: input should be a valid boolean, not 'tiny'"),
        ({"stem": "small", "small_input": True}, "stem: unknown key"),
    ],
)
def test_an_old_key_with_a_wrong_value_or_beside_the_new_one_is_an_error(
    tmp_path: Path, config: dict[str, Any], line: str
) -> None:
    with pytest.raises(StudyError, match=f"stages.A.config.{line}"):
        read(written(tmp_path, config=config))


@pytest.mark.parametrize("mapping", [{}, {"stages": 3}, {"stages": {"A": {"config": []}}},
                                     {"compare": None}])  # fmt: skip
def test_a_study_of_another_shape_is_left_alone(mapping: dict[str, Any]) -> None:
    before = copy.deepcopy(mapping)
    assert rename_old_keys(mapping) == []
    assert mapping == before


@pytest.mark.parametrize(("old", "new"), [("fail", "error"), ("drop", "drop")])
def test_on_copies_of_a_data_set_is_on_duplicates(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "s.yaml"
    data = {"x": {"type": "digits", "on_copies": old}, "y": "digits"}
    file.write_text(yaml.safe_dump({**STUDY, "data": data}), encoding="utf-8")
    study = read(str(file))
    assert study.data["x"].on_duplicates == new
    assert study.data["y"].on_duplicates == "error"
    assert study.warnings == (
        "data.*: `on_copies` is now called `on_duplicates`: write `on_duplicates: error` for "
        "`on_copies: fail`",
    )
