"""A job has the store that its cluster or its machine names, and each host is asked whether it can
use it."""

import argparse
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.clusters.faults import faults
from orchestrator.clusters.finding import Finding, Wanted, look
from orchestrator.clusters.store import check_own_store, job_home, store_of
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import ClusterSettings, OwnSettings
from tests.orchestrator.rest.servers import Answers, web_server


def options(**more: object) -> argparse.Namespace:
    return argparse.Namespace(**{"address": None, **more})


def test_a_cluster_has_its_own_store() -> None:
    own = OwnSettings(store="s3://mine/x")
    assert store_of(options(), own) == "s3://mine/x"
    assert store_of(options(), OwnSettings()) == ""
    assert store_of(options(address="http://h:8265"), own) == ""
    there = options(address="http://h:8265", job_store="s3://lab", job_home="/own")
    assert store_of(there, own) == "s3://lab"
    assert job_home(there, Path("/home")) == (Path("/own"), False)
    assert job_home(options(), Path("/home")) == (Path("/home"), True)


@pytest.mark.parametrize(
    "store", ["s3:/x", "s3://", "s3://U/x", "gs://bucket", "folder", "http://x"]
)
def test_other_addresses_are_refused(store: str) -> None:
    with pytest.raises(ValidationError):
        ClusterSettings(ray="http://h:8265", store=store)


def test_a_machine_that_cannot_use_its_store_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_own_store(options(), OwnSettings(store=str(tmp_path / "store")))
    check_own_store(options(), OwnSettings())
    with pytest.raises(Refused, match=r"file fails: Not a directory \(`store` in orchestrator"):
        check_own_store(options(), OwnSettings(store=str(tmp_path / "file")))


def test_a_host_that_cannot_use_the_store_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with web_server(Answers()) as uri:
        wanted = Wanted(home=str(tmp_path / "new"), sign=".check-1", shared=False, paths=[],
                        everywhere=False, mlflow=uri, store=str(tmp_path / "store"))  # fmt: skip
        well = look(wanted, "node1")
        assert (well.get("home"), well.get("store")) == ("", "") and (tmp_path / "new").is_dir()
        wanted["store"] = str(tmp_path / "file")
        wanted["home"] = str(tmp_path / "file" / "below")
        bad = look(wanted, "node1")
    lines = faults(wanted, [Finding(**{**bad, "host": "node1", "torch": "2"})], 0.0)  # type: ignore[typeddict-item]
    assert lines[0].startswith(f"host node1: the home {wanted['home']} cannot be written (Not a")
    assert lines[0].endswith("every host's own disk (`home` in clusters.yaml)")
    assert lines[1].startswith(f"host node1: the store {wanted['store']} fails: Not a directory")
    assert "AWS_ENDPOINT_URL" in lines[1] and len(lines) == 2
