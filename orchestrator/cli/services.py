"""Commands for a home and its services: up, down, clean, open."""

import argparse
import getpass
import socket
import threading
import webbrowser
from urllib.parse import urlsplit

from orchestrator.cli.console import MESSAGES, Terminal, say, show_services
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_own_settings, read_settings
from orchestrator.config.yaml_loader import study_name
from orchestrator.driver.garbage_collector import clean as clean_home
from orchestrator.pages.handover import Handover, can_hand_over, has_browser
from orchestrator.services import home_services
from orchestrator.services.record import RayService, Services
from orchestrator.storage.home import Home, find_home
from orchestrator.tracking.mlflow_client import answer_page
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import find_newest
from orchestrator.tracking.tags import Tag

SCRAPED = "prom_metrics_service_discovery.json"  # Ray writes it: addresses of its metrics
_HANDOVER_SECONDS = 60.0  # that a browser may take to start


def up(options: argparse.Namespace) -> int:
    """Start Ray and MLflow on this machine if they do not run yet, and print their addresses."""
    home = find_home(options.home).create()
    settings, own = read_settings(options.mlflow), read_own_settings(options.mlflow)
    running = home_services.start(home, settings, MESSAGES.print, gauges=own.gauges)
    show_services(running, Terminal(highlight=False))
    if own.gauges:
        say(f"Prometheus     {home.ray_temp / SCRAPED}")
    return 0


def open(options: argparse.Namespace) -> int:
    """Open the page of a study's answer in the browser, or the Ray dashboard, logged in."""
    home, settings = find_home(options.home), read_settings(options.mlflow)
    running = home_services.find(home, settings)
    page = _ray_page(running.ray) if options.ray else ""
    if options.study or not options.ray:
        page = _mlflow_page(options, running, home)
    ray = running.ray if options.ray else None
    if has_browser():
        return _open_here(page, ray)
    say(page)
    port = urlsplit(page).port
    MESSAGES.print(
        "no browser opens here. From a machine that has one, make a tunnel, and open the address "
        f"there:\n  ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{socket.gethostname()}",
        markup=False,
    )
    if ray and ray.token_path:
        MESSAGES.print(f"log in with the content of {ray.token_path}", markup=False)
    return 0


def _mlflow_page(options: argparse.Namespace, running: Services, home: Home) -> str:
    """Return the address of a study's answer, or of MLflow; with `--ray` that of a study's job.
    Raises Refused."""
    if running.mlflow_uri is None:
        raise Refused(running.trouble or "MLflow does not run: start it with `up`", 1)
    uri = running.mlflow_uri
    if not options.study:
        return f"{uri}/#/experiments?workflowType=machine_learning"
    name = study_name(options.study)
    tracked, _ = find_newest(Tracker(uri).reader, name, home.name)
    if tracked is None:
        raise Refused(f"study {name} was never submitted to {uri}", 1)
    if not options.ray:
        return answer_page(uri, tracked)
    return f"{_ray_page(running.ray)}#/jobs/{tracked.tags.get(Tag.JOB, '')}"


def _ray_page(ray: RayService | None) -> str:
    """Return the address of the dashboard. Raises Refused where Ray does not run."""
    if ray is None:
        raise Refused("Ray does not run: start it with `up`", 1)
    return f"{ray.dashboard_url}/"


def _open_here(page: str, ray: RayService | None) -> int:
    """Open a page in a browser of this machine; with a cluster, logged in to it."""
    if ray is None or ray.token_path is None or not can_hand_over(page):
        say(page)
        webbrowser.open(page)
        if ray and ray.token_path:
            MESSAGES.print(f"log in with the content of {ray.token_path}", markup=False)
        return 0
    token = ray.token_path.read_text(encoding="utf-8").strip()
    with Handover(token, page) as shown:
        say(shown.address)  # for a browser that does not open by itself
        # a command in BROWSER may end with the browser only, which waits for the page
        threading.Thread(target=webbrowser.open, args=(shown.address,), daemon=True).start()
        if not shown.wait(_HANDOVER_SECONDS):
            raise Refused(
                f"no browser of yours has opened {shown.address} within "
                f"{_HANDOVER_SECONDS:.0f} s: open {page} and log in with the content of "
                f"{ray.token_path}",
                1,
            )
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the Ray and MLflow that belong to this home, and no other."""
    stopped = home_services.stop(find_home(options.home))
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
