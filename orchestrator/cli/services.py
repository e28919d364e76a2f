"""Commands for a home and its services: up, down, clean."""

import argparse

from orchestrator.cli.console import MESSAGES, Terminal, say, show_services
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.driver.garbage_collector import clean as clean_home
from orchestrator.execution import services
from orchestrator.storage.home import find_home


def up(options: argparse.Namespace) -> int:
    """Start Ray and MLflow on this machine if they do not run yet, and print their addresses."""
    home = find_home(options.home).create()
    running = services.start(home, read_settings(options.mlflow), MESSAGES.print)
    show_services(running, Terminal(highlight=False))
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the Ray and MLflow that belong to this home, and no other."""
    stopped = services.stop(find_home(options.home))
    say(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running")
    return 0


def clean(options: argparse.Namespace) -> int:
    """Remove the stored files that no study's newest plan needs."""
    home = find_home(options.home).create()
    removed = clean_home(home, options.dry_run)
    for item in removed:
        say(f"{item.bytes / 1e6:10.1f} MB  {item.path}  {item.why}")
    total = sum(item.bytes for item in removed) / 1e6
    word = "would be freed" if options.dry_run else "freed"
    say(f"{total:10.1f} MB {word}" if removed else "nothing to clean")
    return 0
