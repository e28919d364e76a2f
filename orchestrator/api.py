"""The Python door: what the command line does, for scripts and notebooks.

    import orchestrator as o

    study = o.read("study.yaml", sets=["seeds=[0,1]"])
    o.submit(study).wait()
    o.compare("study").to_pandas()

Each function does what the command of its name does: it prints the same, in the same order, and
raises what the command says after `error:`, as a `UserError`; `StudyError` lists what is wrong in a
study. Take these names from `orchestrator` itself, which loads this file when one is used.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.plan import prepare_study, read_study
from orchestrator.cli.status import answer_of
from orchestrator.cli.submit import Sent, send
from orchestrator.config.errors import StudyError, UserError
from orchestrator.config.study_loader import from_mapping
from orchestrator.config.study_schema import Study
from orchestrator.planning.plan import PlannedRun
from orchestrator.tracking.comparison_report import Answer
from orchestrator.tracking.mlflow_client import MlflowReader

if TYPE_CHECKING:
    import pandas

__all__ = [
    "Comparison",
    "Study",
    "StudyError",
    "Submitted",
    "UserError",
    "compare",
    "plan",
    "read",
    "submit",
]
Place = str | Path | None


def read(study: str | Path, sets: Sequence[str] = ()) -> Study:
    """Read a study file, or a built-in study by its name, and check it.

    sets: as `--set`, such as `["stages.A.config.lr=0.1"]`. Own code of the study is imported, as it
    is now. Prints warnings of old keys to standard error. Raises StudyError with all errors.
    """
    return read_study(_options(study=str(study), set=list(sets)))


def plan(study: Study, *, data: Place = None, home: Place = None) -> list[PlannedRun]:
    """Return the Runs of a study, parents first, each with its state (`new`, `done`, `resumable`)
    and why it is not done. Starts nothing.

    data: as `--data`; home: as `--home`. Raises StudyError.
    """
    options = _options(data=_text(data), home=_text(home))
    return list(prepare_study(options, _as_it_is_now(study)).planned)


@dataclass(frozen=True)
class Submitted:
    """A study that is on its way: it goes on when this process ends."""

    sent: Sent

    @property
    def job(self) -> str | None:
        """Return the id of its Ray job; None where every Run was done already."""
        return self.sent.job

    def wait(self) -> bool:
        """Show the live table until the study ends, then print the comparison. Returns whether
        every Run has finished. Ctrl-C, or the stop button of a notebook, stops showing it only."""
        return self.sent.finish() == 0


def submit(
    study: Study,
    *,
    data: Place = None,
    home: Place = None,
    cluster: str | None = None,
    address: str | None = None,
    mlflow: Place = None,
) -> Submitted:
    """Show the plan, start Ray and MLflow if they do not run, and send what is not done yet.

    data, home, mlflow: as `--data`, `--home` and `--mlflow`; cluster: a name of clusters.yaml;
    address: dashboard of another Ray cluster. Raises UserError.
    """
    options = _options(
        study=study.name, data=_text(data), home=_text(home), mlflow=_text(mlflow),
        cluster=cluster, address=address, again="submit(study).wait()",
    )  # fmt: skip
    return Submitted(send(options, _as_it_is_now(study)))


@dataclass(frozen=True)
class Comparison:
    """Holds what the newest submission of a study answers. A notebook shows it as a table."""

    answer: Answer
    reader: MlflowReader
    run_id: str

    @property
    def text(self) -> str:
        """Return the tables as `compare` prints them."""
        return self.answer.forms["text"]

    @property
    def plain(self) -> Mapping[str, Any]:
        """Return what `compare --json` prints, as data."""
        data: Mapping[str, Any] = json.loads(self.answer.forms["json"])
        return data

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a line for each row of the tables: stage, label, metric, n, mean, std, low, high
        (95 % interval) and reference. Shares are in [0, 1]; what is undefined is missing."""
        import pandas  # takes half a second

        return pandas.DataFrame(self.plain["rows"])

    def plots(self, folder: str | Path) -> list[Path]:
        """Download the plots of the comparison into a folder. Returns the files."""
        into = Path(folder)
        into.mkdir(parents=True, exist_ok=True)
        self.reader.download(self.run_id, "plots", into)
        return sorted(path for path in into.rglob("*.png"))

    def _repr_markdown_(self) -> str:
        return self.answer.forms["markdown"]


def compare(study: Study | str | Path, *, home: Place = None, mlflow: Place = None) -> Comparison:
    """Return the comparison of a study's newest submission.

    study: one that was read, its file or its name. Raises UserError where it was never submitted.
    """
    name = study.name if isinstance(study, Study) else str(study)
    options = _options(study=name, home=_text(home), mlflow=_text(mlflow))
    answer, tracked, tracker = answer_of(options)
    return Comparison(answer, tracker.reader, tracked.run_id)


def _as_it_is_now(study: Study) -> Study:
    """Return a study with the own code that its files hold now. Raises StudyError."""
    return from_mapping(study.mapping, study.name) if study.mapping.get("code") else study


def _options(**given: Any) -> argparse.Namespace:
    """Return what the command line would have parsed."""
    defaults = dict.fromkeys(("study", "data", "home", "mlflow", "cluster", "address", "format"))
    return argparse.Namespace(**{**defaults, "set": [], "json": False, **given})


def _text(place: Place) -> str | None:
    return None if place is None else str(place)
