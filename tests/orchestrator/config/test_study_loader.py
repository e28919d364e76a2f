"""Every error of a study is one line by its dotted key; what is read is whole, ordered, frozen."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.errors import StudyError
from orchestrator.config.study_loader import from_mapping, read
from orchestrator.config.yaml_loader import apply_setting, built_in_studies
from tests.trainables.tasks.test_sam import small_sam

STUDY = yaml.safe_load("""
study: s
data: {x: digits}
stages:
  P: {trainable: rotation, config: {dataset: x}}
  A: {trainable: classify, after: P, config: {dataset: x}}
""")


def changed(*settings: str) -> dict[str, Any]:
    """STUDY with some values replaced."""
    mapping = copy.deepcopy(STUDY)
    for setting in settings:
        apply_setting(mapping, setting)
    return mapping


def errors(mapping: dict[str, Any]) -> list[str]:
    """The error lines of a study, without the head line that counts them."""
    with pytest.raises(StudyError) as error:
        from_mapping(mapping, "s.yaml")
    head, *lines = str(error.value).split("\n")
    assert head == f"s.yaml: {len(lines)} error{'s' if len(lines) > 1 else ''}"
    assert all(line.startswith("  ") for line in lines)
    return [line[2:] for line in lines]


NAME = "may hold letters, digits, '_' and '-', 64 at most"
ERROR_OF_THE_KEY_THAT_IS_SET = [
    # keys that do not exist, at every level
    ("studdy=1", "unknown key (did you mean 'study'?)"),
    ("data.x.sise=8", "unknown key (did you mean 'size'?)"),
    ("resources.worker=2", "unknown key (did you mean 'workers'?)"),
    ("compare.metrik=a", "unknown key (did you mean 'metric'?)"),
    ("stages.A.afer=P", "unknown key (did you mean 'after'?)"),
    (
        "stages.A.zzz=1",
        "unknown key (keys: trainable, producer, after, weights, config, grid, seeds, search, "
        "resources)",
    ),
    ("stages.A.config.epocs=3", "unknown key (did you mean 'epochs'?)"),
    ("stages.A.grid.epocs=[1]", "unknown key (did you mean 'epochs'?)"),
    # names of things that do not exist
    ("stages.A.after=PP", "no stage 'PP' (did you mean 'P'?)"),
    ("stages.A.after=Q", "no stage 'Q' (stages: P, A)"),
    ("stages.A.config.dataset=y", "no data 'y' (there are: x)"),
    ("stages.A.trainable=clasify", "no trainable 'clasify' (did you mean 'classify'?)"),
    ("stages.P.config.weights=/no/w.pt", "there is no file /no/w.pt"),
    ("stages.P.weights=/no/w.pt", "there is no file /no/w.pt"),
    ("compare.stages=[B]", "no stage 'B' (stages: P, A)"),
    ("compare.metric=test/acuracy", "no stage reports 'test/acuracy' "
     "(did you mean 'test/accuracy'?)"),
    # what does not fit the parent
    ("stages.A.config.backbone=resnet50", "is 'resnet50', but its parent 'P' has 'resnet18', "
     "and weights must fit: give both the same"),
    ("stages.A.config.small_input=true", "is True, but its parent 'P' has False, "
     "and weights must fit: give both the same"),
    ("stages.A.config.weights=imagenet", "is 'imagenet', but the stage starts from the "
     "weights of 'P': remove `weights` or `after`"),
    ("stages.A.seeds=[0, 1]", "a Run of seed s starts from its parent's Run of seed s, "
     "but 'P' has no seed 1"),
    # grids and seeds
    ("stages.A.grid.lr=[]", "must be a list with at least one value, not []"),
    ("stages.A.grid.lr=[0.1, 0.1]", "lists a value twice: [0.1, 0.1]"),
    ("stages.A.grid.lr=[1, 1.0]", "lists a value twice: [1, 1.0]"),
    ("stages.A.grid=3", "input should be a valid dictionary, not 3"),
    ("seeds=[0, 0]", "lists a seed twice: [0, 0]"),
    ("seeds=3", "input should be a valid list, not 3"),
    ("stages.A.seeds=[0, 0]", "lists a seed twice: [0, 0]"),
    # names
    ("study=a b", f"name 'a b' {NAME}"),
    ("study=../up", f"name '../up' {NAME}"),
    ("study=''", f"name '' {NAME}"),
    ('study="a\\n"', f"name 'a\\n' {NAME}"),
    (f"study={'a' * 65}", f"name '{'a' * 65}' {NAME}"),
    ("stages.A/B={trainable: classify, config: {dataset: x}}", f"name 'A/B' {NAME}"),
    ("data.a b=digits", f"name 'a b' {NAME}"),
    # values
    ("stages.A.config.lr=0", "input should be greater than 0, not 0"),
    ("stages.A.config.lr='1'", "input should be a valid number, not '1'"),
    ("stages.A.config.lr=.nan", "input should be a finite number, not nan"),
    ("stages.A.config.lr=.inf", "input should be a finite number, not inf"),
    ("stages.A.config.epochs=1.5", "input should be a valid integer, not 1.5"),
    ("stages.A.config.epochs=true", "input should be a valid integer, not True"),
    ("stages.A.config.train=heads", "input should be 'head', 'late' or 'full', not 'heads'"),
    ("resources.workers=0", "input should be greater than or equal to 1, not 0"),
    ("data.x=3", "input should be a valid dictionary or instance of DatasetConfig, not 3"),
    ("stages=3", "input should be a valid dictionary, not 3"),
]  # fmt: skip
ERROR_OF_ANOTHER_KEY = [
    ("compare.differences=[[A, B]]", "compare.differences[0]: no stage 'B' (stages: P, A)"),
    ("compare.differences=[[A, A]]", "compare.differences[0]: 'A' is compared with itself"),
    ("compare.differences=[[A, P]]",
     "compare.differences[0]: 'P' is not compared: name it in compare.stages"),
    ("compare={stages: [A, P], differences: [[A, P]]}",
     "compare.differences[0]: 'A' and 'P' have another task or data set: not comparable"),
    ("compare.differences=[[A]]", "compare.differences[0]: list should have at least 2 items after "
     "validation, not 1, not ['A']"),
    ("stages.A.grid.dataset=[x, y]", "stages.A.config.dataset: no data 'y' (there are: x)"),
    ("data.x=digit", "data.x.type: unknown data set 'digit' "
     "(did you mean 'digits'? there are: digits, cifar10, image_folder, csv, office_home, "
     "mini_imagenet, deepglobe, mask_folders, voc, digit_scenes)"),
    ("stages.A.config.early_stopping={patince: 3}",
     "stages.A.config.early_stopping.patince: unknown key (did you mean 'patience'?)"),
    ("stages.A.config.early_stopping={metric: val/los}",
     "stages.A.config.early_stopping.metric: 'val/los' is not reported every epoch "
     "(did you mean 'val/loss'?)"),
    ("stages.A.config.warmup_epochs=50",
     "stages.A.config: warmup_epochs is 50 but epochs is 20: "
     "warm-up must end before training does"),
    ("reference={B: 0.5}", "reference.B: no stage 'B' (stages: P, A)"),
    ("reference={'B[lr=1]': 0.5}", "reference.B[lr=1]: no stage 'B[lr=1]' (stages: P, A)"),
    ("reference={A: .nan}", "reference.A: input should be a finite number, not nan"),
    ("stages.P.after=A", "stages: `after` has a cycle: P → A → P"),
    ("stages.A.after=A", "stages: `after` has a cycle: A → A"),
    ("stages={C: {trainable: classify, after: A, config: {dataset: x}}, "
     "A: {trainable: classify, after: B, config: {dataset: x}}, "
     "B: {trainable: classify, after: A, config: {dataset: x}}}",
     "stages: `after` has a cycle: A → B → A"),
    ("stages.P.config.small_input=true",
     "stages.A.config.small_input: is False, but its parent 'P' has True, "
     "and weights must fit: give both the same"),
    ("seeds=[-1]", "seeds[0]: input should be greater than or equal to 0, not -1"),
    ("seeds=[4294967296]", "seeds[0]: input should be less than 4294967296, not 4294967296"),
    ("seeds=[1.0]", "seeds[0]: input should be a valid integer, not 1.0"),
    ("data.x={size: 8}", "data.x.type: is missing"),
    (
        "stages.A={after: P}",
        "stages.A: needs one of `trainable:` (learns) and `producer:` (makes artifacts)",
    ),
    (
        "stages.A={producer: sam, after: P, config: {dataset: x, weights: w}}",
        "stages.A: a producer has no `after`, `weights`, `seeds` and `search`: it does not learn",
    ),
    ("stages.A={trainable: classify}", "stages.A.config.dataset: is missing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        *((s, f"{s.partition('=')[0]}: {text}") for s, text in ERROR_OF_THE_KEY_THAT_IS_SET),
        *ERROR_OF_ANOTHER_KEY,
    ],
)
def test_one_error_is_one_line(setting: str, line: str) -> None:
    assert errors(changed(setting)) == [line]


@pytest.mark.parametrize("value", ["0.1", "x", "null", "{a: 1}"])
def test_a_grid_that_is_no_list_is_an_error_of_its_key(value: str) -> None:
    found = errors(changed(f"stages.A.grid.lr={value}"))
    assert {line.partition(": ")[0] for line in found} == {"stages.A.grid.lr"}


@pytest.mark.parametrize(
    ("seeds", "line"),
    [
        ("{values: [-1]}", "seeds.values[0]: input should be greater than or equal to 0, not -1"),
        ("{values: [1, 1]}", "seeds: lists a seed twice: [1, 1]"),
        ("{values: [0], vary: []}", "seeds.vary: list should have at least 1 item"),
        (
            "{vary: [weights]}",
            "seeds.vary[0]: input should be 'init', 'order' or 'split', not 'weights'",
        ),
        ("{vari: [init]}", "seeds.vari: unknown key (did you mean 'vary'?)"),
        ("3", "seeds: input should be a valid list, not 3"),
    ],
)
def test_what_is_wrong_with_seeds_is_one_line(seeds: str, line: str) -> None:
    (found,) = errors(changed(f"seeds={seeds}"))
    assert found.startswith(line)


def test_seeds_may_say_what_they_vary() -> None:
    written = from_mapping(changed("seeds={values: [0, 2], vary: [order]}"))
    assert {(stage.seeds, stage.vary) for stage in written.stages} == {((0, 2), ("order",))}
    plain = from_mapping(changed("seeds=[0, 2]"))
    assert {(stage.seeds, stage.vary) for stage in plain.stages} == {((0, 2), ("init", "order"))}


@pytest.mark.parametrize("key", ["study", "data", "stages"])
def test_a_missing_key_is_named(key: str) -> None:
    mapping = changed()
    del mapping[key]
    assert errors(mapping) == [f"{key}: is missing"]


@pytest.mark.parametrize("key", ["seeds", "stages.A.seeds", "data", "stages"])
def test_nothing_at_all_is_not_enough(key: str) -> None:
    empty = "[]" if key.endswith("seeds") else "{}"
    (found,) = errors(changed(f"{key}={empty}"))
    assert found.startswith(f"{key}: ")
    assert "at least 1 item" in found


@pytest.mark.parametrize("metric", ["test/loss", "test/accuracy"])
def test_the_test_split_cannot_stop_training(metric: str) -> None:
    (found,) = errors(changed(f"stages.A.config.early_stopping={{metric: {metric}}}"))
    assert f"early_stopping.metric: '{metric}' is not reported every epoch" in found


def test_errors_of_several_stages_come_at_once() -> None:
    found = errors(
        changed(
            "stages.P.config.epocs=3",
            "stages.A.after=B",
            "stages.A.config.lr=0",
            "seeds=[1, 1]",
            "reference={Z: 1}",
        )
    )
    keys = [line.partition(": ")[0] for line in found]
    expected = ["P.config.epocs", "A.config.lr", "A.after"]
    assert keys == [*(f"stages.{key}" for key in expected), "seeds", "reference.Z"]


def test_an_error_of_shape_does_not_hide_an_error_of_meaning() -> None:
    found = errors(changed("resources.worker=2", "stages.A.after=Q"))
    assert [line.partition(": ")[0] for line in found] == ["resources.worker", "stages.A.after"]


def write(folder: Path, mapping: dict[str, Any] = STUDY) -> Path:
    file = folder / "s.yaml"
    file.write_text(yaml.safe_dump(mapping, sort_keys=False), encoding="utf-8")
    return file


def test_a_setting_is_checked_like_the_file(tmp_path: Path) -> None:
    settings = ["seeds=[1, 1]", "stages.B.seeds=[1]", "stages.A.config.epocs=1"]
    with pytest.raises(StudyError) as error:
        read(str(write(tmp_path)), settings)
    assert str(error.value).split("\n") == [
        "s.yaml: 3 errors",
        "  stages.B: unknown key in --set (there are: P, A)",
        "  stages.A.config.epocs: unknown key (did you mean 'epochs'?)",
        "  seeds: lists a seed twice: [1, 1]",
    ]


@pytest.mark.parametrize("bad", ["'", "\x12", "\x9d", "[" * 5000, "a: b: c"])
def test_beside_a_setting_that_is_no_yaml_other_errors_are_said(bad: str) -> None:
    """They are looked up in the settings, to show the word that was written."""
    key = "stages.late_random.config.weights"
    with pytest.raises(StudyError) as error:
        read("digits", [f"{key}=yes", f"{key}={bad}"])
    first, second = error.value.errors
    assert first.startswith(f"--set {key}=")
    assert second == f'{key}: `yes` is read as true or false, and text is needed: write "yes"'


def test_a_wrong_setting_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="^s.yaml: 1 error\n  --set x: must be KEY=VALUE"):
        read(str(write(tmp_path)), ["x"])


def test_an_unknown_study_names_the_nearest() -> None:
    line = "no file and no built-in study (did you mean 'digits'?)"
    with pytest.raises(StudyError) as error:
        read("digit")
    assert str(error.value) == f"digit: 1 error\n  {line}"


@pytest.mark.parametrize("name", sorted(built_in_studies()))
def test_every_built_in_study_reads_and_asks_a_question(name: str, tmp_path: Path) -> None:
    file = f"stages.sam.config.weights={small_sam(tmp_path / 'small.pth')}"
    settings = [file, "stages.sam.config.model=any"] if name == "sam" else []
    study = read(name, settings)
    assert study.name == name
    assert study.question.endswith("?")
    assert from_mapping(json.loads(json.dumps(study.mapping))) == study


def stage_names(stages: dict[str, str | None]) -> list[str]:
    """Names in the order that a study gives to its stages. stages: name → after."""
    entries = {
        name: {"trainable": "classify", "config": {"dataset": "x"}}
        | ({"after": after} if after else {})
        for name, after in stages.items()
    }
    return [stage.name for stage in from_mapping({**STUDY, "stages": entries}).stages]


def test_parents_come_first_and_the_rest_keeps_the_order_of_the_file() -> None:
    assert stage_names({"C": "B", "B": "A", "A": None, "Z": None}) == ["A", "B", "C", "Z"]
    assert stage_names({"A": None, "Z": "A", "B": None, "C": "A"}) == ["A", "Z", "B", "C"]
    assert stage_names({"Z": None, "M": "X", "A": None, "X": None}) == ["Z", "X", "M", "A"]


def test_a_grid_is_every_combination_with_the_last_key_fastest() -> None:
    study = from_mapping(changed("stages.A.grid={lr: [0.2, 0.1], epochs: [3, 2]}"))
    variants = study.stages[1].variants
    assert [variant.values for variant in variants] == [
        (("lr", 0.2), ("epochs", 3)),
        (("lr", 0.2), ("epochs", 2)),
        (("lr", 0.1), ("epochs", 3)),
        (("lr", 0.1), ("epochs", 2)),
    ]
    assert [(v.config.lr, v.config.epochs) for v in variants][1] == (0.2, 2)


def test_seeds_of_a_stage_win_over_those_of_the_study() -> None:
    study = from_mapping(changed("seeds=[3, 4]", "stages.A.seeds=[4]"))
    assert [stage.seeds for stage in study.stages] == [(3, 4), (4,)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"config": {"dataset": "x", "weights": "w/a.pt"}}, ["w/a.pt"]),
        ({"grid": {"weights": ["random", "w/a.pt", "w/b.pt"]}}, ["random", "w/a.pt", "w/b.pt"]),
    ],
)
def test_paths_are_relative_to_the_study_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], expected: list[str]
) -> None:
    for folder in ("w", "elsewhere"):
        (tmp_path / folder).mkdir()
    for name in ("a.pt", "b.pt"):
        (tmp_path / "w" / name).touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    mapping = changed("data.x={type: image_folder, path: photos}")
    mapping["stages"]["P"] |= change
    study = read(str(write(tmp_path, mapping)))
    assert study.data["x"].path == str(tmp_path / "photos")
    found = [variant.config.weights for variant in study.stages[0].variants]
    assert found == [w if w == "random" else str(tmp_path / w) for w in expected]
    assert from_mapping(study.mapping) == study


def test_paths_in_a_setting_are_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    study = read(str(write(tmp_path)), ["data.x={type: image_folder, path: photos}"])
    assert study.data["x"].path == str(tmp_path / "here" / "photos")


def test_a_study_does_not_change_with_the_mapping_it_came_from() -> None:
    mapping = changed()
    study = from_mapping(mapping)
    mapping["stages"]["A"]["config"]["lr"] = 3
    assert from_mapping(study.mapping) == study


def test_a_stage_that_comes_as_a_file_is_not_trained_and_its_children_start_from_it(tmp_path):
    path = tmp_path / "backbone.pt"
    path.write_bytes(b"tensors")
    study = from_mapping(changed(f"stages.P.weights={path}"))
    (stage,) = study.stages
    assert (stage.name, stage.after) == ("A", None)
    assert [variant.config.weights for variant in stage.variants] == [str(path)]
    assert study.weight_files == {"P": str(path)}


def test_a_file_for_a_stage_that_nothing_starts_from_is_an_error(tmp_path):
    path = tmp_path / "backbone.pt"
    path.write_bytes(b"tensors")
    message = "stages.A.weights: replaces the training of 'A', from which no stage starts"
    assert errors(changed(f"stages.A.weights={path}")) == [message]


def test_learning_from_labels_where_there_are_none_is_an_error():
    mapping = changed("data.x={type: digits, labels: false}")
    assert errors(mapping) == [
        "stages.A.config.dataset: 'x' has `labels: false`, and classify learns from labels: "
        "give it class folders, or train byol or rotation on it"
    ]
    del mapping["stages"]["A"]
    mapping["compare"] = {"metric": "val/accuracy"}
    assert from_mapping(mapping).stages[0].name == "P"


def test_a_figure_that_all_epochs_lack_stops_no_run_early():
    byol = ["stages.A.trainable=byol", "stages.A.after=null", "compare.metric=val/loss"]
    byol += ["stages.A.config={dataset: x, backbone: resnet18, early_stopping: {metric: %s}}"]
    for metric in ("val/knn_accuracy", "val/effective_rank"):
        given = [setting.replace("%s", metric) for setting in byol]
        key = "stages.A.config.early_stopping.metric"
        assert from_mapping(changed(*given)).stages  # patience waits for the next probe
        never = changed(*given, "stages.A.config.probe_every=0")
        if metric == "val/knn_accuracy":
            message = f"{key}: '{metric}' is never measured: set `probe_every` to 1 or more"
            assert errors(never) == [message]
        else:
            assert from_mapping(never).stages
        unlabelled = changed(*given, "data.x={type: digits, labels: false}")
        if metric == "val/knn_accuracy":
            message = f"{key}: '{metric}' needs images with a class, and 'x' has none"
            assert errors(unlabelled) == [message]
        else:
            assert from_mapping(unlabelled).stages


def test_what_comes_as_a_file_needs_no_labels(tmp_path):
    """The second report's own case: a backbone from elsewhere, and images without labels."""
    path = tmp_path / "backbone.pt"
    path.write_bytes(b"tensors")
    mapping = changed("data.x={type: digits, labels: false}", "data.y=digits")
    mapping["stages"] = {
        "supervised": {"trainable": "classify", "config": {"dataset": "x"}, "weights": str(path)},
        "D": {"trainable": "classify", "after": "supervised", "config": {"dataset": "y"}},
    }
    mapping["compare"] = {"metric": "test/accuracy"}
    (stage,) = from_mapping(mapping).stages
    assert (stage.name, stage.variants[0].config.weights) == ("D", str(path))


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("stages.A.config.batch_size=1", "greater than or equal to 2, not 1"),
        ("stages.A.config.accumulate=100", "raise batch_size or lower accumulate"),
        ("stages.A.config={dataset: x, train: head, frozen_batchnorm: train}", "or train to late"),
        ("stages.A.config={dataset: x, backbone: resnet50}", "must fit: give both the same"),
    ],
)
def test_what_batchnorm_and_frozen_backbones_cannot_do_is_one_line_with_the_cure(setting, line):
    (message,) = errors(changed(setting))
    assert message.startswith("stages.A.config") and line in message


def test_a_trainable_and_a_data_set_that_do_not_fit_are_named():
    given = "stages.A={trainable: segment, config: {dataset: x, network: deeplabv3}}"
    assert errors(changed(given)) == [
        "stages.A.config.dataset: 'x' has type digits, whose images have labels, and segment "
        "learns from masks: give it a data set with masks (deepglobe, mask_folders, voc, "
        "digit_scenes)",
    ]
    assert errors(changed("data.x={type: digit_scenes}")) == [
        "stages.A.config.dataset: 'x' has type digit_scenes, whose images have masks, and classify "
        "learns from labels: give it class folders, or train byol or rotation on it"
    ]


@pytest.mark.parametrize(
    ("place", "word", "kind"),
    [
        ("stages.A.config.dataset", "yes", "true or false"),
        ("stages.A.after", "Off", "true or false"),
        ("compare.stages[0]", "no", "true or false"),
        ("study", "0013", "a number"),
        ("question", "1e3", "a number"),
    ],
)
@pytest.mark.parametrize("by", ["file", "--set"])
def test_a_name_that_yaml_takes_for_another_value_is_shown_as_it_is_written(
    tmp_path: Path, place: str, word: str, kind: str, by: str
) -> None:
    mapping, key = copy.deepcopy(STUDY), place.split("[")[0]
    apply_setting(mapping, f"{key}=[MARK]" if "[" in place else f"{key}=MARK")
    text = yaml.safe_dump(mapping)
    file = tmp_path / "s.yaml"
    file.write_text(text.replace("MARK", word) if by == "file" else text, encoding="utf-8")
    value = f"[{word}]" if "[" in place else word
    with pytest.raises(StudyError) as error:
        read(str(file), [] if by == "file" else [f"{key}={value}"])
    line = f'{place}: `{word}` is read as {kind}, and text is needed: write "{word}"'
    assert line in error.value.errors


def test_a_list_of_thousands_of_wrong_values_is_refused_in_seconds(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "compare": {"stages": list(range(20_000))}}))
    with pytest.raises(StudyError) as error:
        read(str(file))
    lines = str(error.value).splitlines()
    assert lines[0] == "s.yaml: 20000 errors"
    assert lines[-1] == "  and 19950 more"
    assert len(lines) == 52


def with_grid(**grid: list[Any]) -> dict[str, Any]:
    mapping = copy.deepcopy(STUDY)
    mapping["stages"]["A"]["grid"] = grid
    return mapping


def test_a_grid_is_counted_before_it_is_built() -> None:
    thousand = [n / 1000 for n in range(1, 1001)]
    grid = {"lr": thousand, "weight_decay": thousand, "batch_size": list(range(2, 1002))}
    (line,) = errors(with_grid(**grid))
    assert line == (
        "stages.A.grid: has 1000 x 1000 x 1000 = 1000000000 points, and a study may have 100000 "
        "Runs at most: shorten its lists"
    )


def test_runs_of_grids_seeds_and_parents_are_counted_together() -> None:
    mapping = with_grid(lr=[n / 1000 for n in range(1, 333)])
    mapping["stages"]["P"]["grid"] = {"lr": [0.1, 0.2, 0.3]}
    mapping["seeds"] = list(range(100))
    assert len(from_mapping(mapping).stages) == 2  # (3 + 3 x 332) x 100
    mapping["seeds"] = list(range(101))
    assert errors(mapping) == [
        "stages: the study has 100899 Runs and trials, and may have 100000 at most: shorten "
        "`grid:`, `seeds:` or `trials:`"
    ]


def test_a_long_chain_of_stages_is_read_in_seconds() -> None:
    mapping = copy.deepcopy(STUDY)
    for n in range(1500):
        child = {"trainable": "classify", "after": f"s{n - 1}" if n else "A"}
        mapping["stages"][f"s{n}"] = child | {"config": {"dataset": "x"}}
    mapping["stages"] = dict(reversed(mapping["stages"].items()))
    start = time.monotonic()
    names = [stage.name for stage in from_mapping(mapping).stages]
    assert time.monotonic() - start < 30
    assert names == ["P", "A", *(f"s{n}" for n in range(1500))]
    mapping["stages"]["P"]["after"] = "s1499"
    (line,) = errors(mapping)
    assert line.startswith("stages: `after` has a cycle: ")


def test_a_study_of_producers_alone_needs_no_compare(tmp_path: Path) -> None:
    small_sam(tmp_path / "small.pth")
    config = {"dataset": "digits", "weights": str(tmp_path / "small.pth"), "model": "any"}
    mapping: dict[str, Any] = {
        "study": "s",
        "data": {"digits": "digits"},
        "stages": {"sam": {"producer": "sam", "config": config}},
    }
    assert from_mapping(mapping).compare.metric == "sam/masks"
    chosen = {**mapping, "compare": {"metric": "sam/best_iou"}}
    assert from_mapping(chosen).compare.metric == "sam/best_iou"
    with pytest.raises(StudyError, match="no stage reports 'test/accuracy'"):
        from_mapping({**mapping, "compare": {"metric": "test/accuracy"}})


def test_figures_of_single_images_are_compared_where_something_classifies() -> None:
    study = from_mapping(changed("compare.metric=test/macro_f1", "compare.figures=[top5_accuracy]"))
    assert (study.compare.metric, study.compare.figures) == ("test/macro_f1", ["top5_accuracy"])
    assert from_mapping(STUDY).compare.figures == []
    with pytest.raises(StudyError, match="no stage reports 'test/class_accuracy'"):
        from_mapping(changed("compare.metric=test/class_accuracy"))
    with pytest.raises(StudyError, match="no stage reports 'test/macro_f1'"):
        from_mapping(changed("compare.metric=test/macro_f1", "stages.A.trainable=rotation"))
    with pytest.raises(StudyError, match=r"compare.figures\[0\].*'macro_f1'"):
        from_mapping(changed("compare.figures=[macro_f2]"))


def test_keys_of_a_stage_replace_resources_of_the_study() -> None:
    study = changed("resources.workers=2", "stages.A.resources={gpus_per_worker: 0.5}")
    given = {stage.name: stage.resources for stage in from_mapping(study).stages}
    assert (given["A"].workers, given["A"].gpus_per_worker) == (2, 0.5)
    assert given["P"] == from_mapping(study).resources
    assert errors(changed("resources.gpus_per_worker=0", "stages.A.resources.gpu=A100")) == [
        "stages.A.resources: together with `resources` of the study: gpu is A100, but "
        "gpus_per_worker is 0: remove one of both"
    ]
