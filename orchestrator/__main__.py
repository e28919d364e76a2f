"""python -m orchestrator COMMAND: plan, submit, status, compare, up, down, studies, data.

Exit status: 0 all went well, 1 something failed, 2 the study or the command line is wrong and
nothing was started.
"""

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from orchestrator import services
from orchestrator.code_version import git_commit, tree_version
from orchestrator.compare import as_json, as_text, tables, unfinished
from orchestrator.faults import StudyError, near
from orchestrator.follow import epochs_done, follow, progress_table
from orchestrator.home import Home, HomeError, find_home
from orchestrator.jobs import Job, Jobs
from orchestrator.plan import digest
from orchestrator.prepare import Prepared, build_caches, prepare
from orchestrator.reconcile import settle
from orchestrator.results import Submission, comparison, newest, records, write_comparison
from orchestrator.services import RayService, ServiceError, Services
from orchestrator.settings import MlflowSettings, read_settings
from orchestrator.store import Store
from orchestrator.study import built_in_studies, find, read
from orchestrator.tracking import Tracker, TrackingError
from orchestrator.yaml_file import read_mapping
from trainables.datasets import DATASETS

_errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Refused(Exception):
    """The command cannot be carried out; one line. `status` is the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.handler(options))
    except (StudyError, HomeError) as error:
        return _fail(error, 2)
    except Refused as error:
        return _fail(error, error.status)
    except (ServiceError, TrackingError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _fail(error: object, status: int) -> int:
    _errors.print(f"error: {error}", markup=False)
    return status


# --- commands ----------------------------------------------------------------------------------


def plan(options: argparse.Namespace) -> int:
    """Show what `submit` would do; starts nothing."""
    prepared = _prepare(options)
    if options.json:
        print(json.dumps([_planned_json(item) for item in prepared.planned], indent=1))
    else:
        _show_plan(prepared, Console())
    return 0


def submit(options: argparse.Namespace) -> int:
    """Train what is not done yet and compare; follows until the study ends."""
    out = _errors if options.json else Console(highlight=False)
    study = read(options.study, options.set)
    settings = read_settings(options.mlflow)
    home = find_home(options.home).create()
    local = options.address is None
    prepared = _prepare(options) if local else None
    if prepared is not None:
        _show_plan(prepared, out)
        build_caches(prepared, home, _decoding(out))
    found = _services(options, settings, home, out)
    assert found.ray is not None and found.mlflow_uri is not None
    _show_services(found, out)
    jobs, tracker = Jobs(found.ray), Tracker(found.mlflow_uri)
    job_id = _start(options, prepared, jobs, Job(
        job_id=f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}",
        study=study.mapping,
        plan=digest(prepared.runs) if prepared else "",
        data_root=_data_root(options),
        home=str(home.root),
        tracking_uri=found.mlflow_uri,
        tree=tree_version(),
        git_commit=git_commit(),
    ))  # fmt: skip
    return _watch(options, study.name, jobs, tracker, job_id)


def status(options: argparse.Namespace) -> int:
    """What runs and what has run, from MLflow."""
    home, settings = find_home(options.home), read_settings(options.mlflow)
    found = services.find(home, settings)
    states = _settled(home, found) if found.mlflow_uri else []
    if options.json:
        print(json.dumps(_status_json(found, states), indent=1))
        return 0
    console = Console(highlight=False)
    _show_services(found, console)
    for submission in states:
        console.print(f"\n[bold]{submission.plan['study']}[/bold] {submission.tracked.status}")
        console.print(progress_table(submission.runs))
    return 0


def compare(options: argparse.Namespace) -> int:
    """The table that answers the study's question, from MLflow."""
    home, settings = find_home(options.home).create(), read_settings(options.mlflow)
    uri = services.start(home, settings, _errors.print, only=("mlflow",)).mlflow_uri
    tracker = Tracker(str(uri))
    submission = newest(tracker, _study_name(options.study))
    if submission is None:
        raise Refused(f"study {options.study} was never submitted to {uri}", 1)
    spec, found = comparison(submission.plan), records(submission)
    made = tables(found, spec)
    if options.json:
        print(json.dumps(as_json(made), indent=1))
    else:
        print(f"{submission.plan['question']}\n\n{as_text(made)}")
        print(unfinished(found, spec) or "")
    write_comparison(tracker, submission)
    where = (
        f"{uri}/#/experiments/{submission.tracked.experiment_id}/runs/{submission.tracked.run_id}"
    )
    _errors.print(f"tables and figures: {where}/artifacts")
    return 0


def up(options: argparse.Namespace) -> int:
    """Start the local Ray head and MLflow server, or find them."""
    home = find_home(options.home).create()
    found = services.start(home, read_settings(options.mlflow), _errors.print)
    _show_services(found, Console(highlight=False))
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the local services of this home, and nothing else."""
    stopped = services.stop(find_home(options.home))
    print(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running")
    return 0


def studies(options: argparse.Namespace) -> int:
    """List the built-in studies."""
    for name, path in built_in_studies().items():
        print(f"{name:24} {read_mapping(path)['question']}")
    return 0


def data(options: argparse.Namespace) -> int:
    """List the types of data sets, or describe what a study's data folders hold."""
    if options.study is None:
        for name, kind in DATASETS.items():
            print(f"{name:14} {kind.description}")
        return 0
    for name, item in _prepare(options).data.items():
        parts = ", ".join(f"{part} {len(rows)}" for part, rows in item.source.parts.items())
        print(f"{name}: {len(item.source.classes)} classes; {parts}; {item.fingerprint}")
        print(f"  {', '.join(item.source.classes)}")
    return 0


# --- what the commands share -------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> Prepared:
    """The study with its data and its plan; read where this command runs."""
    study = read(options.study, options.set)
    home = find_home(options.home).create()
    root = _data_root(options)
    return prepare(study, Path(root) if root else None, home)


def _data_root(options: argparse.Namespace) -> str | None:
    return str(Path(options.data).expanduser().resolve()) if options.data else None


def _study_name(given: str) -> str:
    """The name in a study's file; the given name itself where there is no such file any more."""
    try:
        return str(read_mapping(find(given))["study"])
    except (StudyError, KeyError):
        return given


def _services(
    options: argparse.Namespace, settings: MlflowSettings, home: Home, out: Console
) -> Services:
    if options.address is None:
        return services.start(home, settings, out.print)
    uri = services.start(home, settings, out.print, only=("mlflow",)).mlflow_uri
    ray = RayService("", options.address.rstrip("/"), None, local=False)
    if services.is_loopback(str(uri)) and not services.is_loopback(ray.dashboard_url):
        raise Refused(
            f"the cluster at {ray.dashboard_url} cannot reach MLflow at {uri}: name a server that "
            "it can reach as tracking_uri in mlflow.yaml",
            2,
        )
    return Services(ray, uri)


def _start(options: argparse.Namespace, prepared: Prepared | None, jobs: Jobs, job: Job) -> str:
    """Send the job, or find the one that does the same already. Returns its id."""
    running = jobs.running(str(job.study["study"]))
    if running is None:
        jobs.submit(job)
        return job.job_id
    if prepared is not None and running.plan != job.plan:
        raise Refused(
            f"study {job.study['study']} is running with another plan (job {running.job_id}): "
            "let it end, or give this one another name under `study:`",
            2,
        )
    _errors.print(f"{options.study} runs already: following job {running.job_id}")
    return running.job_id


def _watch(
    options: argparse.Namespace, study: str, jobs: Jobs, tracker: Tracker, job_id: str
) -> int:
    """Follow a job to its end and print the comparison. Returns the exit status."""
    console = Console(highlight=False, stderr=options.json)
    try:
        submission = follow(jobs, tracker, study, job_id, console)
    except KeyboardInterrupt:
        command = f"python -m orchestrator submit {' '.join(sys.argv[2:])}"
        _errors.print(f"\nstopped following; the study goes on. Follow again with\n  {command}")
        return 130
    if submission is None:
        lines = jobs.logs(job_id).strip().splitlines()
        raise Refused("\n".join(lines[-15:]) or jobs.message(job_id), 1)
    spec, found = comparison(submission.plan), records(submission)
    if options.json:
        print(json.dumps(as_json(tables(found, spec)), indent=1))
    else:
        print(f"\n{submission.plan['question']}\n\n{as_text(tables(found, spec))}")
    left = unfinished(found, spec)
    if left:
        _errors.print(left)
    ok = jobs.status(job_id) == "SUCCEEDED"
    if not ok:
        _errors.print("\n".join(jobs.logs(job_id).strip().splitlines()[-5:]), markup=False)
    return 0 if ok and all(item.state == "FINISHED" for item in submission.runs) else 1


def _settled(home: Home, found: Services) -> list[Submission]:
    """The newest submission of every study, with what dead processes left behind put right."""
    assert found.mlflow_uri is not None
    tracker, jobs = Tracker(found.mlflow_uri), Jobs(found.ray) if found.ray else None
    states = []
    for study in tracker.studies():
        submission = newest(tracker, study)
        assert submission is not None
        alive = jobs is not None and jobs.running(study) is not None
        if not alive:
            submission = settle(tracker, Store(home.store), submission)
        states.append(submission)
    return states


def _status_json(found: Services, states: Sequence[Submission]) -> dict[str, Any]:
    ray = found.ray
    return {
        "mlflow": {"tracking_uri": found.mlflow_uri},
        "ray": {
            "address": ray.address if ray else None,
            "dashboard_url": ray.dashboard_url if ray else None,
            "token_path": str(ray.token_path) if ray else None,
        },
        "studies": [
            {
                "study": submission.plan["study"],
                "state": submission.tracked.status,
                "runs": [
                    {
                        "stage": item.run.stage,
                        "label": item.run.label,
                        "seed": item.run.seed,
                        "key": item.run.key,
                        "state": item.state,
                        "epoch": epochs_done(item),
                        "mlflow_run_id": item.run_id,
                        "reason": item.reason,
                    }
                    for item in submission.runs
                ],
            }
            for submission in states
        ],
    }


def _planned_json(item: Any) -> dict[str, Any]:
    run = item.run
    return {
        "stage": run.stage,
        "label": run.label,
        "seed": run.seed,
        "key": run.key,
        "parent": run.parent_label,
        "state": item.state,
        "why": item.why,
    }


def _show_plan(prepared: Prepared, out: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("Run", "parent", "seed", "state", "why"):
        table.add_column(name)
    for item in prepared.planned:
        run = item.run
        style = "dim" if item.state == "done" else ""
        table.add_row(
            run.label, run.parent_label or "", str(run.seed), item.state, item.why, style=style
        )
    out.print(f"[bold]{prepared.study.name}[/bold]  {prepared.study.question}\n")
    out.print(table)


def _show_services(found: Services, out: Console) -> None:
    ray = found.ray
    out.print(f"\nMLflow         {found.mlflow_uri or 'not running'}")
    out.print(f"Ray dashboard  {ray.dashboard_url if ray else 'not running'}")
    if ray and ray.token_path:
        out.print(f"               log in with the content of {ray.token_path}\n")


def _decoding(out: Console) -> Callable[[str, int, int], None]:
    """Says how far decoding is, every two seconds."""
    last = [time.monotonic()]

    def show(name: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 2:
            last[0] = time.monotonic()
            out.print(f"decoding {name}: {done}/{total} images")

    return show


class _Parser(argparse.ArgumentParser):
    """Faults on one line, with the nearest command."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and "COMMAND" in message:
            wrong = message.split("'")[1]
            message = f"no command {wrong!r}{near(wrong, COMMANDS)}"
        _errors.print(f"error: {message} (see python -m orchestrator --help)", markup=False)
        sys.exit(2)


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "submit": (submit, "study set data address json"),
    "plan": (plan, "study set data json"),
    "status": (status, "json"),
    "compare": (compare, "study json"),
    "up": (up, ""),
    "down": (down, ""),
    "studies": (studies, ""),
    "data": (data, "study? set data"),
}
_FLAGS: dict[str, tuple[str, dict[str, Any]]] = {
    "study": ("study", {"metavar": "STUDY", "help": "a built-in name or a file"}),
    "study?": ("study", {"metavar": "STUDY", "nargs": "?", "help": "a built-in name or a file"}),
    "set": ("--set", {"metavar": "KEY=VALUE", "action": "append", "default": [],
                      "help": "change a value of the study, such as stages.x.config.epochs=5"}),
    "data": ("--data", {"metavar": "DIR", "help": "where the data sets are"}),
    "address": ("--address", {"metavar": "URL", "help": "another Ray cluster's dashboard"}),
    "json": ("--json", {"action": "store_true", "help": "JSON on standard output"}),
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m orchestrator", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (handler, flags) in COMMANDS.items():
        about = (handler.__doc__ or "").strip()
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(handler=handler)
        for flag in flags.split():
            spelled, settings = _FLAGS[flag]
            command.add_argument(spelled, **settings)
        command.add_argument("--home", metavar="DIR", help="where state lives (ORCHESTRATOR_HOME)")
        command.add_argument("--mlflow", metavar="FILE", help="instead of ./mlflow.yaml")
    return parser


if __name__ == "__main__":
    sys.exit(main())
