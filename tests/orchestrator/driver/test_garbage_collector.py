"""What no newest plan needs is removed; what a plan needs or a process holds stays."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.config.errors import Refused
from orchestrator.config.study_loader import from_mapping
from orchestrator.driver.garbage_collector import clean, find_garbage, remove
from orchestrator.planning.plan import FORMAT, make_plan, plan_states
from orchestrator.planning.prepare import Prepared, store_plan
from orchestrator.planning.run import Inputs, Run
from orchestrator.storage.files import write_json
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trial, Trials

STAGES = {
    "P": {"trainable": "rotation", "config": {"dataset": "x"}},
    "A": {"trainable": "classify", "after": "P", "config": {"dataset": "x"}},
}
OLD, NEW, OTHER = "a" * 16, "b" * 16, "c" * 16  # fingerprints
OWN = """
from orchestrator.storage.run_records import Store
held = Store(Path(sys.argv[1])).run(sys.argv[2]).acquire("me")"""
LOCK = """
from orchestrator.storage.home import locked
held = locked(Path(sys.argv[1]), shared=len(sys.argv) > 2); held.__enter__()"""
KILLED = """
from orchestrator.driver.garbage_collector import clean
from orchestrator.storage.home import Home
sys.addaudithook(lambda event, _: event == "shutil.rmtree" and os.kill(os.getpid(), 9))
clean(Home(Path(sys.argv[1])), dry_run=False)"""

DENIED = """
from orchestrator.driver.garbage_collector import clean
from orchestrator.storage.home import Home
def deny(event, arguments):
    if event == "os.rename" and str(arguments[0]) == sys.argv[2]: raise PermissionError("denied")
sys.addaudithook(deny)
print(*(item.path.name for item in clean(Home(Path(sys.argv[1])), dry_run=False)))"""


def remembered(home: Home, study: str, dataset: str) -> tuple[Run, ...]:
    """The Runs, parent first, of a study whose newest plan this is from now on."""
    made = from_mapping({"study": study, "data": {"x": "digits"}, "stages": STAGES})
    code = {"rotation": "c1", "classify": "c2"}
    facts = {name: (lambda config: ("val/accuracy", False, "")) for name in code}
    runs = make_plan(made, Inputs({"x": dataset}, {}, lambda task, config: code[task], facts))
    store_plan(Prepared(made, {}, plan_states(runs, lambda key: ("new", ""), [])), home)
    return runs


def trained(home: Home, *runs: Run) -> list[Path]:
    """Train them, so to say: checkpoint, cache and Ray Train's folder. Returns their key folders"""
    store = Store(home.store)
    for run in runs:
        files = {"weights.pt": lambda path: path.write_bytes(b"w" * 5000) and None}
        folder = store.run(run.key)
        folder.writer(folder.begin_attempt()).save(1, files, {"history": []})
        (home.cache / run.dataset).mkdir(exist_ok=True)
        (home.cache / run.dataset / "images.npy").write_bytes(b"i" * 9000)
        (home.cache / f"{run.dataset}.lock").touch()
    return [store.run(run.key).path for run in runs]


def changed(home: Home) -> list[Path]:
    """The key folders, parent first, of a study whose newest plan needs others."""
    folders = trained(home, *remembered(home, "one", OLD))
    remembered(home, "one", NEW)
    return folders


def written(path: Path, age: float = 0.0) -> Path:
    """A file, with its folders, written `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("content")
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))
    return path


def everything(folder: Path) -> set[Path]:
    """But for locks, which looking may make."""
    locks = (".planning.lock", ".services.lock", ".owner")
    return {path for path in folder.rglob("*") if path.name not in locks}


def cleaned(home: Home) -> set[Path]:
    """What `clean` removes; a dry run says the same before and changes nothing."""
    before = everything(home.root)
    found = clean(home, dry_run=True)
    assert everything(home.root) == before
    assert clean(home, dry_run=False) == found
    return {item.path for item in found}


@contextmanager
def elsewhere(code: str, *arguments: object) -> Iterator[None]:
    """Another process has run the code, and holds what it took until the block ends."""
    code = f"import sys; from pathlib import Path\n{code}\nprint('held', flush=True); input()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        yield
        process.kill()


@pytest.fixture
def ray_temp(home: Home) -> Iterator[Path]:
    """Ray's folder with two sessions and the link to the second."""
    for name in ("session_1", "session_2"):
        written(home.ray_temp / name / "logs" / "raylet.out")
    (home.ray_temp / "session_latest").symlink_to(home.ray_temp / "session_2")
    yield home.ray_temp
    shutil.rmtree(home.ray_temp.parent, ignore_errors=True)


def record_ray(home: Home, started_earlier: float) -> None:
    """Say that this process is Ray, or that one of its number was."""
    created = psutil.Process().create_time() - started_earlier
    write_json(home.services, {"ray": {"processes": [{"pid": os.getpid(), "created": created}]}})


def test_trials_stay_with_what_they_start_from_until_their_search_has_found(home: Home) -> None:
    parent, child = changed(home)
    plan = home.plans / "one.json"
    searches = [{"key": "thesearch", "count": 2, "stage": "A", "after": None, "behind": []}]
    write_json(plan, {**json.loads(plan.read_text()), "searches": searches})
    trials = Trials(Store(home.store).run("thesearch").path)
    trial = Trial(0, {}, child.name, "A", "FINISHED", 1, 0.5, upstream=[parent.name])
    trials.put(trial, 1.0)
    assert {parent, child} & {item.path for item in find_garbage(home)} == set()
    trials.put(replace(trial, index=1), 2.0)
    assert {parent, child} <= {item.path for item in find_garbage(home)}


def test_what_the_newest_plans_of_two_studies_need_stays(home: Home) -> None:
    trained(home, *remembered(home, "one", OLD), *remembered(home, "two", NEW))
    assert cleaned(home) == set()


def test_a_parent_stays_that_only_its_child_names(home: Home) -> None:
    folders = trained(home, *remembered(home, "one", OLD))
    plan = json.loads((home.plans / "one.json").read_text())
    write_json(home.plans / "one.json", {**plan, "runs": plan["runs"][1:]})
    assert cleaned(home) == set()
    assert all(folder.is_dir() for folder in folders)


def test_what_only_the_plan_before_needed_goes(home: Home) -> None:
    old = trained(home, *remembered(home, "one", OLD))
    kept = trained(home, *remembered(home, "two", OTHER), *remembered(home, "one", NEW))
    manifest = written(home.cache / "manifest-0123456789ab.json")
    lock = written(home.cache / f"{'d' * 16}.lock")  # of a builder that did not succeed
    assert cleaned(home) == {*old, home.cache / OLD, lock}
    assert {*home.store.iterdir()} == {*kept}
    assert {path.name for path in home.cache.iterdir()} == {
        *(name + end for name in (NEW, OTHER) for end in ("", ".lock")),
        manifest.name,
    }


def test_what_is_removed_is_counted(home: Home) -> None:
    old = changed(home)
    garbage = find_garbage(home)
    for item in garbage:
        usage = subprocess.run(["du", "-sB1", item.path], stdout=subprocess.PIPE, check=True)
        assert item.bytes == int(usage.stdout.split()[0])
    with elsewhere(OWN, home.store, old[0].name):  # a training that begins meanwhile
        assert remove(garbage) == sum(item.bytes for item in garbage if item.path != old[0])
    assert [path.name for path in old if path.is_dir()] == [old[0].name]


def test_what_is_trained_now_stays_with_the_caches_it_may_read(home: Home) -> None:
    parent, child = changed(home)
    notes = [written(home.ray_train / f"{path.name}-1" / "x").parent for path in (parent, child)]
    with elsewhere(OWN, home.store, child.name):
        assert cleaned(home) == {parent, notes[0]}
    assert (home.cache / OLD / "images.npy").is_file()
    assert cleaned(home) == {child, notes[1], home.cache / OLD}
    assert not any(home.store.iterdir())


def test_names_that_are_not_ours_stay(home: Home) -> None:
    remembered(home, "one", NEW)
    for place in (home.store, home.cache, home.ray_train, home.root):
        written(place / "notes" / "mine.txt")
        written(place / "UPPER-1" / "mine.txt")
    assert cleaned(home) == set()


def test_what_killed_writers_left_goes_unless_the_key_is_trained(home: Home) -> None:
    folder, _ = trained(home, *remembered(home, "one", OLD))
    halves = [written(folder / f".{name}_00002.1" / "w").parent for name in ("epoch", "spare")]
    names = (
        ".progress.1",
        ".progress.json.1",
        ".done.json.x_1y",
        ".attempt.abc",
        "epoch_00001/.manifest.json.abc",
    )
    notes = [written(folder / name, age=3600) for name in names]
    written(folder / ".ended.json.abc")  # maybe being written: that takes no ownership
    whole = everything(home.root) - {path for top in halves for path in (top, top / "w")}
    with elsewhere(OWN, home.store, folder.name):
        assert cleaned(home) == set()
    assert cleaned(home) == {*halves, *notes}
    assert everything(home.root) == whole - {*notes}


@pytest.mark.parametrize("dataset", [OLD, NEW], ids=["needed", "not needed"])
def test_a_half_built_cache_goes_unless_its_builder_lives(home: Home, dataset: str) -> None:
    trained(home, *remembered(home, "one", OLD))
    half = written(home.cache / f"{dataset}.tmp" / "images.npy").parent
    with elsewhere(LOCK, home.cache / f"{dataset}.lock"):
        assert cleaned(home) == set()
    assert cleaned(home) == {half}
    assert {path.name for path in home.cache.iterdir()} == {OLD, f"{OLD}.lock"}


@pytest.mark.parametrize("damage", ['{"format": 1, "runs": [', '{"format": 0}', '{"format": 1}'])
def test_a_plan_that_cannot_be_read_stops_all(home: Home, damage: str) -> None:
    changed(home)
    (home.plans / "two.json").write_text(damage)
    before = everything(home.store)
    with pytest.raises(Refused, match="two.json .* submit the study two again, or") as caught:
        clean(home, dry_run=False)
    assert caught.value.status == 1
    shutil.rmtree(home.plans)
    with pytest.raises(Refused, match="nothing is removed"):
        clean(home, dry_run=False)
    assert everything(home.store) == before


def test_while_a_plan_is_made_nothing_goes(home: Home) -> None:
    folder, _ = changed(home)
    refused = pytest.raises(Refused, match="a submit or another clean is under way")
    with elsewhere(LOCK, home.planning, "shared"), refused as caught:
        clean(home, dry_run=False)
    assert caught.value.status == 1
    assert folder.is_dir()


def test_links_out_of_the_home_are_not_followed(home: Home, tmp_path: Path) -> None:
    outside = written(tmp_path / "outside" / "w.pt").parent
    folder, child = changed(home)
    (folder / "linked").symlink_to(outside)
    links = [home.store / ("d" * 20), home.cache / ("d" * 16), home.ray_train]
    for link in links:
        link.symlink_to(outside)
    written(outside / f"{'d' * 20}-1" / "x")  # would be garbage in Ray Train's own folder
    before = everything(outside)
    assert cleaned(home) == {folder, child, home.cache / OLD}
    assert everything(outside) == before
    assert all(link.is_symlink() for link in links)


def test_a_killed_clean_leaves_no_half_that_looks_whole(home: Home) -> None:
    old = changed(home)
    code = f"import os, sys; from pathlib import Path\n{KILLED}"
    assert subprocess.run([sys.executable, "-c", code, home.root]).returncode == -9
    left = {*home.store.iterdir()}
    assert len(left) == 2 and len(left & {*old}) == 1
    assert cleaned(home) == left | {home.cache / OLD}
    assert not any(home.store.iterdir())


def test_what_cannot_be_removed_is_not_said_to_be_and_the_rest_goes(home: Home) -> None:
    first, second = sorted(changed(home))
    code = f"import sys; from pathlib import Path\n{DENIED}"
    command = [sys.executable, "-c", code, str(home.root), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [second.name, OLD]
    assert f"{first} could not be removed" in done.stderr
    assert first.is_dir() and not second.exists()


def test_while_ray_runs_only_its_earlier_sessions_go(home: Home, ray_temp: Path) -> None:
    record_ray(home, started_earlier=0.0)
    with elsewhere(LOCK, home.root / ".services.lock"):  # Ray starts: its session may be new
        assert cleaned(home) == set()
    assert cleaned(home) == {ray_temp / "session_1"}
    assert {path.name for path in ray_temp.iterdir()} == {"session_2", "session_latest"}


def test_when_ray_has_ended_all_it_left_goes(home: Home, ray_temp: Path) -> None:
    home.services.write_text("{")  # who runs cannot be told
    assert cleaned(home) == {ray_temp / "session_1"}
    record_ray(home, started_earlier=60.0)  # another process had this number
    garbage = find_garbage(home)
    record_ray(home, started_earlier=0.0)  # it starts again meanwhile
    assert remove(garbage) == 0
    record_ray(home, started_earlier=60.0)
    assert cleaned(home) == {ray_temp}
    assert not ray_temp.exists()


def test_what_has_another_name_in_mlflow_frees_nothing_and_stays_there(home: Home) -> None:
    folder, _ = changed(home)
    weights, model = folder / "epoch_00001" / "weights.pt", home.root / "weights.pt"
    (item,) = [found for found in find_garbage(home) if found.path == folder]
    os.link(weights, model)
    (linked,) = [found for found in find_garbage(home) if found.path == folder]
    assert item.bytes - linked.bytes == model.stat().st_blocks * 512 > 0
    clean(home, dry_run=False)
    assert not folder.exists() and model.read_bytes() == b"w" * 5000


def test_without_any_plan_nothing_is_removed_and_it_is_said_why(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    assert clean(home, dry_run=False) == []  # an empty home: nothing to remove, nothing to say
    checkpoint = home.store / ("a" * 20) / "epoch_00001" / "weights.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"x")
    for dry_run in (True, False):
        with pytest.raises(Refused, match=r"nothing is removed: .*plans has no plan"):
            clean(home, dry_run)
    assert checkpoint.read_bytes() == b"x"


@pytest.mark.parametrize(
    "change",
    [
        {"runs": 5},
        {"runs": [5]},
        {"runs": [{}]},
        {"searches": 5},
        {"searches": [{"stage": "A"}]},
        {"searches": [{"stage": "A", "after": None, "behind": [], "count": "many"}]},
        {"compare": []},
    ],
)
def test_a_plan_of_wrong_types_keeps_everything_and_is_named(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    home = Home(tmp_path / "home").create()
    (home.store / ("a" * 20)).mkdir()
    plan = {"format": FORMAT, "study": "s", "runs": []}
    write_json(home.plans / "s.json", {**plan, **change})
    with pytest.raises(Refused, match=r"nothing is removed: .*s\.json is damaged"):
        clean(home, dry_run=False)
    assert (home.store / ("a" * 20)).is_dir()
