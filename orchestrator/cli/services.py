"""Commands for this home and its services: up, down, clean."""

import argparse

from rich.console import Console

from orchestrator.cli.console import ERRORS, show_services
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.driver.garbage_collector import clean as clean_home
from orchestrator.execution import services
from orchestrator.storage.home import find_home


def up(options: argparse.Namespace) -> int:
    """Start the local Ray head and MLflow server, or find them."""
    home = find_home(options.home).create()
    found = services.start(home, read_settings(options.mlflow), ERRORS.print)
    show_services(found, Console(highlight=False))
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the local services of this home, and nothing else."""
    stopped = services.stop(find_home(options.home))
    print(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running")
    return 0


def clean(options: argparse.Namespace) -> int:
    """Remove what no study's newest plan needs."""
    home = find_home(options.home).create()
    waste = clean_home(home, options.dry_run)
    for item in waste:
        print(f"{item.bytes / 1e6:10.1f} MB  {item.path}  {item.why}")
    total = sum(item.bytes for item in waste) / 1e6
    word = "would be freed" if options.dry_run else "freed"
    print(f"{total:10.1f} MB {word}" if waste else "nothing to clean")
    return 0
