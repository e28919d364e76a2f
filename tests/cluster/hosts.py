"""Several hosts on one machine: each has a network, a name, mounts and processes of its own.

They are made of Linux namespaces inside a network that is apart from the machine's: nothing of the
machine changes, and all of it ends with the program, however it ends. It needs root, and the
programs of iproute2 and util-linux.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "mount", "hostname")
_READY_SECONDS = 30.0
_TIED = ("setpriv", "--pdeathsig", "KILL")  # ends with the program that has started it
_APART = ("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_NETWORK = "10.77.0"
_SLEEP = "exec sleep infinity"
# every host sees the machine's files, and has these to itself
_OWN_FOLDERS = """
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mount --bind "$1" /etc/hosts
mkdir /run/home /run/ray
hostname "$2"
"""


class NoHosts(Exception):
    """This machine can make no hosts; one line that says why."""


def check() -> None:
    """Raise NoHosts where hosts cannot be made here."""
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        raise NoHosts(f"{', '.join(missing)} is not installed (iproute2, util-linux)")
    if os.geteuid() != 0:
        raise NoHosts("only root may make hosts of network namespaces")
    bridge = ["ip", "link", "add", "bridge0", "type", "bridge"]
    done = subprocess.run([*_APART, *bridge], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise NoHosts(f"no network namespaces here: {' '.join(done.stderr.split())[:200]}")


def _apart(log: Path, *script: str) -> "subprocess.Popen[bytes]":
    """Start a shell script in namespaces of its own. log: file of its output."""
    with log.open("ab") as file:
        return subprocess.Popen([*_TIED, *_APART, "sh", "-c", *script], stdout=file, stderr=file)


def _first_inside(outer: subprocess.Popen[bytes]) -> int:
    """Return the id of the process that sleeps in the new namespaces. Raises NoHosts."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and outer.poll() is None:
        for process in psutil.Process(outer.pid).children(recursive=True):
            try:
                if process.cmdline()[:1] == ["sleep"]:
                    return process.pid
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)
    raise NoHosts("a host did not start: its .log in the work folder says why")


@dataclass
class Host:
    """One host. address: its IPv4 address; environment: of every command that runs on it."""

    name: str
    address: str
    link: str  # the bridge's side of its cable
    _switch: int  # a process in the network of the bridge
    _outer: "subprocess.Popen[bytes]"
    _inside: int
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Return the beginning of the addresses of its servers, without the port."""
        return f"http://{self.address}"

    def _command(self, command: Sequence[str], folder: Path | str) -> list[str]:
        spaces = ["--net", "--uts", "--mount", "--pid", f"--wd={folder}"]
        return [*_TIED, "nsenter", f"--target={self._inside}", *spaces, "--", *command]

    def start(
        self,
        command: Sequence[str],
        folder: Path | str = "/",
        extra: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> "subprocess.Popen[str]":
        """Start a command on the host. log: file of its output; None: pipes."""
        environment = {**self.environment, **(extra or {})}
        if log is None:
            return subprocess.Popen(
                self._command(command, folder), env=environment, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        with log.open("a") as file:
            return subprocess.Popen(
                self._command(command, folder), env=environment, text=True,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip

    def run(
        self,
        command: Sequence[str],
        folder: Path | str = "/",
        extra: Mapping[str, str] | None = None,
        seconds: float = 600.0,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on the host, and wait for its end."""
        process = self.start(command, folder, extra)
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            end(process)
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    @property
    def is_up(self) -> bool:
        """Return whether the host's first process lives, and so may others of it."""
        return psutil.pid_exists(self._inside)

    def cut(self) -> None:
        """Pull out the host's network cable."""
        _in_network(self._switch, "ip", "link", "set", self.link, "down")

    def mend(self) -> None:
        """Put the cable back."""
        _in_network(self._switch, "ip", "link", "set", self.link, "up")

    def kill(self) -> None:
        """Turn the host off: every process on it dies at once."""
        if psutil.pid_exists(self._inside):
            psutil.Process(self._inside).kill()
        self._outer.wait(30)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that run on the host."""
        space = os.readlink(f"/proc/{self._inside}/ns/net")
        found = []
        for process in psutil.process_iter():
            try:
                if os.readlink(f"/proc/{process.pid}/ns/net") == space:
                    found.append(process)
            except OSError:  # it has ended, or belongs to the kernel
                continue
        return found


def end(process: "subprocess.Popen[str]") -> None:
    """End a command of a host with all that it has started."""
    if process.poll() is None:
        _kill_family(process.pid)
        process.kill()
        process.wait(30)


def _kill_family(pid: int) -> list[psutil.Process]:
    """Kill all processes below one. Returns them."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):  # it has ended just now
        family = psutil.Process(pid).children(recursive=True)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    return family


def _in_network(process: int, *command: str) -> None:
    enter = ["nsenter", f"--target={process}", "--net", "--", *command]
    subprocess.run(enter, check=True, capture_output=True, timeout=60)


@contextmanager
def hosts(*names: str, work: Path, environment: Mapping[str, str]) -> Iterator[dict[str, Host]]:
    """Make hosts that reach each other, and nothing else. work: a folder of the machine, which all
    hosts see; environment: of every command. Yields name → host. Raises NoHosts."""
    check()
    addresses = {name: f"{_NETWORK}.{number}" for number, name in enumerate(names, 11)}
    table = "".join(f"{address} {name}\n" for name, address in addresses.items())
    (work / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{table}")
    made: dict[str, Host] = {}
    outer = _apart(work / "network.log", _SLEEP)
    started = [outer]
    try:
        switch = _first_inside(outer)
        _in_network(switch, "ip", "link", "add", "bridge0", "type", "bridge")
        _in_network(switch, "ip", "link", "set", "bridge0", "up")
        for number, (name, address) in enumerate(addresses.items()):
            script = [_OWN_FOLDERS + _SLEEP, "sh", str(work / "hosts"), name]
            own = _apart(work / f"{name}.log", *script)
            started.append(own)
            host = Host(name, address, f"cable{number}", switch, own, _first_inside(own))
            host.environment = {**environment, "HOME": "/run/home"}
            _wire(host, switch)
            made[name] = host
        yield made
    finally:
        for process in reversed(started):
            end_tree(process)


def _wire(host: Host, switch: int) -> None:
    _in_network(
        switch, "ip", "link", "add", host.link, "type", "veth",
        "peer", "name", "eth0", "netns", str(host._inside),
    )  # fmt: skip
    _in_network(switch, "ip", "link", "set", host.link, "master", "bridge0", "up")
    _in_network(host._inside, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
    _in_network(host._inside, "ip", "link", "set", "eth0", "up")


def end_tree(process: "subprocess.Popen[bytes]") -> None:
    """End a host's first process, and with it every process of the host."""
    if process.poll() is None:
        family = _kill_family(process.pid)
        process.kill()
        psutil.wait_procs(family, 30)
    process.wait(30)
