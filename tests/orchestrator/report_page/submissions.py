"""A submission as a driver leaves it in MLflow, with everything that a report shows."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from orchestrator.planning.plan import FORMAT
from orchestrator.planning.run import Run
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import Submission, load
from tests.orchestrator.tracking.test_run_states import planned

HARMFUL = "<script>alert('x')</script>"
SEEDS = (0, 1, 2)
# label → its figure with each seed: `tuned` is ahead of `scratch` with every seed
FIGURES = {"tuned": (0.90, 0.92, 0.91), "scratch": (0.80, 0.83, 0.81)}


@dataclass
class Sample:
    """What is stored of a study. classes and question may be harmful."""

    question: str = "Does pretraining help?"
    classes: tuple[str, ...] = ("cat", "dog")
    failed: bool = False
    path: str = "/home/someone/secret place/photos"
    figures: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict(FIGURES))


def runs_of(sample: Sample) -> list[Run]:
    """Return the Runs of the plan: a parent for each seed, then those that are compared."""
    made = []
    for seed in SEEDS:
        config = {"dataset": "photos", "backbone": "resnet18", "epochs": 3, "lr": 0.02}
        parent = planned("pretrain", seed=seed, trainable="rotation", config=config)
        made.append(parent)
        for stage in sample.figures:
            start = parent if stage == "tuned" else None
            own = {**config, "epochs": 2, "weights": "random", "lr": 0.05}
            made.append(planned(stage, start, seed, config=own))
    return made


def submit(tracker: Tracker, folder: Path, name: str, sample: Sample) -> Submission:
    """Store a submission whose Runs have ended. folder: for pictures on their way."""
    runs = runs_of(sample)
    compare = {"metric": "test/accuracy", "stages": list(sample.figures), "rows": "stage",
               "plots": ["bars"], "differences": [["tuned", "scratch"]]}  # fmt: skip
    plan = {"format": FORMAT, "study": name, "question": sample.question, "compare": compare,
            "reference": {"scratch": 0.771}, "runs": [dict(vars(run)) for run in runs]}  # fmt: skip
    study = {"study": name, "question": sample.question,
             "data": {"photos": {"type": "image_folder", "path": sample.path}}}  # fmt: skip
    facts = {
        "photos": {
            "fingerprint": "f" * 16,
            "classes": list(sample.classes),
            "images": {"train": 1200, "val": 100, "test": 200},
            "test_counts": [120, 80],
            "passed_over": [{"kind": ".txt", "reason": "no image", "files": 3}],
            "notes": ["2 classes differ by case alone"],
        }
    }
    writer = tracker.writer
    experiment = writer.experiment(name)
    tags = {"kind": "submission", "study": name, "job": f"{name}-1", "git_commit": "a" * 40,
            "machines": "1 machine: 2 CPUs, 0 GPUs; Fast CPU", "versions": "Ray 2.60.0",
            "submitter": "me"}  # fmt: skip
    run_id = writer.create_run(experiment, "submission", tags)
    writer.log_text(run_id, json.dumps(plan), "plan.json")
    writer.log_text(run_id, json.dumps(facts), "data.json")
    writer.log_text(run_id, yaml.safe_dump(study), "study.yaml")
    for run in runs:
        _store_run(tracker, experiment, run_id, run, sample, folder)
    return load(tracker.reader, tracker.reader.run(run_id))


def _store_run(
    tracker: Tracker, experiment: str, parent: str, run: Run, sample: Sample, folder: Path
) -> None:
    fails = sample.failed and (run.stage, run.seed) == ("scratch", 2)
    tags = {"run_key": run.key, "label": run.label, "seed": str(run.seed), "kind": "run",
            "epochs": str(run.config["epochs"]), "seconds": "90.0", "workers": "1",
            "threads": "2", "device": "cpu", "precision": "float32", "torch": "2.14.1"}  # fmt: skip
    run_id = tracker.writer.create_run(experiment, run.name, tags, parent)
    last = sample.figures.get(run.stage, (0.7, 0.7, 0.7))[run.seed]
    epochs = range(1, int(run.config["epochs"]) + 1)
    history = [{"epoch": e, "val/loss": 1 / e, "train/loss": 2 / e, "val/accuracy": last * e / 3}
               for e in epochs]  # fmt: skip
    tracker.writer.log_epochs(run_id, history, {})
    if fails:
        tracker.writer.set_tags(run_id, {"reason": f"the loss is not finite {HARMFUL}"})
        tracker.writer.set_status(run_id, "FAILED")
        return
    tested = [{"epoch": len(history), "test/accuracy": last, "system/gpu_hours": 0.5}]
    tracker.writer.log_epochs(run_id, tested, {})
    if run.seed == 0:
        _store_pictures(tracker, run_id, folder, len(history))
    tracker.writer.set_status(run_id, "FINISHED")


def _store_pictures(tracker: Tracker, run_id: str, folder: Path, last: int) -> None:
    """Noise is what compresses worst."""
    noise = np.random.default_rng(0).integers(0, 255, (300, 1500, 3), dtype=np.uint8)
    for epoch in (1, last):
        for name in (f"plots/tsne_epoch{epoch}.png", f"masks/img_1_epoch{epoch}.png"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            wide = name.startswith("masks")
            Image.fromarray(noise if wide else noise[:, :320]).save(path)
    for part in ("plots", "masks"):
        tracker.writer.log_files(run_id, folder / part, part)
