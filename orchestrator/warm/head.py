"""Start a node of Ray whose workers can be forked from a warm template.

python -P head.py SOCKET start --head ...   (the arguments of `ray`)
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from orchestrator.warm.request import RAY_SETUP, REGISTER_SECONDS, SOCKET  # noqa: E402 (the path comes first)
from orchestrator.warm.template import UNSAFE  # noqa: E402

_FOLDER = Path(__file__).resolve().parent
_TRIES = 5
_SOON_SECONDS = 10.0


def keep_template(path: str) -> None:
    """Run the node's template, and start it again when it died, unless it dies at once again and
    again."""
    deaths = 0
    while deaths < _TRIES:
        began = time.monotonic()
        command = [sys.executable, "-P", str(_FOLDER / "template.py"), path, str(os.getpid())]
        status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        print(f"the template of warm workers ended ({status})", flush=True)
        if status == UNSAFE:
            return
        deaths = deaths + 1 if time.monotonic() - began < _SOON_SECONDS else 0


def main(path: str, arguments: list[str]) -> None:
    """Run `ray` with arguments, with this room's set-up script and a template beside it."""
    import ray._private.ray_constants as constants
    from ray._private import services
    from ray.scripts.scripts import main as ray_main

    own = Path(services.__file__).parent / "workers" / constants.SETUP_WORKER_FILENAME
    if own.is_file():
        os.environ |= {
            SOCKET: path,
            RAY_SETUP: str(own),
            "RAY_worker_register_timeout_seconds": str(REGISTER_SECONDS),
        }
        # an absolute path stands for itself where Ray joins it to its own folder
        constants.SETUP_WORKER_FILENAME = str(_FOLDER / "start_worker.py")
        threading.Thread(target=keep_template, args=[path], name="template", daemon=True).start()
    else:
        print(f"workers start plainly: this Ray has no {own}", flush=True)
    sys.argv = ["ray", *arguments]
    ray_main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
