"""A study is found by its built-in name or by its file, and reading its name needs no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config.errors import StudyError
from orchestrator.config.yaml_loader import BUILT_IN, built_in_studies, find, read_file, study_name


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str = "study: my_study\n") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_file_is_a_built_in_study_under_its_own_name() -> None:
    found = built_in_studies()
    assert set(found.values()) == set(BUILT_IN.glob("*.yaml"))
    assert list(found) == sorted(found)
    for name, path in found.items():
        assert read_file(path)["study"] == name
        assert read_file(path)["question"].endswith("?")


def test_a_built_in_study_is_found_by_its_name() -> None:
    assert find("digits") == BUILT_IN / "digits.yaml"


@pytest.mark.parametrize("name", ["mine.yaml", "mine.yml", "folder/mine", "digits"])
def test_a_file_is_found_also_under_a_built_in_name(name: str) -> None:
    write(name)
    assert find(name) == Path(name)


def test_a_folder_does_not_hide_a_built_in_study() -> None:
    Path("digits").mkdir()
    assert find("digits") == BUILT_IN / "digits.yaml"


@pytest.mark.parametrize(
    ("study", "line"),
    [
        ("digit", "no file and no built-in study (did you mean 'digits'?)"),
        ("none.yaml", "there is no such file"),
        ("folder/digits", "there is no such file"),
        ("folder", "there is no such file"),
    ],
)
def test_what_is_not_there_is_said(study: str, line: str) -> None:
    Path("folder.yaml").mkdir()
    study = "folder.yaml" if study == "folder" else study
    with pytest.raises(StudyError) as error:
        find(study)
    assert str(error.value) == f"{study}: 1 error\n  {line}"


@pytest.mark.parametrize("name", ["\udcff", "a\x1b[0m", "a\nb\r", "x" * 5000])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(StudyError, match="no study has such a name"):
        study_name(name)


def test_a_name_unlike_any_lists_what_there_is() -> None:
    with pytest.raises(StudyError) as error:
        find("zzzzzzzz")
    assert f"(there are: {', '.join(built_in_studies())})" in str(error.value)


def test_an_error_in_a_file_is_named_with_the_file() -> None:
    path = write("folder/mine.yaml", "study: a\nstudy: b\n")
    with pytest.raises(StudyError) as error:
        read_file(path)
    line = "line 2: key 'study' is written twice in the same mapping"
    assert str(error.value) == f"mine.yaml: 1 error\n  {line}"


def test_the_name_of_a_study_is_what_its_file_says() -> None:
    write("mine.yaml")
    assert study_name("mine.yaml") == "my_study"
    assert study_name("digits") == "digits"


@pytest.mark.parametrize("text", ["question: without a name\n", "- no study\n", "study: [", ""])
def test_a_study_whose_file_says_no_name_is_called_as_it_was_given(text: str) -> None:
    write("mine.yaml", text)
    assert study_name("mine.yaml") == "mine.yaml"
    assert study_name("of_a_file_long_gone") == "of_a_file_long_gone"


def test_finding_a_study_loads_neither_torch_nor_the_stack() -> None:
    code = "import sys, orchestrator.config.yaml_loader; print(*sys.modules)"
    repository = Path(__file__).parents[3]
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "ray", "mlflow"} & set(loaded.stdout.split())
