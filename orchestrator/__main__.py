"""Entry point of the command line: `python -m orchestrator COMMAND`."""

import sys

from orchestrator.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
