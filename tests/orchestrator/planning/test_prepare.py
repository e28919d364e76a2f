"""What can only be known where the data and the files are is checked before anything starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from orchestrator.config.errors import StudyError
from orchestrator.config.study_loader import from_mapping
from orchestrator.config.study_schema import Study
from orchestrator.config.yaml_loader import apply_setting
from orchestrator.planning.prepare import Prepared, build_caches, build_ids, prepare
from orchestrator.storage.home import Home
from tests.conftest import SMALL, damage
from trainables.data.datasets import DatasetConfig, read
from trainables.models.encoders import build_encoder

DIGITS = {
    "study": "small",
    "data": {"digits": {"type": "digits", "limit": 60}},
    "stages": {"P": {"trainable": "rotation", "config": {"dataset": "digits"}}},
    "compare": {"metric": "val/accuracy"},
}


def error(path: Path, home: Home, **config: object) -> str:
    """The only error of a study with three variants that start from a file."""
    stage = {
        "trainable": "classify",
        "config": {**SMALL, "weights": str(path), **config},
        "grid": {"lr": [0.1, 0.2, 0.3]},
    }
    study = from_mapping(
        {"study": "small", "data": {"digits": "digits"}, "stages": {"only": stage}}
    )
    with pytest.raises(StudyError) as error:
        prepare(study, None, home)
    (line,) = error.value.errors
    return line


@pytest.fixture
def state() -> dict[str, Tensor]:
    return build_encoder("resnet18", small_input=True)[0].state_dict()


@pytest.mark.parametrize("old_format", [False, True])  # torch alone reads the older one
def test_a_prefix_that_is_taken_off_is_said_in_the_plan(
    state: dict[str, Tensor], tmp_path: Path, digits_home: Home, old_format: bool
) -> None:
    for prefix in ("", "encoder.", "module.backbone."):
        file = tmp_path / f"{prefix}pt"
        named = {prefix + name: value for name, value in state.items()}
        torch.save(named, file, _use_new_zipfile_serialization=not old_format)
        config = {**SMALL, "backbone": "resnet18", "weights": str(file)}
        stage = {"trainable": "classify", "config": config, "grid": {"lr": [0.1, 0.2]}}
        study = from_mapping(
            {"study": "small", "data": {"digits": "digits"}, "stages": {"only": stage}}
        )
        said = f"stages.only.config.weights: {file}: names of tensors without the prefix {prefix}"
        wanted = (said,) if prefix == "module.backbone." else ()
        assert prepare(study, None, digits_home).stage_remarks == wanted


def test_weights_that_fit_make_a_plan(
    state: dict[str, Tensor], tmp_path: Path, digits_home: Home
) -> None:
    torch.save(state, tmp_path / "fits.pt")
    for trainable in ("classify", "byol", "rotation"):
        config = {"dataset": "digits", "small_input": True, "weights": str(tmp_path / "fits.pt")}
        if trainable == "byol":
            config["backbone"] = "resnet18"
        study = from_mapping(
            {
                "study": "small",
                "data": {"digits": "digits"},
                "stages": {"only": {"trainable": trainable, "config": config}},
                "compare": {"metric": "test/loss"},
            }
        )
        (run,) = prepare(study, None, digits_home).runs
        assert run.weights is not None


@pytest.mark.parametrize(
    ("images", "settings", "line"),
    [
        (60, ["resources.workers=16", "stages.P.config.batch_size=12"],
         "a batch has 12 of the training images, and workers 16, accumulate 1 need at least 16: "
         "give it more, or lower workers or accumulate"),
        (3, [], "a batch has 1 of the training images, and workers 1, accumulate 1 need at least "
         "2: give it more, BatchNorm needs two"),
    ],
)  # fmt: skip
def test_a_batch_that_is_too_small_is_refused_before_training(
    tmp_path: Path, digits_home: Home, images: int, settings: list[str], line: str
) -> None:
    for number in range(images):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    data = {"type": "image_folder", "path": str(tmp_path), "size": 8, "labels": False}
    stage = {"trainable": "rotation", "config": {"dataset": "photos"}}
    mapping: dict[str, Any] = {
        "study": "small",
        "data": {"photos": data},
        "stages": {"P": stage},
        "compare": {"metric": "val/accuracy"},
    }
    for setting in settings:
        apply_setting(mapping, setting)
    with pytest.raises(StudyError, match=f"stages.P.config: {line}"):
        prepare(from_mapping(mapping), None, digits_home)


def test_a_file_that_is_no_state_dict_is_refused_before_training(
    tmp_path: Path, digits_home: Home
) -> None:
    path = tmp_path / "notes.pt"
    path.write_text("not a tensor in here", encoding="utf-8")
    line = error(path, digits_home)
    assert line.startswith(f"stages.only.config.weights: {path} is no state-dict file")


def test_a_broken_tensor_name_is_refused_before_training(
    state: dict[str, Tensor], tmp_path: Path, digits_home: Home
) -> None:
    state["layer4.1.conv2.wieght"] = state.pop("layer4.1.conv2.weight")
    torch.save(state, tmp_path / "broken.pt")
    line = error(tmp_path / "broken.pt", digits_home, backbone="resnet18")
    assert "missing layer4.1.conv2.weight; unknown layer4.1.conv2.wieght" in line


def test_weights_of_another_backbone_are_refused_before_training(
    state: dict[str, Tensor], tmp_path: Path, digits_home: Home
) -> None:
    torch.save(state, tmp_path / "resnet18.pt")
    line = error(tmp_path / "resnet18.pt", digits_home, backbone="resnet50")
    assert line.startswith("stages.only.config.weights: weights of ")
    assert "do not fit the encoder" in line


@pytest.mark.parametrize(
    ("pretrain", "line"),
    [
        ("{type: digits}", ""),
        ("{type: digits, limit: 100}", ""),
        ("{type: digits, labels: false}", r"'P' trains on \d+ of the (val|test) images of 'tune'"),
        ("{type: digits, split_seed: 1}", r"'P' trains on \d+ of the (val|test) images of 'tune'"),
    ],
)
def test_no_parent_trains_on_what_its_child_is_judged_by(
    digits_home: Home, pretrain: str, line: str
) -> None:
    """Also where the child learns from a few of the same images, and where another is between."""
    mapping: dict[str, Any] = {
        "study": "small",
        "data": {"all": {}, "tune": {"type": "digits", "limit": 60}},
        "stages": {
            "P": {"trainable": "rotation", "config": {"dataset": "all"}},
            "M": {"trainable": "rotation", "after": "P", "config": {"dataset": "tune"}},
            "C": {"trainable": "classify", "after": "M", "config": {"dataset": "tune"}},
        },
    }
    apply_setting(mapping, f"data.all={pretrain}")
    if not line:
        assert len(prepare(from_mapping(mapping), None, digits_home).runs) == 3
        return
    with pytest.raises(StudyError, match=line) as error:
        prepare(from_mapping(mapping), None, digits_home)
    assert {line.partition(":")[0] for line in error.value.errors} == {
        "stages.M.after",
        "stages.C.after",
    }


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_the_command_has_read_whole_is_not_read_again(
    home: Home, caplog: pytest.LogCaptureFixture, damaged: bool
) -> None:
    prepared = prepare(from_mapping(DIGITS), None, home)
    folders = build_caches(prepared, home, print)
    verified = build_ids(folders)
    (cache,) = folders.values()
    assert list(verified) == [cache.name]
    if damaged:
        damage(cache / "images.npy", "one bit")  # which only reading it whole can tell
    assert build_caches(prepared, home, print, verified) == folders
    assert caplog.messages == []
    assert build_caches(prepared, home, print) == folders
    message = (
        f"{cache}: damaged (images.npy is not as it was written): the images are decoded again"
    )
    assert set(caplog.messages) == ({message} if damaged else set())


@pytest.mark.parametrize("how", ["missing", "cut", "other build"])
def test_a_cache_is_checked_again_where_it_is_not_the_one_that_was_read(
    home: Home, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    prepared = prepare(from_mapping(DIGITS), None, home)
    folders = build_caches(prepared, home, print)
    verified = build_ids(folders)
    (cache,) = folders.values()
    if how == "other build":
        verified[cache.name] = "0" * 16
        damage(cache / "images.npy", "one bit")
    else:
        damage(cache / "images.npy", how)
    assert build_caches(prepared, home, print, verified) == folders
    assert caplog.messages
    assert all("decoded again" in message for message in caplog.messages)


@pytest.mark.parametrize("names", ["same", "other"])
def test_a_parent_s_copies_of_test_images_are_found_by_content(
    tmp_path: Path, home: Home, names: str
) -> None:
    """The pretraining set has an image of the target's test set, under any name."""
    number = 0
    for place in ("pretrain/a", "pretrain/b", "target/train/a", "target/train/b"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(10):
            number += 1
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / place / f"{i}.png")
    for name in "ab":
        (tmp_path / "target/test" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (0, 0, ord(name))).save(tmp_path / "target/test" / name / "t.png")
    copy = tmp_path / "pretrain" / ("t.png" if names == "same" else "other.jpg")
    copy.write_bytes((tmp_path / "target/test/a/t.png").read_bytes())
    pretrain = {"type": "image_folder", "path": str(tmp_path / "pretrain"), "labels": False}
    target = {"type": "image_folder", "path": str(tmp_path / "target"), "size": 8}
    mapping: dict[str, Any] = {
        "study": "small",
        "data": {"all": {**pretrain, "size": 8}, "tune": target},
        "stages": {
            "P": {"trainable": "rotation", "config": {"dataset": "all", "backbone": "resnet18"}},
            "C": {"trainable": "classify", "after": "P", "config": {"dataset": "tune"}},
        },
    }
    mapping["data"]["all"]["split_seed"] = next(
        seed for seed in range(20) if _trains_on(copy.name, pretrain, seed)
    )
    with pytest.raises(StudyError) as caught:
        prepare(from_mapping(mapping), None, home)
    assert caught.value.errors == [
        "stages.C.after: 'P' trains on 1 of the test images of 'tune' "
        f"(test/a/t.png = {copy.name}): use one entry of `data` for both, or remove these images "
        "from 'all', or set `on_duplicates` in data.all: `drop` to leave them out of its training, "
        "or `keep`"
    ]
    mapping["data"]["all"]["on_duplicates"] = "drop"
    dropped = prepare(from_mapping(mapping), None, home)
    source = dropped.data["all"].source
    assert copy.name not in {source.names[row] for row in source.parts["train"]}
    assert dropped.data["all"].remarks == [
        "copies are left out: 1 of train (`on_duplicates: drop`: later stages are validated or "
        "tested by them)"
    ]
    assert dropped.cautions == {}
    mapping["data"]["all"]["on_duplicates"] = "keep"
    kept = prepare(from_mapping(mapping), None, home)
    assert len(kept.data["all"].source.parts["train"]) == len(source.parts["train"]) + 1
    assert kept.cautions == {
        "tune": [
            "1 of 2 test images is in the training images of 'all', from which a stage starts "
            f"(test/a/t.png = {copy.name}); kept (`on_duplicates: keep` of 'all')"
        ]
    }
    keys = {item.data["all"].fingerprint for item in (dropped, kept)}
    assert len(keys) == 2


def _trains_on(name: str, settings: dict[str, Any], seed: int) -> bool:
    """Whether an image of a set is in its training part with this split seed."""
    source = read(DatasetConfig(**settings, split_seed=seed), None)
    return name in {source.names[row] for row in source.parts["train"]}


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"trainable": "classify", "weights": "imagenet"}, "weights 'imagenet' are for RGB"),
    ],
)
def test_what_needs_rgb_is_refused_for_other_channels(
    home: Home, tmp_path: Path, stage: dict[str, str], message: str
) -> None:
    with pytest.raises(StudyError) as caught:
        prepare(of_four_channels(tmp_path, **stage), None, home)
    assert message in "\n".join(caught.value.errors)


def test_byol_says_what_its_views_of_other_channels_leave_out(home: Home, tmp_path: Path) -> None:
    prepared = prepare(of_four_channels(tmp_path, trainable="byol"), None, home)
    (line,) = prepared.stage_remarks
    assert line.startswith("stages.a: views change brightness and contrast of the 4 channels; sat")


def of_four_channels(folder: Path, trainable: str, **more: str) -> Study:
    for number, name in enumerate(("water", "wood")):
        (folder / "set" / name).mkdir(parents=True)
        for image in range(10):
            pixels = np.full((16, 16, 4), 20 * number + image, dtype=np.uint8)
            path = folder / f"set/{name}/{image}.tif"
            tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    data = {"type": "image_folder", "path": str(folder / "set"), "size": 16, "channels": 4}
    stages = {"a": {"trainable": trainable, "config": {"dataset": "x", **more}}}
    metric = {"metric": "val/loss" if trainable == "byol" else "test/loss"}
    return from_mapping({"study": "s", "data": {"x": data}, "stages": stages, "compare": metric})


def byol(home: Home, **config: object) -> Prepared:
    """The plan of one BYOL stage on digits; `labels` is a key of the data set."""
    labels = config.pop("labels", True)
    study = from_mapping(
        {
            "study": "small",
            "data": {"digits": {"type": "digits", "limit": 60, "labels": labels}},
            "stages": {"P": {"trainable": "byol", "config": {**SMALL, **config}}},
            "compare": {"metric": "test/loss"},
        }
    )
    return prepare(study, None, home)


def test_what_selects_is_settled_by_the_data_and_said(digits_home: Home) -> None:
    labelled = byol(digits_home, early_stopping={"patience": 2})
    (run,) = labelled.runs
    assert (run.select, run.config["select"]) == ("val/knn_accuracy", "knn")
    assert run.config["early_stopping"] == {"metric": "val/knn_accuracy", "patience": 2}
    assert labelled.notes == (
        "P: select is knn: later stages take the epoch with the best kNN accuracy, measured every "
        "5 epochs",
    )
    unlabelled = byol(digits_home, labels=False, early_stopping={"patience": 2})
    (run,) = unlabelled.runs
    assert (run.select, run.config["select"]) == ("epoch", "last")
    assert run.config["early_stopping"]["metric"] == "val/loss"
    assert unlabelled.notes == (
        "P: select is last: later stages take the last epoch, since digits has no classes to probe "
        "with",
    )
    with pytest.raises(StudyError) as refused:
        byol(digits_home, labels=False, select="knn")
    (line,) = refused.value.errors
    assert line.startswith("stages.P.config.select: select 'knn' asks the classes of validation")


def test_how_often_a_probe_is_made_is_in_the_key_where_it_chooses(digits_home: Home) -> None:
    def key(**config: object) -> str:
        (run,) = byol(digits_home, **config).runs
        return run.key

    assert key() == key(select="knn") == key(probe_every=5)
    assert key() != key(probe_every=4)
    assert key(select="last", probe_every=5) == key(select="last", probe_every=4)
    stop = {"metric": "val/linear_accuracy", "patience": 9}
    stopped = [key(select="last", early_stopping=stop, probe_every=every) for every in (4, 5)]
    assert stopped[0] != stopped[1]
