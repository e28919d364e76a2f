"""Says what a submission was made from and with: data, hardware, time, cost, what failed, and how
to train it again."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import yaml

from orchestrator.planning.run import Run
from orchestrator.report_page.page import DataFacts, Grid, Pair, Repeat
from orchestrator.report_page.recipes import meanings_of
from orchestrator.reporting.comparison import State
from orchestrator.reporting.numbers import duration
from orchestrator.study_data.seed_cuts import written_name
from orchestrator.tracking.run_states import RunState, SearchState, Submission
from orchestrator.tracking.tags import Kind, Tag
from trainables.data.datasets import DATASETS, DatasetConfig

_GPU_HOURS = "system/gpu_hours"
_MOST_CLASSES, _MOST_FAILURES = 30, 30
_NO_REASON = "not started, or no reason is known"
_BUILT_IN = ("digits", "digit_scenes")  # data sets that need no folder


def data_facts(
    stored: Mapping[str, Any], study: Mapping[str, Any], runs: Iterable[Run]
) -> tuple[DataFacts, ...]:
    """Return the data sets of a submission. stored: data.json; empty where an earlier version has
    opened the submission. study: the study file. runs: of the plan."""
    fingerprints = {str(run.config["dataset"]): run.dataset for run in runs}
    names = list(dict.fromkeys([*stored, *fingerprints]))
    return tuple(
        _data_set(name, stored.get(name, {}), _config_of(study, name), fingerprints.get(name, ""))
        for name in names
    )


def _config_of(study: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    config = study.get("data", {}).get(written_name(name), {})
    return {"type": config} if isinstance(config, str) else config


def _data_set(
    name: str, stored: Mapping[str, Any], config: Mapping[str, Any], fingerprint: str
) -> DataFacts:
    kind = str(config.get("type", ""))
    about = DATASETS[kind].about if kind in DATASETS else ""
    facts = [Pair("type", f"{kind}: {about}" if about else kind or "not known")]
    images = stored.get("images", {})
    if images:
        counts = ", ".join(f"{part} {count:,}" for part, count in images.items())
        facts.append(Pair("images", f"{counts}; {sum(images.values()):,} in all"))
    classes = [str(item) for item in stored.get("classes", ())]
    if classes:
        more = f" and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
        facts.append(Pair(f"{len(classes)} classes", ", ".join(classes[:_MOST_CLASSES]) + more))
    settings = {key: value for key, value in _shortened(config).items() if key != "type"}
    meanings = meanings_of(DatasetConfig)
    facts += [Pair(key, str(value), meanings.get(key, "")) for key, value in settings.items()]
    facts.append(Pair("fingerprint", stored.get("fingerprint", fingerprint)))
    passed = [f"{item['files']:,} files not read: {item['kind']}, {item['reason']}"
              for item in stored.get("passed_over", ())]  # fmt: skip
    return DataFacts(name, tuple(facts), (*passed, *map(str, stored.get("notes", ()))))


def _shortened(value: Any) -> Any:
    """Return a part of a study file with absolute paths cut to their last name: where a folder lies
    concerns no reader."""
    if isinstance(value, Mapping):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    is_path = isinstance(value, str) and value.startswith("/") and "\n" not in value
    return PurePath(value).name or value if is_path else value


class Price(NamedTuple):
    """Holds what hardware costs and takes, as the settings give it; None where they do not.

    gpu_hour, cpu_hour, kwh: money; gpu_watts, cpu_watts: power of one GPU and of one CPU in use.
    """

    currency: str = ""
    gpu_hour: float | None = None
    cpu_hour: float | None = None
    kwh: float | None = None
    gpu_watts: float | None = None
    cpu_watts: float | None = None


class Usage(NamedTuple):
    """Holds what training took. seconds: of all Runs added up; unknown: Runs of which it is
    not known."""

    seconds: float = 0.0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    runs: int = 0
    unknown: int = 0


def usage(items: Iterable[RunState]) -> Usage:
    """Return what Runs took that have been trained."""
    total = Usage()
    for item in items:
        seconds = float(item.fact(Tag.SECONDS) or 0.0)
        metrics = item.tracked.metrics if item.tracked else {}
        cpus = int(item.fact(Tag.WORKERS) or 1) * int(item.fact(Tag.THREADS) or 1)
        total = Usage(
            total.seconds + seconds,
            total.gpu_hours + metrics.get(_GPU_HOURS, 0.0),
            total.cpu_hours + seconds / 3600 * cpus,
            total.runs + 1,
            total.unknown + (not seconds),
        )
    return total


def cost_grid(submission: Submission, price: Price) -> Grid:
    """Return what the Runs of each stage took, and all together; energy and money where the
    settings state power and prices. Runs that other submissions have trained stand apart."""
    groups: dict[str, list[RunState]] = {}
    once = {item.run_id: item for item in submission.runs if item.run_id}  # labels may share a Run
    for item in once.values():
        reused = item.tracked is not None and item.tracked.tags.get(Tag.KIND) == Kind.REUSED
        stage = item.run.stage + (" (trained by another submission)" if reused else "")
        groups.setdefault(stage, []).append(item)
    header = ["stage", "Runs", "training", "GPU-hours", "CPU-hours"]
    header += ["energy (kWh)"] * _has_power(price)
    header += [f"cost ({price.currency})".replace(" ()", "")] * _has_price(price)
    rows = [_cost_row(stage, usage(items), price) for stage, items in groups.items()]
    own = [item for stage, items in groups.items() if not stage.endswith(")") for item in items]
    rows.append(_cost_row("trained here, in all", usage(own), price))
    said = [
        "Training: all epochs with their validation, of all Runs added up; Runs may have trained "
        "side by side. CPU-hours: training times the CPU threads of its workers."
    ]
    if unknown := usage(once.values()).unknown:
        said.append(f"The time of {unknown} Runs is not known: they have not finished, or an "
                    "earlier version has trained them.")  # fmt: skip
    if _has_power(price):
        said.append(f"Energy: computed from {_powers(price)}, not measured.")
    elif not _has_price(price):
        said.append("Energy and cost: not known, since no power and no price is set "
                    "(`price:` in orchestrator.yaml).")  # fmt: skip
    return Grid("Time and cost", tuple(header), tuple(rows), tuple(said))


def _cost_row(stage: str, used: Usage, price: Price) -> tuple[str, ...]:
    kwh = (used.gpu_hours * (price.gpu_watts or 0) + used.cpu_hours * (price.cpu_watts or 0)) / 1000
    row = [stage, str(used.runs), duration(used.seconds) if used.seconds else "-",
           _hours(used.gpu_hours), _hours(used.cpu_hours)]  # fmt: skip
    row += [f"{kwh:.3f}"] * _has_power(price)
    money = used.gpu_hours * (price.gpu_hour or 0) + used.cpu_hours * (price.cpu_hour or 0)
    row += [f"{money + kwh * (price.kwh or 0):.2f}"] * _has_price(price)
    return tuple(row)


def _hours(value: float) -> str:
    return "< 0.01" if 0 < value < 0.005 else f"{value:.2f}"


def _has_power(price: Price) -> bool:
    return price.gpu_watts is not None or price.cpu_watts is not None


def _has_price(price: Price) -> bool:
    return any(value is not None for value in (price.gpu_hour, price.cpu_hour, price.kwh))


def _powers(price: Price) -> str:
    parts = [(price.gpu_watts, "W for each GPU"), (price.cpu_watts, "W for each CPU thread")]
    return " and ".join(f"{watts:g} {name}" for watts, name in parts if watts is not None)


def hardware(submission: Submission, wall: float | None) -> tuple[Pair, ...]:
    """Return on what the Runs were trained. wall: seconds from the first start to the last end."""
    facts = [("machines", submission.tracked.tags.get(Tag.MACHINES, ""))]
    named = {"device": Tag.DEVICE, "number format": Tag.PRECISION,
             "processes of a Run": Tag.WORKERS, "threads of each": Tag.THREADS}  # fmt: skip
    for name, tag in named.items():
        facts.append((name, _counted(item.fact(tag) for item in submission.runs)))
    if wall is not None:
        facts.append(("from first start to last end", duration(wall)))
    return tuple(Pair(name, text) for name, text in facts if text)


def _counted(values: Iterable[str]) -> str:
    """Return the values that are known; with their numbers where they differ."""
    counts = Counter(filter(None, values))
    if len(counts) <= 1:
        return next(iter(counts), "")
    return ", ".join(f"{value} ({count} Runs)" for value, count in counts.most_common())


def failures(runs: Sequence[RunState], searches: Sequence[SearchState]) -> Grid | None:
    """Return what did not finish, with its reason, and what warned; None where nothing did."""
    rows = [
        (item.run.name, item.state.lower(), item.reason or _NO_REASON)
        for item in runs
        if item.state != State.FINISHED
    ]
    rows += [
        (item.name, item.state.lower(), item.reason or _NO_REASON)
        for item in searches
        if item.state != State.FINISHED
    ]
    rows += [
        (item.run.name, "warning", warning)
        for item in runs
        if item.state == State.FINISHED and (warning := item.fact(Tag.WARNING))
    ]
    if not rows:
        return None
    more = len(rows) - _MOST_FAILURES
    said = (f"{more} more are not listed.",) if more > 0 else ()
    return Grid("What failed", ("Run", "state", "reason"), tuple(rows[:_MOST_FAILURES]), said)


def repeat(submission: Submission, study: Mapping[str, Any]) -> Repeat:
    """Return how to train the study again. study: the study file; empty where it is not known."""
    tags, name = submission.tracked.tags, str(submission.plan["study"])
    commit = tags.get(Tag.GIT_COMMIT, "")
    types = [_config_of(study, key) for key in study.get("data", {})]
    folders = any("path" not in config and config.get("type") not in _BUILT_IN for config in types)
    steps = [
        Pair("In a clone of the project, get the code of this commit", f"git checkout {commit}")
        if commit
        else Pair("Get the same code: it was no git checkout, so no commit is known", ""),
        Pair("Install it with the tested versions", "python -m pip install -c constraints.txt ."),
        Pair(f"Save the study file below as {name}.yaml" + (". Its paths are cut to their last "
             "name: put those files beside it" if _shortened(study) != study else ""), ""),
        Pair("See what would be trained; this trains nothing",
             f"python -m orchestrator plan {name}.yaml{' --data DIR' if folders else ''}"),
        Pair("Train it, which prints the table of this page",
             f"python -m orchestrator submit {name}.yaml{' --data DIR' if folders else ''}"),
    ]  # fmt: skip
    versions = [Pair("commit", commit or "not known")]
    torch = _counted(item.fact(Tag.TORCH) for item in submission.runs)
    for part in filter(None, tags.get(Tag.VERSIONS, "").split(", ")):
        software, _, version = part.rpartition(" ")
        versions.append(Pair(software, version))
    versions += [Pair("torch", torch)] if torch else []
    versions.append(Pair("MLflow run of this submission", submission.tracked.run_id))
    versions += [Pair("Ray job", tags[Tag.JOB])] if Tag.JOB in tags else []
    text = yaml.safe_dump(_shortened(study), sort_keys=False, allow_unicode=True) if study else ""
    return Repeat(tuple(steps), text, tuple(versions))
