"""The board in Ray's head: another driver's claim is seen, and nothing of one that died is left."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import ray
from ray.experimental.internal_kv import _internal_kv_list

from orchestrator.planning.placement import ResourceRequest
from orchestrator.sharing import board
from orchestrator.sharing.board import RayBoard
from orchestrator.sharing.claims import Claim

DRIVER = """
import sys, time
import ray
from orchestrator.planning.placement import ResourceRequest
from orchestrator.sharing.board import RayBoard
from orchestrator.sharing.claims import Claim
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
board = RayBoard()
board.write(Claim(board.job, "ann", "photos", 10, (), ((ResourceRequest(1, 1, 0.0), 1),), 1))
print(board.job, flush=True)
time.sleep(600)
"""


@pytest.fixture
def address() -> Iterator[str]:
    context = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        yield context.address_info["gcs_address"]
    finally:
        ray.shutdown()


def test_a_driver_is_heard_while_it_lives(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = RayBoard()
    own.write(Claim(own.job, "bob", "flowers"))
    assert own.others() == []
    other = subprocess.Popen([sys.executable, "-c", DRIVER, address], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        job = other.stdout.readline().decode().strip()
        claim = Claim(job, "ann", "photos", 10, (), ((ResourceRequest(1, 1, 0.0), 1),), 1)
        assert own.others() == [claim] and job > own.job
        monkeypatch.setattr(board, "_SILENT_SECONDS", -1.0)
        assert own.others() == [Claim(job, "ann", "photos", 10)]  # it waits for nothing any more
    finally:
        other.kill()
        other.communicate()
    deadline = time.monotonic() + 120
    while own.others():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert len(_internal_kv_list("orchestrator/claims/")) == 1
    own.leave()
    assert _internal_kv_list("orchestrator/claims/") == []
