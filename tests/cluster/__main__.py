"""Play situations on a cluster of several hosts, and print how each ended.

python -m tests.cluster [--only NAME ...] [--keep DIR]
"""

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.cluster.hosts import NoHosts
from tests.cluster.services import cluster
from tests.cluster.situations import SITUATIONS


def main() -> int:
    """Play them. Returns 0 where all hold, or where no hosts can be made here; else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SITUATIONS, metavar="NAME",
                        help=", ".join(SITUATIONS))  # fmt: skip
    parser.add_argument("--keep", metavar="DIR", help="folder for logs and homes; default: none")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(options.keep or temporary)
        work.mkdir(parents=True, exist_ok=True)
        try:
            began = time.monotonic()
            with cluster(work, late=1) as made:
                print(f"{'cluster is up':45} {time.monotonic() - began:6.1f} s", flush=True)
                for name in options.only or SITUATIONS:
                    began, word = time.monotonic(), "holds"
                    try:
                        SITUATIONS[name](made)
                    except Exception:  # the others are played too
                        traceback.print_exc()
                        failed, word = failed + 1, "DOES NOT HOLD"
                    print(f"{name:45} {time.monotonic() - began:6.1f} s  {word}", flush=True)
        except NoHosts as error:
            print(f"skipped: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
