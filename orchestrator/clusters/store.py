"""Finds the home that the jobs of a command use, and the store that they have beside it."""

import argparse
from pathlib import Path

from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import OwnSettings
from orchestrator.objects.address import trouble_of_objects


def job_home(options: argparse.Namespace, own: Path) -> tuple[Path, bool]:
    """Return the folder of state that a job uses, and whether it is the command's own home."""
    there = getattr(options, "job_home", None)
    return (Path(there), False) if there else (own, True)


def store_of(options: argparse.Namespace, own: OwnSettings) -> str:
    """Return the address of the store that a job uses; empty where it has none. own: settings of
    this machine, which count for its own cluster."""
    if options.address is None:
        return own.store or ""
    return str(getattr(options, "job_store", ""))


def check_own_store(options: argparse.Namespace, own: OwnSettings) -> None:
    """Raise Refused where this machine trains and cannot use the store that it shall."""
    address = store_of(options, own) if options.address is None else ""
    if address and (trouble := trouble_of_objects(address)):
        raise Refused(f"the store {address} {trouble} (`store` in orchestrator.yaml)", 2)
