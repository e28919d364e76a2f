"""All that is measured on one machine, as one table.

    python -m tests.benchmarks [training] [checkpoints] [inputs] [around] [trials]
        [commands] [light] [scale] [maps] [launches]

Beside it, with a table of their own: `tests.benchmarks.byol`, `.segment`, `.sam`, `.recipe`,
`.small_runs` and `.mlflow_away`.
"""

import argparse
import importlib

from tests.benchmarks.turns import machine, table

PARTS = (
    "training",
    "checkpoints",
    "inputs",
    "around",
    "trials",
    "commands",
    "light",
    "scale",
    "maps",
    "launches",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {sorted(unknown)[0]!r}: {', '.join(PARTS)}")
    lines = []
    for part in options.parts or PARTS:
        lines += importlib.import_module(f"tests.benchmarks.{part}").measure(options.turns)
    print(f"{machine()}\n\n{table(lines)}")


if __name__ == "__main__":
    main()
