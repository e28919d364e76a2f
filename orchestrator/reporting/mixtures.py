"""Says where the Runs of one table were not trained alike: precision, device, torch, workers; and
which of them predict one class alone."""

from collections.abc import Iterable, Mapping

from orchestrator.reporting.comparison import Row, RunRecord, Table

# Facts of a Run that change its figures, if little: rounding, and dropout with the workers
ALIKE = {
    "precision": "precision", "device": "device", "torch": "torch version",
    "workers": "number of workers",
}  # fmt: skip
_LISTED = 8  # names behind a value


def mixtures(table: Table) -> dict[str, dict[str, list[str]]]:
    """Return fact → value → the Runs that have it, by label, with seeds where not all of a label's
    Runs have it; without facts in which all are alike. A Run that does not say is left out."""
    runs = [run for row in table.rows for run in row.runs]
    mixed = {}
    for fact in ALIKE:
        values = dict.fromkeys(value for run in runs if (value := run.facts.get(fact)))
        if len(values) > 1:
            mixed[fact] = {value: _names(table.rows, fact, value) for value in values}
    return mixed


def one_class(table: Table) -> dict[str, list[str]]:
    """Return class → the Runs that predict it for all of the test, named as in `mixtures`."""
    runs = [run for row in table.rows for run in row.runs]
    values = dict.fromkeys(value for run in runs if (value := run.facts.get("one_class")))
    return {value: _names(table.rows, "one_class", value) for value in values}


def one_class_words(table: Table) -> list[str]:
    """Return a sentence for each Run, or label, whose model has learned nothing but one class."""
    return [
        f"{name} predicts {value!r} everywhere."
        for value, names in one_class(table).items()
        for name in names
    ]


def mixture_words(table: Table) -> list[str]:
    """Return a sentence for each fact in which the Runs of a table differ, and for each Run that
    went on with something else than it began with."""
    said = [f"Not alike in {ALIKE[fact]}: {_listed(values)}." for fact, values in
            mixtures(table).items()]  # fmt: skip
    for run in (run for row in table.rows for run in row.runs):
        if changes := run.facts.get("resumed_with"):
            said.append(f"{run.name} did not train alike all the time: {changes}.")
    return said


def _names(rows: Iterable[Row], fact: str, value: str) -> list[str]:
    names = []
    for row in rows:
        having = [run for run in row.runs if run.facts.get(fact) == value]
        names += [row.label] if len(having) == len(row.runs) and having else _seeds(row, having)
    return names


def _seeds(row: Row, runs: list[RunRecord]) -> list[str]:
    if not runs:
        return []
    seeds = ", ".join(str(run.seed) for run in runs)
    return [f"{row.label} seed{'s' if len(runs) > 1 else ''} {seeds}"]


def _listed(values: Mapping[str, list[str]]) -> str:
    parts = []
    for value, names in values.items():
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        parts.append(f"{value} ({'; '.join(names[:_LISTED])}{more})")
    return ", ".join(parts)
