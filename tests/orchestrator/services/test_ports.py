"""Ports of services: free, and none that the system gives to outgoing connections."""

import socket
from pathlib import Path

import pytest

from orchestrator.services import ports
from orchestrator.services.ports import free_ports, is_free


def test_free_ports_are_no_ports_of_outgoing_connections() -> None:
    """A connection took the port of Ray's agent once: the head came up and started no job."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(11)
    assert len(set(ports)) == 11 and all(1024 < port < first for port in ports)
    assert all(map(is_free, ports))


def test_a_port_that_is_taken_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        assert not is_free(taken.getsockname()[1])


def test_where_the_system_names_no_range_it_chooses_the_ports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ports, "_OUTGOING", tmp_path / "absent")
    assert len(set(free_ports(5))) == 5
