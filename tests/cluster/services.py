"""A cluster on the hosts of a network: a Ray head without CPUs, nodes with one CPU each, MLflow,
and a person's machine that has only the network."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.hosts import Host, end, hosts
from tests.s3_server import login

ROOT = Path(__file__).parents[2]
STUDY = """
study: {name}
question: Does it run on two hosts?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{workers: {workers}, cpus_per_worker: 1, gpus_per_worker: 0}}
stages:
  full: {{trainable: classify, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs}, batch_size: 16, lr: {lr}, checkpoint_every: {{epochs: 1}}}}}}
"""  # noqa: E501
_UP_SECONDS = 180
_PING = """
import sys, time, requests
deadline = time.monotonic() + float(sys.argv[2])
while time.monotonic() < deadline:
    try:
        if requests.get(sys.argv[1], timeout=5).status_code < 500:
            sys.exit(0)
    except requests.RequestException as error:
        print(error, file=sys.stderr)
    time.sleep(0.2)
sys.exit(1)
"""


@dataclass
class Cluster:
    """Hosts `head`, `node1`, `node2` ..., `tracking` and `me`, the person's machine.

    work: a folder that all hosts see, as over NFS; the person's own home is on `me` alone.
    """

    hosts: dict[str, Host]
    work: Path
    token: str
    services: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    @property
    def ray_url(self) -> str:
        """Return the address of Ray's dashboard."""
        return f"{self.hosts['head'].url}:8265"

    @property
    def mlflow_uri(self) -> str:
        """Return the address of MLflow."""
        return f"{self.hosts['tracking'].url}:5000"

    @property
    def s3_url(self) -> str:
        """Return the address of the S3 server."""
        return f"{self.hosts['tracking'].url}:9000"

    def start_s3(self) -> None:
        """Start an S3 server on the host of MLflow."""
        command = [sys.executable, "-m", "tests.s3_server", "0.0.0.0", "9000"]
        self._serve("tracking", command, {"PYTHONPATH": str(ROOT)}, "s3")

    @property
    def login(self) -> dict[str, str]:
        """Return the environment with which a program may use the cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start_mlflow(self) -> None:
        """Start MLflow on its host."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host=0.0.0.0", "--port=5000",
            "--workers=1", "--allowed-hosts=*",
            f"--backend-store-uri=sqlite:///{self.work}/mlflow.db",
            f"--artifacts-destination={self.work}/artifacts",
        ]  # fmt: skip
        self._serve("tracking", command, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})

    def start_head(self) -> None:
        """Start the Ray head, which has no CPUs."""
        self._ray("head", "--head", "--port=6379", "--num-cpus=0", "--dashboard-host=0.0.0.0")

    def start_node(self, name: str, cpus: int = 1) -> None:
        """Start a Ray node on a host. The head must run."""
        self._ray(name, f"--address={self.hosts['head'].address}:6379", f"--num-cpus={cpus}")

    def _ray(self, name: str, *options: str) -> None:
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--block",
            "--disable-usage-stats", f"--node-ip-address={self.hosts[name].address}",
            "--object-store-memory=100000000", *options,
        ]  # fmt: skip
        if "--head" in options:
            command.append("--temp-dir=/run/ray")
        self._serve(name, command, self.login)

    def _serve(
        self, name: str, command: Sequence[str], extra: dict[str, str], service: str = ""
    ) -> None:
        log = self.work / f"{service or name}-service.log"
        self.services[service or name] = self.hosts[name].start(command, extra=extra, log=log)

    def wait_for(self, url: str) -> None:
        """Wait until an address answers on the person's machine."""
        command = [sys.executable, "-c", _PING, url, str(_UP_SECONDS)]
        done = self.hosts["me"].run(command)
        if done.returncode:
            raise RuntimeError(f"{url} did not come up: {done.stderr[-500:]}")

    def stop(self, name: str) -> None:
        """End the service of a host; the host lives on."""
        end(self.services.pop(name))

    def study(self, name: str, workers: int = 2, epochs: int = 2, lr: float = 0.01) -> Path:
        """Write a study of one Run. Returns its file."""
        path = self.work / f"{name}.yaml"
        path.write_text(STUDY.format(name=name, workers=workers, epochs=epochs, lr=lr))
        return path

    def person(self, *arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the product on the person's machine. extra: environment."""
        settings = self._settings(extra)
        return self.hosts["me"].run(
            [sys.executable, "-m", "orchestrator", *arguments], self.work / "me", settings
        )

    def person_starts(self, *arguments: str, **extra: str) -> "subprocess.Popen[str]":
        """Start such a command, and return at once."""
        settings = self._settings(extra)
        return self.hosts["me"].start(
            [sys.executable, "-m", "orchestrator", *arguments], self.work / "me", settings
        )

    def _settings(self, extra: dict[str, str]) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT), "COLUMNS": "150", **self.login, **extra}

    def log(self, name: str) -> str:
        """Return what the service of a host has said."""
        return (self.work / f"{name}-service.log").read_text(errors="replace")


@contextmanager
def cluster(work: Path, nodes: int = 2, late: int = 0) -> Iterator[Cluster]:
    """Start a cluster, and end it with all its hosts. late: hosts more that may become nodes.
    Raises NoHosts."""
    names = [f"node{number}" for number in range(1, nodes + late + 1)]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with hosts("head", "tracking", "me", *names, work=work, environment=environment) as made:
        (work / "me").mkdir()
        found = Cluster(made, work, secrets.token_hex(16))
        settings = f"tracking_uri: {found.mlflow_uri}\n"
        (work / "me" / "mlflow.yaml").write_text(settings)
        for host in made.values():
            host.environment |= login(found.s3_url)
        found.start_mlflow()
        found.start_s3()
        found.start_head()
        found.wait_for(f"{found.ray_url}/api/version")
        for name in names[:nodes]:
            found.start_node(name)
        found.wait_for(f"{found.mlflow_uri}/health")
        try:
            yield found
        finally:
            for name in list(found.services):
                found.stop(name)
