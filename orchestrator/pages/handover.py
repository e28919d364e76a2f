"""Log the browser of this user in to the Ray dashboard, without a secret in an address or a log.

A page on loopback answers one request of this user's own browser with the cookie that the dashboard
itself sets after its login, and sends the browser on. Cookies belong to a host, whatever the port.
"""

import ipaddress
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_COOKIE = "ray-authentication-token"  # of Ray 2.60: `authentication_constants` in its sources
_CONNECTIONS = Path("/proc/net/tcp")
_LOOPBACK = "127.0.0.1"


class _Once(HTTPServer):
    """Serves one page once. token: None once it was handed over."""

    def __init__(self, token: str, target: str) -> None:
        self.token: str | None = token
        self.target = target
        super().__init__((_LOOPBACK, 0), _Page)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a browser may close a connection at any time."""


class _Page(BaseHTTPRequestHandler):
    """Answers this user alone; writes no log."""

    server: _Once
    timeout = 5.0  # seconds: a connection that asks for nothing must not hold the others up

    def do_GET(self) -> None:
        """Hand the token over."""
        own = f"{_LOOPBACK}:{self.server.server_port}"
        allowed = self.path == "/" and self.headers.get("Host") == own  # no other name leads here
        if not allowed or not _is_own(self.request):
            self.send_error(403)
            return
        token, self.server.token = self.server.token, None
        self.send_response(303)
        self.send_header("Set-Cookie", f"{_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Location", self.server.target)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


class Handover:
    """Serves one page that hands a token over. Use it in `with`; `address` is free of secrets."""

    def __init__(self, token: str, target: str) -> None:
        """target: the dashboard's address, to which the browser is sent. Raises ValueError where it
        is not on loopback: its cookie would not reach it."""
        if not can_hand_over(target):
            raise ValueError(f"{target} is not on {_LOOPBACK}")
        self._server = _Once(token, target)
        self.address = f"http://{_LOOPBACK}:{self._server.server_port}/"

    def __enter__(self) -> "Handover":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self, seconds: float) -> bool:
        """Serve until the token was handed over, or for so long. Returns whether it was."""
        self._server.timeout = 1.0
        left = seconds
        while self._server.token is not None and left > 0:
            self._server.handle_request()
            left -= self._server.timeout
        return self._server.token is None


def can_hand_over(target: str) -> bool:
    """Tell whether a browser here can be logged in to an address: it is on loopback, and this
    system tells which user a connection belongs to."""
    return urlsplit(target).hostname == _LOOPBACK and _CONNECTIONS.is_file()


def has_browser() -> bool:
    """Tell whether a browser can open here. One in the terminal does not count."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(screen or os.environ.get("BROWSER") or sys.platform == "darwin")


def _is_own(connection: socket.socket) -> bool:
    """Tell whether the other end of a connection belongs to this user."""
    ends = [_as_listed(*connection.getpeername()), _as_listed(*connection.getsockname())]
    for line in _CONNECTIONS.read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return int(fields[7]) == os.getuid()
    return False


def _as_listed(host: str, port: int) -> str:
    """Return an IPv4 address and port as the kernel lists them: the address in the order of this
    machine's bytes."""
    number = int.from_bytes(ipaddress.IPv4Address(host).packed, sys.byteorder)
    return f"{number:08X}:{port:04X}"
