"""CSV manifests in every form, and one clear line for each fault in one."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.layouts.csv_lists import is_manifest, list_csv
from trainables.layouts.folders import NOT_AN_IMAGE, Scan

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
    (b"filename|label\na.jpg|x\n",
     "{} has 1 unknown column ('filename|label'): repair the header (did you mean 'filename'? "
     "there are: filename, file, path, label, class, id, split)"),
    (b"id,label\n1,x\n", "{} has 1 missing file (1): "
     "put them into {folder} or {folder}/mine, or correct the names"),
    (b"label\nx\n", "{} has no column `filename`: add it"),
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
        (
            {},
            "{} holds no train.csv: add train.csv, or name the .csv file or its folder in `path:`",
        ),
        (
            {"labels.csv": ""},
            "{} holds only labels.csv: add train.csv, or name the .csv file or its folder in "
            "`path:`",
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


@pytest.mark.parametrize(
    ("text", "images", "found"),
    [
        (",filename,label\n0,a.jpg,x\n", "a.jpg", "a.jpg"),  # pandas
        ("Unnamed: 0,image,category\n0,a.jpg,x\n", "a.jpg", "a.jpg"),
        ("filename,label\nsub\\a.jpg,x\n", "sub/a.jpg", "sub/a.jpg"),  # Windows
        ("filename;label\na.jpg;x\n", "a.jpg", "a.jpg"),
        ("filename\tlabel\na.jpg\tx\n", "a.jpg", "a.jpg"),
        ("id,label\n1,x\n", "train/1.png train/10.png test/1.png", "train/1.png"),  # Kaggle
        ("image_id,label\n1.v2,x\n", "images/1.v2.JPG", "images/1.v2.JPG"),
        ("filename,label\na.jpg,x\n", "images/a.jpg", "images/a.jpg"),
    ],
)
def test_lists_of_other_programs_are_read(
    tmp_path: Path, text: str, images: str, found: str
) -> None:
    make(tmp_path, {"trainLabels.csv": text}, images)
    assert list_csv(tmp_path / "trainLabels.csv", labels=True) == {"train": {"x": [found]}}
    assert list_csv(tmp_path, labels=True) == {"train": {"x": [found]}}


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        ("id,label\n1,x\n", "1.png 1.jpg", "1 name of several files .1: 1.jpg, 1.png."),
        ("id,label\n1,x\n", "p/1.png q/1.png", "1 name of several files .1: p/1.png, q/1.png."),
        ("id,label\n1,x\n", "test/1.png", "1 missing file"),
        ("filename,label\nC:\\pictures\\a.jpg,x\n", "a.jpg", "1 file name outside of its folder"),
        ("filename,label\n..\\a.jpg,x\n", "a.jpg", "1 file name outside of its folder"),
    ],
)
def test_a_name_of_no_file_or_of_several_is_refused(
    tmp_path: Path, text: str, images: str, message: str
) -> None:
    make(tmp_path, {"train.csv": text}, images)
    with pytest.raises(DataError, match=message):
        list_csv(tmp_path, labels=True)


@pytest.mark.parametrize("test", ["id,filename,label\n0,q.jpg,None\n", "filename\nq.jpg\n"])
def test_a_test_list_without_labels_is_passed_over_and_counted(tmp_path: Path, test: str) -> None:
    files = {"train.csv": f"{ROWS}1.jpg,a\n", "val.csv": f"{ROWS}2.jpg,a\n", "test.csv": test}
    scan = Scan(make(tmp_path, files, "train/1.jpg val/2.jpg test/q.jpg"))
    assert list(list_csv(tmp_path, True, scan)) == ["train", "val"]
    assert scan.passed == {(".jpg", "test has no labels"): 1}
    assert list(list_csv(tmp_path, labels=False)) == ["train", "val", "test"]


def test_images_in_no_row_are_counted(tmp_path: Path) -> None:
    scan = Scan(make(tmp_path, {"train.csv": f"{ROWS}1.jpg,a\n"}, "train/1.jpg train/2.jpg"))
    list_csv(tmp_path, True, scan)
    assert scan.passed == {(".jpg", "in no row of the list"): 1}


def test_a_list_that_is_read_is_not_counted_as_passed_over(tmp_path: Path) -> None:
    make(tmp_path, {"train.csv": f"{ROWS}1.jpg,a\n", "other.csv": "x\n1\n"}, "1.jpg")
    for place in (tmp_path, tmp_path / "train.csv"):
        scan = Scan(tmp_path)
        list_csv(place, True, scan)
        assert scan.passed == {(".csv", NOT_AN_IMAGE): 1}


def mini_imagenet(folder: Path) -> Path:
    """The published form: one folder of images, three lists of different classes."""
    for number, part in enumerate(("train", "val", "test")):
        names = [f"n{number}{i}.jpg" for i in range(10)]
        rows = "".join(f"{name},n{number}{i % 2}\n" for i, name in enumerate(names))
        make(folder, {f"{part}.csv": ROWS + rows}, " ".join(f"images/{name}" for name in names))
    return folder


def test_mini_imagenets_lists_of_different_classes_are_taken_together(tmp_path: Path) -> None:
    source = source_of("mini_imagenet", mini_imagenet(tmp_path))
    assert source.classes == ("n00", "n01", "n10", "n11", "n20", "n21")
    assert [len(source.parts[part]) for part in ("train", "val", "test")] == [18, 6, 6]
    assert len(source.notes) == 1 and "train 2, val 2, test 2" in source.notes[0]
    parts = source_of("mini_imagenet", tmp_path, labels=False).parts
    assert [len(parts[part]) for part in ("train", "val", "test")] == [10, 10, 10]
    with pytest.raises(DataError, match="have different classes"):
        source_of("csv", tmp_path)


def test_a_folder_above_the_list_names_where_it_lies(tmp_path: Path) -> None:
    course(tmp_path / "sets/office")
    for kind in ("csv", "office_home"):
        with pytest.raises(DataError, match=f"perhaps {tmp_path}/sets/office"):
            source_of(kind, tmp_path / "sets")
