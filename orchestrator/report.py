"""The comparison of a submission, written as its artifacts: tables and figures."""

import tempfile
from pathlib import Path

from orchestrator.compare import as_csv, as_markdown, tables, unfinished
from orchestrator.plots import PLOTS, save
from orchestrator.results import Submission, comparison, records, with_curves
from orchestrator.tracking import Tracker


def write_comparison(tracker: Tracker, submission: Submission) -> None:
    """Tables as CSV and Markdown, figures as PNG: artifacts of the submission."""
    spec = comparison(submission.plan)
    found = with_curves(records(submission), tracker, spec)
    made = tables(found, spec)
    note = unfinished(found, spec)
    plan = submission.plan
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("tables", "plots"):
            (folder / name).mkdir()
        (folder / "tables/comparison.csv").write_text(as_csv(made), encoding="utf-8")
        text = as_markdown(made, plan["question"], plan["study"], note)
        (folder / "tables/comparison.md").write_text(text, encoding="utf-8")
        for name in spec.plots:
            save(PLOTS[name](made), folder / f"plots/{name}.png")
        tracker.log_files(submission.tracked.run_id, folder)
    tracker.describe(submission.tracked.run_id, text)
