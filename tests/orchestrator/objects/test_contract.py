"""Every store keeps the contract: what was put is got, and of two writers one wins."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.objects.address import open_objects, trouble_of, trouble_of_objects
from orchestrator.objects.cloud import open_memory
from orchestrator.objects.contract import Changed, Objects, ObjectsError
from orchestrator.objects.folder import FolderObjects
from tests.s3_server import BUCKET, S3Server, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(params=["memory", "folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store of each kind."""
    if request.param == "memory":
        return open_memory()
    if request.param == "folder":
        return open_objects(str(tmp_path / "store"))
    request.getfixturevalue("server")
    return open_objects(f"s3://{BUCKET}/{tmp_path.name}/deep")


def test_what_was_put_is_got(objects: Objects) -> None:
    assert objects.get("a/b") is None
    objects.put("a/b", b"1")
    objects.put("a/b", b"22")
    found = objects.get("a/b")
    assert found is not None and found.content == b"22"
    assert objects.list("a") == ["a/b"]
    objects.delete(["a/b", "a/never"])
    assert objects.get("a/b") is None and objects.list("a") == [] == objects.list("nothing")


def test_a_large_file_is_put_and_downloaded(objects: Objects, tmp_path: Path) -> None:
    content = bytes(range(256)) * 60_000  # more than one part of an upload
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        (tmp_path / "file").unlink()  # a writer may remove what is being sent
        objects.put("large", file)
    copy = io.BytesIO()
    assert objects.download("large", copy) and copy.getvalue() == content
    assert not objects.download("none", io.BytesIO())


def test_what_is_there_is_not_made_again(objects: Objects) -> None:
    objects.put_if_absent("a", b"1")
    with pytest.raises(Changed):
        objects.put_if_absent("a", b"2")
    assert objects.get("a").content == b"1"  # type: ignore[union-attr]


def test_what_has_changed_is_not_written_over(objects: Objects) -> None:
    first = objects.put_if_absent("a", b"1")
    second = objects.put_if_unchanged("a", b"2", first)
    assert objects.get("a").version == second  # type: ignore[union-attr]
    with pytest.raises(Changed):
        objects.put_if_unchanged("a", b"3", first)
    objects.delete(["a"])
    with pytest.raises(Changed):
        objects.put_if_unchanged("a", b"3", second)
    assert objects.get("a") is None


def write_at_once(objects: Objects, name: str, version: str, winners: list[bytes]) -> None:
    """Let four threads write an object on the same condition. version: empty: that there is none;
    winners: gets what each one that won has written."""
    start = threading.Barrier(4)

    def write(content: bytes) -> None:
        start.wait()
        try:
            if version:
                objects.put_if_unchanged(name, content, version)
            else:
                objects.put_if_absent(name, content)
        except Changed:
            return
        winners.append(content)

    writers = [threading.Thread(target=write, args=(b"by %d" % n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


@pytest.mark.parametrize("what", ["make", "change"])
def test_of_writers_at_once_one_wins(objects: Objects, what: str) -> None:
    for turn in range(10):
        name, winners = f"{what}{turn}", list[bytes]()
        version = objects.put_if_absent(name, b"0") if what == "change" else ""
        write_at_once(objects, name, version, winners)
        assert winners == [objects.get(name).content]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_host_that_can_use_a_store_has_no_trouble(
    kind: str, server: S3Server, tmp_path: Path
) -> None:
    address = str(tmp_path) if kind == "folder" else f"s3://{BUCKET}/check"
    assert trouble_of_objects(address) == ""
    assert open_objects(address).list("") == []  # nothing is left


def test_troubles_are_said(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such bucket" in trouble_of_objects("s3://never-made/x")
    (tmp_path / "file").touch()
    assert "Not a directory" in trouble_of_objects(str(tmp_path / "file"))
    with pytest.raises(ObjectsError, match="give s3://"):
        open_objects("ftp://x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert trouble_of_objects(f"s3://{BUCKET}/x").startswith("does not answer")


class Careless(FolderObjects):
    """Writes whatever the condition is."""

    def _put_if(self, name: str, content: bytes, version: str | None) -> str:
        self.put(name, content)
        return "any"


class CarelessOfChanges(FolderObjects):
    """Keeps one of the two conditions."""

    def put_if_unchanged(self, name: str, content: bytes, version: str) -> str:
        self.put(name, content)
        return "any"


def test_a_store_that_keeps_no_condition_is_of_no_use(tmp_path: Path) -> None:
    assert "If-None-Match is not kept" in trouble_of(Careless(tmp_path))
    assert "If-Match is not kept" in trouble_of(CarelessOfChanges(tmp_path))
