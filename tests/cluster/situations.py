"""What happens to studies on a cluster of several hosts, and what must be true then."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.services import ROOT, Cluster

_ENDS_SECONDS = 300.0
_SILENCE_SECONDS = 130.0  # after which a driver is taken for dead


def shared(cluster: Cluster) -> tuple[str, ...]:
    """Return the options of a person whose home lies on a folder that all hosts see."""
    return ("--home", str(cluster.work / "home"))


def wait_for(condition: Callable[[], object], seconds: float = _ENDS_SECONDS) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


def two_workers_on_two_nodes(cluster: Cluster) -> None:
    """A person who has only the network trains on two hosts, and gets the figures of one."""
    study = str(cluster.study("two"))
    address = ("--address", cluster.ray_url)
    both = cluster.person("submit", study, *shared(cluster), *address)
    assert both.returncode == 0, both.stdout + both.stderr
    said = cluster.person("logs", "two/full/0", *shared(cluster)).stdout
    assert "rank 0 of 2" in said and "rank 1 of 2" in said
    home = ("--home", str(cluster.work / "alone"))
    one = cluster.person("submit", study, "--set", "resources.workers=1", *home, *address)
    assert one.returncode == 0, one.stdout + one.stderr
    assert abs(_tested(cluster, "home") - _tested(cluster, "alone")) < 1e-4


def another_home(cluster: Cluster) -> tuple[str, ...]:
    """Return the options of a home that lies on the person's machine alone."""
    return ("--home", "/run/home/own")


def state(cluster: Cluster, study: str, *options: str) -> dict[str, Any]:
    """Return what `status` says of a study; empty where it knows of none."""
    answer = cluster.person("status", study, "--json", *options)
    if answer.returncode:
        return {}
    (found,) = json.loads(answer.stdout)["studies"]
    return dict(found)


def training(
    cluster: Cluster, study: str, following: "subprocess.Popen[str]", epochs: int = 1
) -> None:
    """Wait until the study's Run has trained so many epochs. following: its `submit`."""

    def reached() -> bool:
        assert following.poll() is None, following.communicate()
        runs = state(cluster, study, *another_home(cluster)).get("runs") or [{"epoch": 0}]
        return int(runs[0]["epoch"] or 0) >= epochs

    wait_for(reached)


def nodes_that_come_late(cluster: Cluster) -> None:
    """A study that the cluster has no room for waits, says for what, and uses the late node."""
    study = str(cluster.study("late", workers=3, lr=0.02))
    following = cluster.person_starts(
        "submit", study, *shared(cluster), "--address", cluster.ray_url
    )
    wait_for(lambda: state(cluster, "late", *another_home(cluster)).get("waits"))
    waits = state(cluster, "late", *another_home(cluster))["waits"]
    assert "a Run asks for 3 workers with 1 CPUs and 0 GPUs each; the cluster has" in waits
    assert "WAITING" in cluster.person("status", "late", *another_home(cluster)).stdout
    cluster.start_node("node3")
    out, err = following.communicate(timeout=_ENDS_SECONDS)
    assert following.returncode == 0, out + err
    assert "waits for nodes" in out + err
    cluster.stop("node3")


def commands_on_another_machine(cluster: Cluster) -> None:
    """`status`, `logs` and `stop` tell the truth where neither home nor store is."""
    study = str(cluster.study("long", workers=1, epochs=5000, lr=0.03))
    following = cluster.person_starts(
        "submit", study, *shared(cluster), "--address", cluster.ray_url
    )
    training(cluster, "long", following)
    other = another_home(cluster)
    assert "RUNNING" in cluster.person("status", "long", *other).stdout
    assert "it trains on another machine" in cluster.person("logs", "long/full/0", *other).stderr
    refused = cluster.person("stop", "long", *other)
    assert refused.returncode == 1 and "--any-home" in refused.stderr
    stopped = cluster.person("stop", "long", "--any-home", *other)
    assert stopped.returncode == 0 and "stopped long" in stopped.stdout, stopped.stderr
    following.communicate(timeout=_ENDS_SECONDS)
    found = state(cluster, "long", *other)
    assert found["state"] == "KILLED" and found["runs"][0]["state"] == "KILLED"
    assert "was stopped" in found["runs"][0]["reason"]


def a_home_that_the_head_does_not_see(cluster: Cluster) -> None:
    """The study is refused with host and cause, and no empty home is made in its place."""
    study = str(cluster.study("unseen"))
    options = (*another_home(cluster), "--address", cluster.ray_url)
    refused = cluster.person("submit", study, *options)
    assert refused.returncode == 2, refused.stderr
    for host in ("head", "node1", "node2"):
        assert f"host {host}: the home /run/home/own is not there" in refused.stderr
    assert cluster.hosts["head"].run(["ls", "/run/home/own"]).returncode != 0


def a_home_that_a_node_does_not_see(cluster: Cluster) -> None:
    """All faults come at once: another folder on a node, and data that is nowhere."""
    home = cluster.work / "half"
    home.mkdir()
    cluster.hosts["node2"].run(["mount", "-t", "tmpfs", "tmpfs", str(home)])
    study = cluster.study("half", lr=0.04)
    text = study.read_text().replace("{type: digits, limit: 60}", "{type: image_folder, path: /x}")
    study.write_text(text)
    options = ("--home", str(home), "--address", cluster.ray_url)
    refused = cluster.person("submit", str(study), *options)
    assert refused.returncode == 2 and "2 faults" in refused.stderr, refused.stderr
    assert f"host node2: the home {home} is not the same folder" in refused.stderr
    assert "host head: there is no /x" in refused.stderr


def a_named_cluster(cluster: Cluster) -> None:
    """A person whose home is on her machine alone checks a cluster, trains on it, and asks."""
    text = f"""
lab:
  ray: {cluster.ray_url}
  token: {{env: LAB_TOKEN}}
  mlflow: {cluster.mlflow_uri}
  home: {cluster.work}/lab
  resources: {{workers: 2}}
"""
    (cluster.work / "me" / "clusters.yaml").write_text(text)
    lab = (*another_home(cluster), "--cluster", "lab")
    login = {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": "", "LAB_TOKEN": cluster.token}
    checked = cluster.person("check", *lab, **login)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    print(checked.stdout)
    study = cluster.study("named", lr=0.06)
    study.write_text(study.read_text().replace("workers: 2, ", ""))
    done = cluster.person("submit", str(study), *lab, **login)
    assert done.returncode == 0, done.stdout + done.stderr
    said = cluster.person("logs", "named/full/0", *lab, **login).stdout
    assert "rank 1 of 2" in said
    assert cluster.person("compare", "named", *lab, **login).returncode == 0
    assert cluster.person("status", "named", *lab, **login).returncode == 0
    assert "was not running" in cluster.person("stop", "named", *lab, **login).stdout
    again = cluster.person("submit", str(study), *lab, **login)
    assert again.returncode == 0, again.stderr
    attempts = [file.read_text() for file in (cluster.work / "lab" / "store").glob("*/attempt")]
    assert [json.loads(text)["attempt"] for text in attempts] == [1]


def a_node_that_dies_under_a_run(cluster: Cluster) -> None:
    """The follower tells of the node, and the Run goes on elsewhere as if nothing had happened."""
    address = ("--address", cluster.ray_url)
    spared = str(cluster.study("spared", workers=1, epochs=120, lr=0.07))
    alone = cluster.person("submit", spared, "--home", str(cluster.work / "spared"), *address)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    study = str(cluster.study("bereft", workers=1, epochs=120, lr=0.07))
    before = set((cluster.work / "home" / "store").glob("*"))
    following = cluster.person_starts("submit", study, *shared(cluster), *address)
    training(cluster, "bereft", following, epochs=5)
    (run,) = set((cluster.work / "home" / "store").glob("*")) - before
    cluster.hosts[json.loads((run / "progress.json").read_text())["host"]].kill()
    out, err = following.communicate(timeout=_ENDS_SECONDS)
    assert following.returncode == 0, out + err
    assert "was lost with its node" in out + err, out + err
    assert json.loads((run / "attempt").read_text())["attempt"] == 2
    (done,) = (cluster.work / "spared" / "store").glob("*/done.json")
    assert _result(run / "done.json") == _result(done)


def hosts_that_share_no_folder(cluster: Cluster) -> None:
    """A bucket is enough: two hosts train together, and a Run whose node dies goes on on another
    one, bit for bit."""
    for name in ("calm", "struck"):
        text = f"""{name}:
  ray: {cluster.ray_url}
  mlflow: {cluster.mlflow_uri}
  home: /run/home/{name}
  store: s3://bucket/{name}
"""
        with (cluster.work / "me" / "clusters.yaml").open("a") as file:
            file.write(text)
    calm, struck = ((*another_home(cluster), "--cluster", name) for name in ("calm", "struck"))
    checked = cluster.person("check", *calm)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    both = cluster.person("submit", str(cluster.study("both", lr=0.07)), *calm)
    assert both.returncode == 0, both.stdout + both.stderr
    said = cluster.person("logs", "both/full/0", *calm).stdout
    assert "rank 0 of 2" in said
    study = str(cluster.study("moves", workers=1, epochs=40, lr=0.08))
    undisturbed = cluster.person("submit", study, *calm)
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    following = cluster.person_starts("submit", study, *struck)
    # `status` may still show the undisturbed one: the disks of the nodes do not
    wait_for(lambda: [name for name in ("node1", "node2") if _trains(cluster, name)])
    (node,) = [name for name in ("node1", "node2") if _trains(cluster, name)]
    assert following.poll() is None
    cluster.stop(node)
    out, err = following.communicate(timeout=_ENDS_SECONDS)
    assert following.returncode == 0, out + err
    cluster.start_node(node)
    assert _stored(cluster, "struck") == _stored(cluster, "calm")


def _trains(cluster: Cluster, name: str) -> bool:
    """Return whether a host has the third epoch of a Run of the home `struck` on its disk."""
    script = "ls -d /run/home/struck/store/*/epoch_00003"
    return cluster.hosts[name].run(["sh", "-c", script]).returncode == 0


def _stored(cluster: Cluster, prefix: str) -> set[str]:
    """Return the checkpoints of the Run of 40 epochs in a bucket, each with its sha256."""
    code = f"""
from orchestrator.objects.address import open_objects
from orchestrator.objects.head import read_head
objects = open_objects("s3://bucket/{prefix}")
for key in {{name.partition("/")[0] for name in objects.list("")}} - {{"images"}}:
    head = read_head(objects, key)
    files = {{name: file for name, file in head.files.items() if name.endswith("weights.pt")}}
    if any("epoch_00040" in name for name in files):
        print(*[f"{{name}}:{{file.sha256}}" for name, file in files.items()])
"""
    command = [sys.executable, "-c", code]
    done = cluster.hosts["me"].run(command, cluster.work / "me", {"PYTHONPATH": str(ROOT)})
    found = set(done.stdout.split())
    assert found, done.stderr
    return found


def a_head_that_is_gone(cluster: Cluster) -> None:
    """The study is not RUNNING for ever, and `stop` ends it for MLflow."""
    study = str(cluster.study("orphan", workers=1, epochs=5000, lr=0.05))
    following = cluster.person_starts(
        "submit", study, *shared(cluster), "--address", cluster.ray_url
    )
    training(cluster, "orphan", following)
    cluster.hosts["head"].kill()
    out, err = following.communicate(timeout=_ENDS_SECONDS)
    assert following.returncode == 1 and "submit the study again" in err, out + err
    refused = cluster.person("stop", "orphan", *shared(cluster))
    assert refused.returncode == 1 and "last heard of" in refused.stderr, refused.stderr
    time.sleep(_SILENCE_SECONDS)
    stopped = cluster.person("stop", "orphan", *shared(cluster))
    assert stopped.returncode == 0 and "is marked as ended" in stopped.stdout, stopped.stderr
    found = state(cluster, "orphan", *shared(cluster))
    assert found["state"] == "KILLED" and "does not answer" in found["runs"][0]["reason"]


def _result(file: Path) -> dict[str, Any]:
    """Return the figures of a Run that has ended, without its times."""
    done = json.loads(file.read_text())
    return {name: done[name] for name in ("best_epoch", "test")}


def _tested(cluster: Cluster, home: str) -> float:
    (file,) = (cluster.work / home / "store").glob("*/done.json")
    return float(json.loads(file.read_text())["test"]["test/loss"])


# in this order, on one cluster: the last one ends it
SITUATIONS: dict[str, Callable[[Cluster], None]] = {
    situation.__name__: situation
    for situation in (
        two_workers_on_two_nodes,
        nodes_that_come_late,
        commands_on_another_machine,
        a_home_that_the_head_does_not_see,
        a_home_that_a_node_does_not_see,
        a_named_cluster,
        hosts_that_share_no_folder,
        a_node_that_dies_under_a_run,
        a_head_that_is_gone,
    )
}
