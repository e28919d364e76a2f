"""Ask one server over HTTP: connections that stay open, short time-outs, one second try at most."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from requests.auth import AuthBase

from orchestrator.config.errors import innermost
from orchestrator.config.mlflow_settings import bypass_proxies, through_proxy

SECONDS = 20.0  # that a server may take to accept a connection, and between two parts of an answer
# a connection that was idle for so long is not used again: servers close theirs after some seconds,
# MLflow's after five, and a request that meets that moment is lost
_IDLE_SECONDS = 2.0
_PART = 1 << 20  # bytes of a download that are held at once


class NoAnswer(Exception):
    """A server did not answer; one line. details: why, after the proxy that was asked. was_closed:
    the connection was closed instead."""

    def __init__(self, url: str, error: BaseException) -> None:
        closed = (ConnectionResetError, BrokenPipeError)
        self.was_closed = any(isinstance(item, closed) for item in _wrapped(error))
        self.details = f"{through_proxy(url)}: {innermost(error)}"
        super().__init__(f"no answer{self.details}")


@dataclass(frozen=True)
class Login:
    """Holds what a server wants to know of those who ask.

    verify: False for a server of any certificate; a path: of those certificates that are trusted.
    certificate: file of our own one. signer: adds to every request what cannot be said beforehand.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    verify: bool | str = True
    certificate: str | None = None
    signer: AuthBase | None = None


class Session:
    """A connection to one server. Several threads may use it."""

    def __init__(
        self,
        address: str,
        login: Callable[[], Login],
        seconds: float = SECONDS,
        follow: bool = True,
    ) -> None:
        """login: is asked before every request, since it may change. follow: go where the server
        redirects to."""
        bypass_proxies()
        self.address = address.rstrip("/")
        self._login, self._seconds, self._follow = login, seconds, follow
        self._session = requests.Session()
        self._used = time.monotonic()

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        stream: bool = False,
        again: bool = True,
    ) -> requests.Response:
        """Return the answer, whatever its status. body: sent as JSON. stream: its content is left
        to `parts`, except that of an error. again: send it once more where the server has closed
        the connection without an answer; False where doing it twice is more than doing it once.
        Raises NoAnswer."""

        def send() -> requests.Response:
            answer = self._send(method, path, params=params, json=body, stream=stream)
            if stream and not answer.ok:  # nobody reads it as parts, and it holds a connection
                return self._read(answer)
            return answer

        return self._twice(send) if again else send()

    def upload(self, path: str, content: Path | bytes, kind: str) -> requests.Response:
        """Send the content of a file (PUT). kind: its MIME type. Raises NoAnswer."""

        def send() -> requests.Response:
            with contextlib.ExitStack() as stack:
                data = content
                if isinstance(content, Path):
                    data = stack.enter_context(content.open("rb"))  # type: ignore[assignment]
                return self._send("PUT", path, data=data, headers={"Content-Type": kind})

        return self._twice(send)

    def parts(self, answer: requests.Response) -> Iterator[bytes]:
        """Yield the content of an answer that was asked for as a stream. Raises NoAnswer where it
        breaks off."""
        try:
            yield from answer.iter_content(_PART)
        except requests.RequestException as error:
            raise NoAnswer(answer.url, error) from error
        finally:
            answer.close()

    def _read(self, answer: requests.Response) -> requests.Response:
        """Read an answer whole, which gives its connection back. Raises NoAnswer."""
        try:
            answer.content  # noqa: B018 (it is kept)
        except requests.RequestException as error:
            raise NoAnswer(answer.url, error) from error
        finally:
            answer.close()
        return answer

    def _twice(self, send: Callable[[], requests.Response]) -> requests.Response:
        try:
            return send()
        except NoAnswer as error:
            if not error.was_closed:
                raise
            return send()

    def _send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **content: Any
    ) -> requests.Response:
        login, url = self._login(), self.address + path
        if time.monotonic() - self._used > _IDLE_SECONDS:
            self._session.close()  # it opens others
        try:
            return self._session.request(
                method,
                url,
                headers={**login.headers, **(headers or {})},
                verify=login.verify,
                cert=login.certificate,
                auth=login.signer,
                timeout=self._seconds,
                allow_redirects=self._follow,
                **content,
            )
        except (OSError, ValueError) as error:  # what requests raises, and a missing certificate
            raise NoAnswer(url, error) from error
        finally:
            self._used = time.monotonic()


def _wrapped(error: object) -> Iterator[BaseException]:
    """Yield an exception, and those that it was made from."""
    if isinstance(error, BaseException):
        yield error
        for inner in error.args:
            yield from _wrapped(inner)
