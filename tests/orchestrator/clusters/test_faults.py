"""What a host has is found, and every fault is a line with host, cause and cure."""

import shutil
from pathlib import Path

import pytest

from orchestrator.clusters.faults import faults, host_line
from orchestrator.clusters.finding import (
    Finding,
    Wanted,
    fingerprint,
    installed,
    listen,
    look,
    trouble_of_home,
    trouble_of_mlflow,
    unreached,
)
from tests.orchestrator.rest.servers import Answers, web_server


def wanted(**more: object) -> Wanted:
    asked = Wanted(home="/shared", sign=".check-1", shared=False, paths=["/data"],
                   everywhere=True, mlflow="http://tracking:5000")  # fmt: skip
    return {**asked, **more}  # type: ignore[typeddict-item]


def host(name: str, **more: object) -> Finding:
    well = Finding(
        host=name, gpus=1.0, home="", mlflow="", free_bytes=10**11, clock=0.1,
        data={"/data": "abc"}, python="3.11.7", torch="2.14.1", unreached=[],
    )  # fmt: skip
    return {**well, **more}  # type: ignore[typeddict-item]


def test_hosts_without_a_fault_have_none() -> None:
    assert faults(wanted(), [host("head"), host("node1")], 0.2) == []
    line = "node1: Python 3.11.7, torch 2.14.1, 1 GPUs, 100 GB free, clock +0.1 s"
    assert host_line(host("node1")) == line


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"home": "is not there"}, "host node1: the home /shared is not there: mount the same"),
        ({"free_bytes": 10**8}, "host node1: the disk of /shared has 0.1 GB free: make room"),
        ({"torch": ""}, "host node1: torch is not installed in Ray's Python: install"),
        ({"mlflow": "refuses"}, "host node1: MLflow at http://tracking:5000 refuses: give the"),
        ({"unreached": ["head"]}, "host node1: does not reach head on a free port: open the"),
        ({"clock": -40.0}, "host node1: its clock is -40 s against the driver's host: set both"),
        ({"data": {"/data": ""}}, "host node1: there is no /data: copy the data there, or"),
        ({"data": {"/data": "d"}}, "host node1: /data holds other files than elsewhere: copy"),
        ({"torch": "2.13.0"}, "versions of torch differ (2.14.1 on head, node2; 2.13.0 on node1)"),
        ({"error": "starts no task"}, "host node1: starts no task"),
    ],
)
def test_a_fault_is_a_line(wrong: dict[str, object], line: str) -> None:
    hosts = [host("head"), host("node1", **wrong), host("node2")]
    (found,) = faults(wanted(), hosts, 0.0)
    assert found.startswith(line)


def test_all_faults_come_at_once() -> None:
    hosts = [host("head", home="is not there"), host("node1", torch="", mlflow="refuses")]
    assert len(faults(wanted(), hosts, 99.0)) == 4


def test_data_that_is_nowhere_is_said_once_and_nodes_need_none() -> None:
    nothing = {"data": {"/data": ""}}
    (line,) = faults(wanted(), [host("head", **nothing), host("node1", **nothing)], 0.0)
    assert line.startswith("every host: there is no /data")
    on_head = [host("head"), host("node1", **nothing)]  # it gets the decoded images
    assert faults(wanted(everywhere=False), on_head, 0.0) == []


def test_a_home_is_looked_at(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert trouble_of_home(home, ".check-1", "node1") == "is not there"
    home.mkdir()
    assert trouble_of_home(home, ".check-1", "node1") == "is not the same folder as elsewhere"
    (home / ".check-1").mkdir()
    assert trouble_of_home(home, ".check-1", "node1") == ""
    assert (home / ".check-1" / "node1").is_file()


def test_the_same_files_have_the_same_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "gone") == ""
    (tmp_path / "a" / "cat").mkdir(parents=True)
    (tmp_path / "a" / "cat" / "1.png").write_bytes(b"123")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = fingerprint(tmp_path / "a")
    assert len(first) == 12 and fingerprint(tmp_path / "b") == first
    (tmp_path / "b" / "cat" / "2.png").touch()
    assert fingerprint(tmp_path / "b") != first
    assert fingerprint(tmp_path / "a" / "cat" / "1.png")


def test_ports_are_reached_or_not() -> None:
    server, port = listen()
    here = [("node1", "127.0.0.1", port)]
    assert unreached(here) == []
    server.close()
    assert unreached(here) == ["node1"]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(200, b"{}", ""), (403, b"no", "refuses the login"), (500, b"bad", "answers 500")],
)
def test_mlflow_is_seen_as_the_host_sees_it(status: int, body: bytes, said: str) -> None:
    with web_server(Answers(status, body)) as uri:
        found = trouble_of_mlflow(uri)
    assert said in found and bool(found) == (status != 200)


def test_a_host_is_looked_at_whole(tmp_path: Path) -> None:
    (tmp_path / ".check-1").mkdir()
    with web_server(Answers()) as uri:
        asked = wanted(home=str(tmp_path), mlflow=uri, paths=[str(tmp_path)])
        found = look(asked, "node1")
    assert (found["home"], found["mlflow"]) == ("", "")
    assert found["free_bytes"] > 0 and found["data"][str(tmp_path)]
    assert found["torch"] == installed("torch") != "" and installed("no such package") == ""
