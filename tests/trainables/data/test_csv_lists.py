"""CSV manifests in every form, and one clear line for each fault in one."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainables.data.contract import Source
from trainables.data.csv_lists import is_manifest, list_csv
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError

ROWS = "filename,label\n"


def make(folder: Path, files: dict[str, str], images: str = "") -> Path:
    """Text files, and empty files for the images named: nothing is opened here."""
    for name, text in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="")
    for name in images.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def course(folder: Path, train: int = 6, val: int = 2) -> Path:
    """The course's form: id, filename, label, with images of 4x4 px in train/ and val/."""
    for part, count in {"train": train, "val": val}.items():
        (folder / part).mkdir(parents=True)
        lines = ["id,filename,label"]
        for i in range(2 * count):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / part / f"{i:03}.png")
            lines.append(f"{i},{i:03}.png,{i % 2}")
        (folder / f"{part}.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def source_of(kind: str, path: Path, **settings: Any) -> Source:
    return read(DatasetConfig(type=kind, path=str(path), **settings), None)


def test_images_lie_beside_the_file_or_in_a_folder_named_like_it(tmp_path: Path) -> None:
    rows = f"{ROWS}1.jpg,cat\nsub/2.jpg,dog\n./train//3.jpg,cat\n"
    make(tmp_path, {"train.csv": rows}, "train/1.jpg sub/2.jpg train/3.jpg")
    found = {"train": {"cat": ["train/1.jpg", "train/3.jpg"], "dog": ["sub/2.jpg"]}}
    assert list_csv(tmp_path, labels=True) == found
    assert list_csv(tmp_path / "train.csv", labels=True) == found


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,class", "a.jpg,x"),
        ("class,path,id", "x,a.jpg,7"),
        (" Filename , Label", " a.jpg, x "),
    ],
)
def test_columns_have_other_usual_names_and_any_order(
    tmp_path: Path, header: str, row: str
) -> None:
    make(tmp_path, {"mine.csv": f"{header}\n{row}\n"}, "a.jpg")
    assert list_csv(tmp_path / "mine.csv", labels=True) == {"train": {"x": ["a.jpg"]}}


def test_quotes_windows_line_ends_a_mark_of_utf8_and_empty_lines_are_read(tmp_path: Path) -> None:
    text = '\ufefffilename,label\r\n"a.jpg","cat, black"\r\n\r\nb.jpg,Katze ß\r\n'
    make(tmp_path, {"mine.csv": text}, "a.jpg b.jpg")
    assert list(list_csv(tmp_path / "mine.csv", labels=True)["train"]) == ["Katze ß", "cat, black"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(("10", "9", "-1"), ["-1", "9", "10"]), (("10", "9", "a"), ["10", "9", "a"])],
)
def test_classes_are_sorted_by_value_if_all_are_whole_numbers(
    tmp_path: Path, labels: tuple[str, ...], classes: list[str]
) -> None:
    rows = "".join(f"{i}.jpg,{label}\n" for i, label in enumerate(labels))
    make(tmp_path, {"mine.csv": ROWS + rows}, "0.jpg 1.jpg 2.jpg")
    assert list(list_csv(tmp_path / "mine.csv", labels=True)["train"]) == classes


def test_a_class_has_the_same_id_in_every_split(tmp_path: Path) -> None:
    files = {
        "train.csv": f"{ROWS}1.jpg,b\n2.jpg,a\n",
        "val.csv": f"{ROWS}1.jpg,a\n2.jpg,b\n",
        "test.csv": f"{ROWS}1.jpg,b\n2.jpg,a\n",
    }
    make(
        tmp_path, files, " ".join(f"{p}/{i}.jpg" for p in ("train", "val", "test") for i in (1, 2))
    )
    found = list_csv(tmp_path, labels=True)
    assert list(found) == ["train", "val", "test"]
    assert [list(found[part]) for part in found] == [["a", "b"]] * 3
    assert found["val"] == {"a": ["val/1.jpg"], "b": ["val/2.jpg"]}


def test_one_file_may_tell_the_splits(tmp_path: Path) -> None:
    text = "filename,label,split\n1.jpg,a,test\n2.jpg,a,train\n3.jpg,a,Validation\n"
    make(tmp_path, {"mine.csv": text}, "1.jpg 2.jpg mine/3.jpg")
    found = list_csv(tmp_path / "mine.csv", labels=True)
    assert list(found) == ["train", "val", "test"]
    assert [found[part]["a"] for part in found] == [["2.jpg"], ["mine/3.jpg"], ["1.jpg"]]


@pytest.mark.parametrize("text", ["filename\nb.jpg\na.jpg\n", "file,label\nb.jpg,\na.jpg,x\n"])
def test_without_labels_the_column_is_not_looked_at(tmp_path: Path, text: str) -> None:
    make(tmp_path, {"mine.csv": text}, "a.jpg b.jpg")
    assert list_csv(tmp_path / "mine.csv", labels=False) == {"train": {"": ["a.jpg", "b.jpg"]}}


FAULTS = [
    (b"", "{} is empty: give it a header and a row for each image"),
    (b"filename,label\n\n", "{} has no rows: add one for each image, or remove the file"),
    ("filename,label\na.jpg,Käse\n".encode("latin-1"),
     "{} is not UTF-8 text: save it as CSV in UTF-8"),
    (b'filename,label\na.jpg,x\n"b.jpg"y,x\n',
     "{} is no CSV below line 2 (',' expected after '\"'): repair it"),
    (b"filename,labl,extra\na.jpg,x,y\n",
     "{} has 2 unknown columns ('labl', 'extra'): repair the header (did you mean 'label'? "
     "there are: filename, file, path, label, class, id, split)"),
    (b"filename;label\na.jpg;x\n",
     "{} has 1 unknown column ('filename;label'): repair the header (did you mean 'filename'? "
     "there are: filename, file, path, label, class, id, split)"),
    (b"id,label\n1,x\n", "{} has no column `filename`: add it"),
    (b"id,filename\n1,a.jpg\n",
     "{} has no column `label`: add it, or set `labels: false` to learn without labels"),
    (b"file,path,label\na.jpg,a.jpg,x\n",
     "{} has two columns for one thing (file, path): keep one"),
    (b"filename,label\na.jpg\nb.jpg,x\na.jpg,x,y\n",
     "{} has 2 rows with more or fewer cells than the header (line 2, line 4): repair them"),
    (b"filename,label\n,x\n", "{} has 1 row without a file name (line 2): "
     "fill them in or remove them"),
    (b"filename,label\na.jpg,\nb.jpg, \n", "{} has 2 rows without a label (line 2, line 3): "
     "fill them in, or set `labels: false` to learn without labels"),
    (b"filename,label\n../a.jpg,x\n/etc/b.jpg,x\nc/../../d.jpg,y\n",
     "{} has 3 file names outside of its folder (../a.jpg, /etc/b.jpg, c/../../d.jpg): "
     "make them relative to {folder}"),
    (b"filename,label\n" + b"".join(b"%d.jpg,x\n" % i for i in range(7)),
     "{} has 7 missing files (0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more): "
     "put them into {folder} or {folder}/mine, or correct the names"),
    (b"filename,label\nsub,x\n", "{} has 1 missing file (sub): "
     "put them into {folder} or {folder}/mine, or correct the names"),
    (b"filename,label\na.jpg,x\n./a.jpg,y\n",
     "{} has 1 file in more than one row (a.jpg): keep one row of each"),
    (b"filename,label,split\na.jpg,x,train\nb.jpg,x,tets\nc.jpg,x,\n",
     "{} has 2 rows of an unknown split (line 3: 'tets', line 4: ''): write train, val or test"),
    (b"filename,label,split\na.jpg,x,test\nb.jpg,y,val\n",
     "{} has rows of split val, test but none of train: add some"),
    (b"filename,label,split\na.jpg,x,train\nb.jpg,y,train\nc.jpg,z,test\n",
     "splits of {} have different classes: 'x' only in train, 'y' only in train, 'z' only in "
     "test: make them the same"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), FAULTS)
def test_every_fault_is_one_line_that_says_what_to_do(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = make(tmp_path / "set", {}, "a.jpg b.jpg c.jpg sub/d.jpg") / "mine.csv"
    make(tmp_path, {}, "a.jpg d.jpg")  # outside of the folder
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list_csv(file, labels=True)
    assert str(caught.value) == message.format(file, folder=file.parent)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "{} holds no train.csv: add train.csv, or name the .csv file in `path:`"),
        (
            {"labels.csv": ""},
            "{} holds only labels.csv: add train.csv, or name the .csv file in `path:`",
        ),
        (
            {"train.csv": "", "val.csv": "", "valid.csv": ""},
            "{} has two files for one split (train.csv, val.csv, valid.csv): keep one",
        ),
        (
            {"train.csv": "filename,label,split\n1.jpg,a,train\n"},
            "{}/train.csv has 1 unknown column ('split'): repair the header "
            "(there are: filename, file, path, label, class, id)",
        ),
        (
            {"train.csv": f"{ROWS}1.jpg,a\n", "val.csv": f"{ROWS}1.jpg,a\n"},
            "{} has 1 file in more than one split (1.jpg): keep one row of each",
        ),
        (
            {"train.csv": f"{ROWS}1.jpg,a\n", "val.csv": f"{ROWS}2.jpg,b\n"},
            "splits of {} have different classes: 'a' only in train, 'b' only in val: "
            "make them the same",
        ),
    ],
)
def test_files_that_do_not_fit_together_are_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    make(tmp_path, files, "1.jpg 2.jpg")
    with pytest.raises(DataError) as caught:
        list_csv(tmp_path, labels=True)
    assert str(caught.value) == message.format(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "office_home", "mini_imagenet"])
def test_the_courses_form_is_read_with_val_as_the_test_set(tmp_path: Path, kind: str) -> None:
    source = source_of(kind, course(tmp_path))
    assert is_manifest(tmp_path)
    assert source.classes == ("0", "1")
    assert {source.names[i][:4] for i in source.parts["test"]} == {"val/"}
    assert [len(source.parts[part]) for part in ("train", "val", "test")] == [10, 2, 4]
    index = source.names.index("train/003.png")
    assert source.labels[index] == 1
    assert source.files[index] == tmp_path / "train/003.png"
    assert source.decode(index).getpixel((0, 0)) == (3, 0, 0)


@pytest.mark.parametrize("kind", ["csv", "office_home", "mini_imagenet"])
def test_a_class_with_one_training_image_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError) as caught:
        source_of(kind, course(tmp_path, train=1))
    assert str(caught.value) == (
        "class '0' has too few training images (1): add some (2 at least) or remove the class"
    )


def test_one_label_alone_is_refused_unless_labels_do_not_count(tmp_path: Path) -> None:
    rows = "".join(f"{i}.jpg,7\n" for i in range(5))
    make(tmp_path, {"mine.csv": ROWS + rows}, " ".join(f"{i}.jpg" for i in range(5)))
    with pytest.raises(
        DataError, match="^data set has one class only \\('7'\\): give one folder, "
    ):
        source_of("csv", tmp_path / "mine.csv")
    source = source_of("csv", tmp_path / "mine.csv", labels=False)
    assert (source.classes, set(source.labels.tolist())) == ((), {-1})


def test_a_manifest_is_found_under_data(tmp_path: Path) -> None:
    course(tmp_path / "sets/office")
    config = DatasetConfig(type="csv", subfolder="sets/office/train.csv")
    assert set(read(config, tmp_path).names) == {f"train/{i:03}.png" for i in range(12)}
    with pytest.raises(DataError) as caught:
        read(config, tmp_path / "x")
    assert str(caught.value) == (
        f"{tmp_path}/x/sets/office/train.csv: no such file or folder: "
        "correct `subfolder:` or --data"
    )


def test_a_manifest_knows_no_domains(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        source_of("office_home", course(tmp_path), domains=["Art"])
    assert str(caught.value) == (
        f"{tmp_path} holds train.csv, which knows no domains: remove `domains:`"
    )
