"""Serve MLflow as its own command does, without its assistant, and open on model training.

python -P orchestrator/pages/mlflow_app.py server --host=127.0.0.1 ...     (options of `mlflow`)

MLflow 3.17 has no setting for either: its assistant may run commands on this machine, answers
without a login, and opens over a third of the first page that is looked at.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

_MLFLOW = "mlflow.server.fastapi_app:app"  # what MLflow's command has uvicorn serve
_OURS = "orchestrator.pages.mlflow_app:app"
_ASSISTANT = "/ajax-api/3.0/mlflow/assistant"
# Before the page's own scripts: it remembers that the assistant has opened once, and which kind of
# work it shows where a reader has not chosen one. Names and versions are those that it stores.
_SETTINGS = b"""<script>
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
if (!localStorage.getItem("mlflow.workflowType_v1"))
  localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
</script><style>[data-assistant-ui] { display: none !important }</style>"""
_HEAD = b"<head>"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class WithoutAssistant:
    """MLflow's server; the assistant's part of it is not found, and its page does not show it."""

    def __init__(self, served: Any) -> None:
        """served: MLflow's own ASGI application."""
        self._served = served

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        if scope["type"] == "http" and path.startswith(_ASSISTANT):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "http" and scope["method"] == "GET" and path == "/":
            # whole and new each time: what a browser kept may lack our part
            conditions = (b"if-none-match", b"if-modified-since", b"range")
            kept = [item for item in scope["headers"] if item[0].lower() not in conditions]
            await self._served({**scope, "headers": kept}, receive, _with_settings(send))
        else:
            await self._served(scope, receive, send)


def _with_settings(send: Send) -> Send:
    """Return what passes an answer on; a page with a head gets our settings as the first of it."""
    start: list[Message] = []
    body = bytearray()

    async def passed_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.append(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        page = bytes(body).replace(_HEAD, _HEAD + _SETTINGS, 1)
        headers = [
            h for h in start[0]["headers"] if h[0].lower() not in (b"content-length", b"etag")
        ]
        headers.append((b"content-length", str(len(page)).encode()))
        await send({**start[0], "headers": headers})
        await send({"type": "http.response.body", "body": page})

    return passed_on


def __getattr__(name: str) -> WithoutAssistant:
    """Make `app` when uvicorn asks for it: MLflow's own takes seconds to load, and reads its
    settings then."""
    if name != "app":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from mlflow.server.fastapi_app import app as served

    return WithoutAssistant(served)


def main() -> None:
    """Run MLflow's command line; where it starts uvicorn, with the application above."""
    import mlflow.server  # takes seconds, and the server itself imports this file too
    from mlflow.cli import cli

    build = mlflow.server._build_uvicorn_command

    def ours(*args: Any, **options: Any) -> list[str]:
        command = [_OURS if part == _MLFLOW else part for part in build(*args, **options)]
        return [*command, "--app-dir", str(Path(__file__).parents[2])]

    mlflow.server._build_uvicorn_command = ours
    cli(prog_name="mlflow")


if __name__ == "__main__":
    main()
