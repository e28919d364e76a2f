"""Commands that read studies and start nothing: plan, data, studies, describe, manifest."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from orchestrator.cli.console import MESSAGES, Column, FittedTable, Row, Terminal, say
from orchestrator.clusters.settings import choose_cluster, missing_settings
from orchestrator.config.errors import Refused, StudyError, one_line, printable, suggestion
from orchestrator.config.study_loader import read
from orchestrator.config.study_schema import Study
from orchestrator.config.yaml_loader import (
    YamlError,
    apply_setting,
    built_in_studies,
    read_file,
)
from orchestrator.manifests.registry import MANIFESTS
from orchestrator.manifests.request import asked_for, source_of
from orchestrator.own_code.command import check_own
from orchestrator.planning.estimates import estimate, known_times, stored_runs
from orchestrator.planning.placement import DoesNotFit, at_once, request_of, this_machine
from orchestrator.planning.plan import PlannedRun, downstream_stages
from orchestrator.planning.prepare import Prepared, prepare
from orchestrator.planning.run import Run
from orchestrator.reporting.numbers import duration
from orchestrator.reporting.schema_reference import markdown, names_text, topic_text, topics
from orchestrator.storage.home import Home, find_home
from orchestrator.storage.run_records import Store
from trainables.data.datasets import DATASETS
from trainables.loading.mask_counts import MaskCounts

_CLASSES_SHOWN = 100
_LONGEST_LINE = 2900  # letters of the names of classes
_RUNS_SHOWN = 100
_UNKNOWN_SHOWN = 5
_REST_OF_LINE = "\x1b[K"  # erases it


def plan(options: argparse.Namespace) -> int:
    """Show what `submit` would run; start nothing."""
    options = _as_seen_here(options)
    prepared = prepare_study(options, read_study(options))
    if options.json:
        say(json.dumps([_planned_json(item) for item in prepared.planned], indent=1))
    else:
        show_plan(prepared, find_home(options.home), Terminal())
    show_remarks(prepared)
    show_near(prepared.near_remarks(find_home(options.home)))
    return 0


def _as_seen_here(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options with home and data of the cluster that `--cluster` names. Raises Refused
    where this machine does not see them."""
    cluster = choose_cluster(options.cluster, options.mlflow)
    if cluster is None:
        return options
    given = vars(options) | {"home": cluster.home or options.home}
    given["data"] = options.data or cluster.data
    for name in ("home", "data"):
        if given[name] != getattr(options, name) and not os.path.isdir(given[name]):
            raise Refused(
                f"this machine does not see the {name} of --cluster {options.cluster} "
                f"({given[name]}): `submit` makes the plan there",
                2,
            )
    return argparse.Namespace(**given)


def data(options: argparse.Namespace) -> int:
    """List the data set types, or describe the data of a study."""
    if options.study is None:
        for name, kind in DATASETS.items():
            say(f"{name:14} {kind.about}")
        return 0
    prepared = prepare_study(options, read_study(options))
    for name, item in prepared.data.items():
        parts = ", ".join(f"{part} {len(rows)}" for part, rows in item.source.parts.items())
        if item.whole:
            parts = f"{len(item.source.names)} images, none held out: a producer works on all"
        count = len(item.source.classes)
        classes = f"{count} classes" if count else "no labels"
        classes += " of pixels" if item.source.masks else ""
        say(f"{name}: {classes}; {parts}; {item.fingerprint}")
        if item.masks:
            Terminal(highlight=False).print(pixel_table(item.masks))
        elif count:
            names = item.source.classes[:_CLASSES_SHOWN]
            more = f", and {count - len(names):,} more" if count > len(names) else ""
            say(f"  {one_line(', '.join(names), _LONGEST_LINE)}{more}")
        for line in item.remarks:
            say(f"  {one_line(line)}")
    show_near(prepared.near_remarks(find_home(options.home)))
    return 0


def manifest(options: argparse.Namespace) -> int:
    """Print a file that makes a cluster; with a study, one that also runs the study where Slurm or
    KubeRay start both."""
    study = read_study(options) if options.study else None
    cluster = choose_cluster(options.cluster, options.mlflow)
    given = {"home": options.home, "data": options.data}
    given = {name: os.path.abspath(os.path.expanduser(v)) for name, v in given.items() if v}
    given |= {name: getattr(options, name) or None for name in ("image", "queue")}
    asked = asked_for(study, cluster, source_of(options.study, options.set) | given)
    say(MANIFESTS[options.kind](asked).rstrip("\n"))
    return 0


def check_own_code(options: argparse.Namespace) -> int:
    """Check that an own trainable keeps its contract: `check module:Name`."""
    settings: dict[str, Any] = {}
    try:
        for setting in options.set:
            apply_setting(settings, setting)
    except YamlError as error:
        raise Refused(str(error), 2) from error
    tell = partial(print, "ok  ", flush=True)
    if faults := check_own(options.study, options.code, settings, tell):
        raise StudyError(options.study, faults)
    say(f"{options.study} keeps the contract of a trainable")
    return 0


def studies(options: argparse.Namespace) -> int:
    """List the built-in studies."""
    for name, path in built_in_studies().items():
        say(f"{name:24} {read_file(path)['question']}")
    return 0


def show_remarks(prepared: Prepared) -> None:
    """Print to stderr what a reader should know of data sets and stages: warnings, files passed
    over, prefixes taken off."""
    for line in prepared.remarks:
        MESSAGES.print(one_line(line), markup=False, highlight=False)


def show_near(lines: Iterable[str]) -> None:
    """Print to stderr which data sets have images that look nearly like training images."""
    for line in lines:
        MESSAGES.print(one_line(line), markup=False, highlight=False)


def pixel_table(masks: MaskCounts) -> FittedTable:
    """Return the pixels of each class in each part: a row a class, and one for each value that
    does not count."""
    parts, palette = list(masks.parts), masks.palette
    pixels = {part: masks.pixels(part) for part in parts}
    uncounted = {part: masks.uncounted(part) for part in parts}
    sums = {part: sum(pixels[part]) + sum(uncounted[part].values()) for part in parts}

    def cells(counts: Mapping[str, int]) -> list[str]:
        return [f"{counts[part]:,} ({counts[part] / max(1, sums[part]):.1%})" for part in parts]

    rows = []
    for index, name in enumerate(masks.classes):
        value = palette.values_of(index) if palette else str(index)
        rows.append(Row((name, value, *cells({part: pixels[part][index] for part in parts}))))
    for value in dict.fromkeys(value for part in parts for value in uncounted[part]):
        counts = {part: uncounted[part].get(value, 0) for part in parts}
        rows.append(Row(("not counted", value, *cells(counts)), "dim"))
    columns = [Column(f"{part} (pixels)", right=True) for part in parts]
    return FittedTable(
        (Column("  class"), Column("in masks", rank=1), *columns), _indented(rows), details=True
    )


def _indented(rows: Iterable[Row]) -> list[Row]:
    return [row._replace(cells=(f"  {row.cells[0]}", *row.cells[1:])) for row in rows]


def read_study(options: argparse.Namespace) -> Study:
    """Read the study of the command line; print a warning for each old key in it. Of resources
    that it does not set, those of the cluster count that `--cluster` names."""
    study = read(options.study, options.set)
    cluster = choose_cluster(getattr(options, "cluster", None), options.mlflow)
    if more := missing_settings(cluster, study.mapping):
        study = read(options.study, [*options.set, *more])
    for line in study.warnings:
        MESSAGES.print(f"warning: {line}", markup=False)
    return study


def prepare_study(options: argparse.Namespace, study: Study) -> Prepared:
    """Read the study's data and make its plan on this machine."""
    home = find_home(options.home).create()
    root = data_root(options)
    with FilesRead(sys.stderr) as shown:
        return prepare(study, Path(root) if root else None, home, shown.update)


class FilesRead:
    """Shows on a terminal how many files of a data set are read: on one line that is written over,
    from the first second on, and removed at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._next = stream, time.monotonic() + 1.0
        self._terminal, self._shown = stream.isatty(), False

    def __enter__(self) -> "FilesRead":
        return self

    def update(self, name: str, done: int, total: int) -> None:
        """Show `done` of `total` files of a data set, ten times a second at most."""
        if not self._terminal or time.monotonic() < self._next:
            return
        self._next, self._shown = time.monotonic() + 0.1, True
        self._stream.write(f"\r{printable(name)}: {done:,} of {total:,} files read{_REST_OF_LINE}")
        self._stream.flush()

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write(f"\r{_REST_OF_LINE}")
            self._stream.flush()


def data_root(options: argparse.Namespace) -> str | None:
    """Return the absolute path of the folder given as `--data`, else None."""
    return os.path.realpath(os.path.expanduser(options.data)) if options.data else None


def _planned_json(item: PlannedRun) -> dict[str, Any]:
    run = item.run
    return {
        "stage": run.stage,
        "label": run.label,
        "seed": run.seed,
        "dataset": run.config["dataset"],
        "key": run.key,
        "parent": run.parent_label,
        "weights": run.weights,
        "select": run.select,
        "state": item.state,
        "why": item.why,
    }


def show_plan(prepared: Prepared, home: Home, out: Console) -> None:
    """Print a row for each Run, a line for each search whose Runs are not known yet, and how long
    it takes, as far as Runs of the home tell."""
    out.print(Text.assemble((prepared.study.name, "bold"), "  ", prepared.study.question))
    out.print()
    if prepared.planned:  # none where a search decides all of them
        out.print(plan_table(prepared.planned[:_RUNS_SHOWN]))
    if rest := prepared.planned[_RUNS_SHOWN:]:
        counts = Counter(item.state for item in rest)
        states = ", ".join(f"{count:,} {state}" for state, count in counts.items())
        line = f"and {len(rest):,} more Runs ({states}); `plan --json` shows all"
        out.print(line, highlight=False, markup=False)
    for line in (*prepared.notes, *_searches_planned(prepared), *_time_needed(prepared, home)):
        out.print(line, highlight=False, markup=False)


def _time_needed(prepared: Prepared, home: Home) -> list[str]:
    """Return a line on how long the Runs take on this machine; none where nothing is known."""
    store = Store(home.store)
    runs = [item.run for item in prepared.planned if item.state != "done"]
    if not runs:
        return []
    done = {run.key: float(max(store.run(run.key).epochs(), default=0)) for run in runs}
    try:
        request = request_of(prepared.study.resources, [machine := this_machine()])
    except DoesNotFit:  # here; it may fit a cluster
        return []
    known = [*stored_runs(home.plans), *(item.run for item in prepared.planned)]
    slots = at_once(request, [machine])
    found = estimate(runs, known_times(store, known, runs), done, slots)
    if not found.training_seconds:
        return []
    gpu_hours = found.training_seconds / 3600 * request.gpus * request.workers
    more = f", {gpu_hours:.1f} GPU hours" if gpu_hours else ""
    line = f"time: about {duration(found.seconds)}, {slots} at once on this machine{more}"
    if found.unknown:
        line += f"; not known yet: {', '.join(found.unknown[:_UNKNOWN_SHOWN])}"
        line += ", ..." if len(found.unknown) > _UNKNOWN_SHOWN else ""
    return [line]


def plan_table(planned: Iterable[PlannedRun]) -> FittedTable:
    """Return a row for each Run: what it starts from, whether it is done, and why not."""
    columns = (
        Column("Run"),
        Column("seed", right=True),
        Column("state"),
        Column("starts from", rank=2),
        Column("why", rank=1),
    )
    rows = [
        Row(
            (item.run.label, str(item.run.seed), item.state, _start_of(item.run), item.why),
            "dim" if item.state == "done" else "",
        )
        for item in planned
    ]
    return FittedTable(columns, rows, details=True)


def _searches_planned(prepared: Prepared) -> list[str]:
    """Return a line for each search that has not ended."""
    lines = []
    for name, search in prepared.study.searches.items():
        if name in prepared.pending:
            later = ", ".join(downstream_stages(prepared.study, name))
            then = f"; planned after the search: {later}" if later else ""
            space = ", ".join(search.space)
            lines.append(
                f"search {name}: {search.count} trials of {search.algorithm} over {space}{then}"
            )
    return lines


def _start_of(run: Run) -> str:
    """Return the label of the Run whose weights this one starts from, or a file's name and
    fingerprint."""
    if run.weights is None:
        return run.parent_label or ""
    return f"{Path(run.config['weights']).name} (sha256 {run.weights[:12]})"


def describe(options: argparse.Namespace) -> int:
    """Print the keys of a trainable, a data set type or a part of a study, or all names."""
    known = topics()
    if options.markdown:
        say(markdown().removesuffix("\n"))
    elif options.name is None and options.json:
        names = [{"name": topic.name, "group": topic.group} for topic in known.values()]
        say(json.dumps(names, indent=1))
    elif options.name is None:
        say(names_text(known.values()))
    elif options.name not in known:
        raise Refused(f"nothing is called {options.name!r}{suggestion(options.name, known)}", 2)
    elif options.json:
        say(json.dumps(known[options.name].plain(), indent=1))
    else:
        say(topic_text(known[options.name]))
    return 0
