"""Keeps what the drivers of a cluster say to each other in the memory of its head (the key-value
store of Ray's GCS). There is no server of ours that could die.
"""

import time

import ray
from ray._private.state import jobs
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from orchestrator.sharing.claims import Claim

_PREFIX = "orchestrator/claims/"
_SILENT_SECONDS = 60.0  # after which a driver waits for nothing any more: it hangs or was stopped


class RayBoard:
    """Reads and writes claims in the cluster that this process is connected to."""

    def __init__(self) -> None:
        self.job = _in_order(ray.get_runtime_context().get_job_id())
        self._heard: dict[str, tuple[int, float]] = {}  # job → its beat, and when it was new

    def write(self, claim: Claim) -> None:
        """Show this driver's claim to the others."""
        _internal_kv_put(_PREFIX + self.job, claim.encoded(), overwrite=True)

    def leave(self) -> None:
        """Take this driver's claim away."""
        _internal_kv_del(_PREFIX + self.job)

    def others(self) -> list[Claim]:
        """Return the claims of other drivers that live. Those of drivers that have died are
        removed."""
        living = {_in_order(item["JobID"]) for item in jobs() if not item["IsDead"]}
        found = []
        for key in _internal_kv_list(_PREFIX):
            job = key.decode().removeprefix(_PREFIX)
            if job == self.job:
                continue
            if job not in living:
                _internal_kv_del(key)
            elif content := _internal_kv_get(key):
                found.append(self._unless_silent(Claim.decoded(content)))
        return found

    def _unless_silent(self, claim: Claim) -> Claim:
        """Return a claim that waits for nothing where its driver has been silent for too long."""
        now = time.monotonic()
        beat, since = self._heard.get(claim.job, (-1, now))
        if claim.beat != beat:
            since = now
        self._heard[claim.job] = claim.beat, since
        if now - since <= _SILENT_SECONDS:
            return claim
        return Claim(claim.job, claim.person, claim.study, claim.priority, claim.running)


def _in_order(job_id: str) -> str:
    """Return Ray's id of a job, whose last byte counts most, so that ids sort as jobs began."""
    return bytes.fromhex(job_id)[::-1].hex()
