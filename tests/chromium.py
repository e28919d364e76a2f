"""Headless Chromium for the tests, driven over its DevTools protocol
(https://chromedevtools.github.io/devtools-protocol/): open a page, wait for what it shows, take a
picture of it, list what it has asked for."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless=new --remote-debugging-port=0 --disable-gpu --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage"
).split()
_SECONDS = 120.0  # that a page may take to show what is waited for, on a busy machine
_BYTES = 1 << 27  # of one message, such as a picture


def chromium() -> str:
    """Path of the browser; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
    return found


class Page:
    """One tab. Everything is waited for; nothing here knows what the page is about."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse):
        self._loop, self._socket, self._number = loop, socket, 0
        self.requests: list[str] = []  # the addresses that the page has asked for
        for domain in ("Page", "Network", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to an address; returns before the page has loaded."""
        self._call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise ValueError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def text(self) -> str:
        """What a reader of the page sees, as text."""
        return str(self.value("document.body ? document.body.innerText : ''"))

    def wait_for(self, *texts: str) -> str:
        """Wait until the page shows every text. Returns all that it shows."""
        deadline = time.monotonic() + _SECONDS
        while True:
            seen = self.text()
            missing = [text for text in texts if text not in seen]
            if not missing:
                return seen
            if time.monotonic() > deadline:
                raise AssertionError(f"the page does not show {missing}, but:\n{seen}")
            time.sleep(0.2)

    def wait_until(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true. Returns its value."""
        deadline = time.monotonic() + _SECONDS
        while not (found := self.value(expression)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{expression} stays {found!r}; shown:\n{self.text()}")
            time.sleep(0.2)
        return found

    def press(self, key: str) -> None:
        """Press a key that writes no letter, such as ArrowRight, where the focus is."""
        codes = {"ArrowRight": 39, "ArrowLeft": 37, "Enter": 13}
        for kind in ("rawKeyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                       windowsVirtualKeyCode=codes[key])  # fmt: skip

    def write(self, text: str) -> None:
        """Write a text where the focus is."""
        self._call("Input.insertText", text=text)

    def picture(self, file: Path) -> None:
        """Write what the window shows as a PNG file."""
        answer = self._call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(answer["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(self._ask(method, params))

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), _SECONDS)
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            if message.get("id") == self._number:
                if "error" in message:
                    raise ValueError(f"{method}: {message['error']}")
                return dict(message["result"])


@contextmanager
def page(width: int = 1600, height: int = 1000) -> Iterator[Page]:
    """A tab of a browser of its own, that no other test has touched."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [chromium(), *_OPTIONS, f"--user-data-dir={folder}",
                   f"--window-size={width},{height}", "about:blank"]  # fmt: skip
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium's own refuses root
        silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, **silent)
        loop = asyncio.new_event_loop()
        try:
            port = _port(Path(folder, "DevToolsActivePort"))
            client, socket = loop.run_until_complete(_connect(port))
            try:
                yield Page(loop, socket)
            finally:
                loop.run_until_complete(client.close())
        finally:
            loop.close()
            process.terminate()
            process.wait()


def _port(file: Path) -> int:
    deadline = time.monotonic() + _SECONDS
    while not (file.is_file() and (lines := file.read_text().splitlines())):
        if time.monotonic() > deadline:
            raise AssertionError("Chromium does not start")
        time.sleep(0.1)
    return int(lines[0])


async def _connect(port: int) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    client = aiohttp.ClientSession()
    async with client.get(f"http://127.0.0.1:{port}/json") as answer:
        tabs = json.loads(await answer.text())
    address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return client, await client.ws_connect(address, max_msg_size=_BYTES)
