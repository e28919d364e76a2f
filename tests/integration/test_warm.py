"""Workers of real studies are forked from the template, and fits at once do not meet."""

import json
import shutil
import sys
from pathlib import Path

import psutil
import pytest
from ray.job_submission import JobSubmissionClient

from orchestrator.execution.ray_jobs import Jobs
from orchestrator.planning.code_version import PACKAGES
from orchestrator.services.processes import marked
from orchestrator.services.ray_head import login
from orchestrator.services.record import RayService
from orchestrator.storage.home import Home
from tests.integration.command import ALONE, Command, wait_for

PAIRS = 50
FITS = '''
"""Two fits at once, again and again, as a study with two slots makes them."""
import json, os, sys
from concurrent.futures import ThreadPoolExecutor

import ray
import ray.train

from orchestrator.warm.quick_trainer import QuickTorchTrainer
from orchestrator.warm.switch import job_environment


def train():
    import torch

    ids = ray.util.get_current_placement_group().id.hex(), ray.get_runtime_context().get_actor_id()
    facts = {"ids": ids, "ppid": os.getppid(), "drawn": torch.rand(1).item()}
    with open(os.path.join(sys.path_of_facts, ids[1]), "w") as file:
        json.dump(facts, file)


def fit(number):
    folder = os.path.abspath("facts")

    def train_here():
        sys.path_of_facts = folder
        train()

    trainer = QuickTorchTrainer(
        train_here,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(name=f"fit{number}", storage_path=os.path.abspath("ray")),
    )
    try:
        trainer.fit()
    except ray.train.ControllerError as error:
        # a connection took the port that Ray drew for torch.distributed: the scheduler makes
        # another attempt then
        if "EADDRINUSE" not in str(error):
            raise
        trainer.fit()


os.makedirs("facts")
environment = {"RAY_ADDRESS": os.environ["RAY_ADDRESS"], **job_environment()}
ray.init(os.environ["RAY_ADDRESS"], runtime_env={"env_vars": environment})
with ThreadPoolExecutor(2) as pool:
    list(pool.map(fit, range(int(sys.argv[1]) * 2)))
for name in os.listdir("facts"):
    print("FACTS", open(os.path.join("facts", name)).read(), flush=True)
'''


def templates(command: Command) -> set[int]:
    """Process ids of the templates of a home."""
    found = set()
    for process in marked(f"ray of {command.home.resolve()}"):
        try:
            if any("warm/template.py" in word for word in process.cmdline()):
                found.add(process.pid)
        except psutil.Error:  # it has ended
            continue
    return found


def test_the_workers_of_a_study_are_forked(command: Command, finished: object) -> None:
    said = [
        path.read_text() for path in Home(command.home.resolve()).ray_temp.rglob("worker-*.err")
    ]
    assert said and not [text for text in said if "started plainly" in text]
    assert templates(command)


def test_the_driver_of_a_study_is_forked(command: Command, finished: object) -> None:
    said = [path.read_text() for path in Home(command.home.resolve()).ray_temp.rglob("job-driver*")]
    assert said and not [text for text in said if "started plainly" in text]


@pytest.mark.slow
def test_fits_at_once_have_ids_of_their_own(command: Command, tmp_path: Path) -> None:
    ray = command.status()["ray"]
    service = RayService(ray["address"], ray["dashboard_url"], Path(ray["token_path"]))
    jobs = Jobs(service)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, tmp_path / package.name, ignore=ignored)
    (tmp_path / "fits.py").write_text(FITS)
    client = JobSubmissionClient(service.dashboard_url, headers=login(service))
    job = client.submit_job(
        entrypoint=f"{sys.executable} fits.py {PAIRS}", runtime_env={"working_dir": str(tmp_path)}
    )
    wait_for(lambda: not jobs.alive(job), 1800)
    log = jobs.logs(job)
    assert jobs.status(job) == "SUCCEEDED", log
    facts = [json.loads(line[6:]) for line in log.splitlines() if line.startswith("FACTS ")]
    assert len(facts) == 2 * PAIRS
    for number in (0, 1):
        assert len({item["ids"][number] for item in facts}) == len(facts)
    assert len({item["drawn"] for item in facts}) == len(facts)


@pytest.mark.slow
def test_a_template_that_is_killed_costs_no_run(command: Command) -> None:
    study = command.study("killed", epochs=200, form=ALONE)
    process = command.start("submit", study)
    command.training(study)
    for pid in templates(command):
        psutil.Process(pid).kill()
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, out + err
    run = command.runs("killed")["full"]
    assert run["state"] == "FINISHED"
    wait_for(lambda: templates(command))
    assert command.run("submit", command.study("after", lr=0.02, form=ALONE)).returncode == 0
