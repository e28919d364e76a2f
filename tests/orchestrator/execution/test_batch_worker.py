"""A producer's Run: whole and verified when it is done, never made twice, whatever breaks it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from PIL import Image

from orchestrator.config.errors import StudyError
from orchestrator.config.study_loader import from_mapping
from orchestrator.execution.batch_worker import means, produce
from orchestrator.execution.task import Task
from orchestrator.planning.prepare import Prepared, build_caches, prepare
from orchestrator.storage.home import Home
from orchestrator.storage.manifest import NOTE, PRODUCED
from orchestrator.storage.run_records import StaleWriter, Store
from tests.conftest import ALONE
from tests.trainables.tasks.test_sam import EVERYTHING, photograph, small_sam
from trainables.data.datasets import DatasetConfig, read
from trainables.engine.checkpoints import Unrecoverable
from trainables.loading.image_files import open_images, write_image_list
from trainables.numerics.distributed import World
from trainables.producer import Product
from trainables.tasks.sam import SamMasks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with four pictures of different sizes, two of one name, and a checkpoint."""
    for number, name in enumerate(("a.png", "b.png", "x/c.png", "y/c.png")):
        path = tmp_path / "data" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(40 + 8 * number, 64)).save(path)
    small_sam(tmp_path / "data" / "small.pth")
    return tmp_path / "data"


def mapping(root: Path, data: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    folder = {"type": "image_folder", "subfolder": "images", "labels": False}
    given = {"dataset": "images", "weights": str(root / "small.pth"), **EVERYTHING, **config}
    return {
        "study": "s",
        "data": {"images": data or folder},
        "stages": {"sam": {"producer": "sam", "config": given}},
        "compare": {"metric": "sam/masks"},
    }


def prepared(home: Home, root: Path, data: Any = None, **config: Any) -> Prepared:
    return prepare(from_mapping(mapping(root, data, **config)), root, home)


def task(home: Home, root: Path, data: Any = None, **config: Any) -> Task:
    """Claimed anew."""
    plan = prepared(home, root, data, **config)
    tables = build_caches(plan, home, lambda name, done, total: None)
    (run,) = plan.runs
    table = tables.get(f"files-{run.dataset}") or tables[run.dataset]
    return Task.of(run, table, home.store, Store(home.store).run(run.key).begin_attempt())


def run(given: Task) -> dict[str, Any]:
    """Returns its result."""
    produce(given, ALONE, lambda figures: None)
    found = Store(Path(given.store)).run(given.key).result()
    assert found is not None
    return found


def made(given: Task) -> dict[str, bytes]:
    """File → content of a finished Run."""
    best = Store(Path(given.store)).run(given.key).best()
    assert best is not None
    return {name: (best.path / name).read_bytes() for name in best.files}


def test_every_picture_gets_its_masks_at_its_own_size(home: Home, root: Path) -> None:
    given = task(home, root)
    result, files = run(given), made(task(home, root))
    assert result["facts"]["images"] == "4" and result["history"][0]["sam/masks"] > 1
    names = sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))
    assert len(names) == 4 and len(files) == 8 and names[:2] == ["a", "b"]
    assert [name.partition("_")[0] for name in names[2:]] == ["c", "c"]
    sizes = {json.loads(files[f"{name}.json"])["height"] for name in names}
    assert sizes == {40, 48, 56, 64}
    assert not (home.store / given.key / PRODUCED).exists()
    assert not list(home.cache.glob("*/images.npy"))  # no Run needs them squared


def test_what_was_broken_off_goes_on_with_what_it_lacks(
    home: Home, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undisturbed = task(Home(tmp_path / "other").create(), root)
    run(undisturbed)
    calls: list[str] = []
    real = SamMasks.produce

    def counted(self: SamMasks, name: str, *rest: Any) -> Product:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(name)
        return real(self, name, *rest)

    monkeypatch.setattr(SamMasks, "produce", counted)
    with pytest.raises(KeyboardInterrupt):
        run(task(home, root))
    (item,) = prepared(home, root).planned
    assert (item.state, item.why) == ("resumable", "2 images done")
    damaged = home.store / item.run.key / PRODUCED / f"{calls[0]}.json"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done, calls[:] = list(calls), []
    monkeypatch.setattr(SamMasks, "produce", real)
    seen: list[str] = []
    monkeypatch.setattr(
        SamMasks, "produce", lambda self, name, *rest: seen.append(name) or real(self, name, *rest)
    )
    given = task(home, root)
    run(given)
    assert len(seen) == 3 and done[0] in seen and done[1] not in seen
    assert made(given) == made(undisturbed)
    (item,) = prepared(home, root).planned
    assert (item.state, item.why) == ("done", "4 images")


def test_an_older_attempt_can_keep_nothing(home: Home, root: Path) -> None:
    older = task(home, root)
    task(home, root)
    with pytest.raises(StaleWriter):
        produce(older, ALONE, lambda figures: None)
    assert not list((home.store / older.key / PRODUCED).glob(f"*{NOTE}"))


def test_watched_images_of_a_data_set_with_masks_are_told_how_well_they_fit(
    home: Home, root: Path
) -> None:
    scenes = {"type": "digit_scenes", "limit": 40}
    given = task(home, root, scenes, images="watched")
    result = run(given)
    assert result["facts"]["images"] == "3"
    assert 0 < result["history"][0]["sam/best_iou"] <= 1
    one = next(name for name in made(given) if name.endswith(".json"))
    assert json.loads(made(given)[one])["width"] == 64


def make_pairs(root: Path) -> dict[str, Any]:
    """Three aerial images that fill their frame in part, with masks."""
    folder = root / "pairs"
    folder.mkdir()
    (folder / "classes.csv").write_text("name,r,g,b,ignored\nroof,255,0,0,0\ngrass,0,255,0,0\n")
    for number in range(4):
        image = photograph(40, 64)
        image[0, 0] = number  # each is another one
        Image.fromarray(image).save(folder / f"{number:04}_sat.png")
        mask = np.zeros((40, 64, 3), dtype=np.uint8)
        mask[:, :30, 0], mask[:, 30:, 1] = 255, 255
        Image.fromarray(mask).save(folder / f"{number:04}_mask.png")
    return {"type": "deepglobe", "subfolder": "pairs", "size": 96}


def test_pictures_with_masks_are_seen_at_their_own_size(home: Home, root: Path) -> None:
    given = task(home, root, make_pairs(root))
    result, files = run(given), made(given)
    assert result["facts"]["images"] == "4"
    found = json.loads(files["0000.json"])
    assert (found["height"], found["width"]) == (40, 64)
    assert 0 < found["sam/best_iou"] <= 1


def test_what_is_watched_is_what_the_segmentations_watch(home: Home, root: Path) -> None:
    given = mapping(root, make_pairs(root), images="watched")
    network = {"dataset": "images", "network": "deeplabv3", "watch": ["0003", "0001"]}
    given["stages"]["net"] = {"trainable": "segment", "config": network}
    runs = {run.stage: run for run in prepare(from_mapping(given), root, home).runs}
    assert runs["sam"].config["watch"] == ["0003", "0001"]


def test_a_picture_that_cannot_be_read_is_named_before_anything_starts(
    home: Home, root: Path
) -> None:
    (root / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(StudyError, match=r"1 unreadable image: b.png \(not an image\)"):
        task(home, root)
    folder = {"type": "image_folder", "subfolder": "images", "labels": False, "on_corrupt": "skip"}
    given = task(home, root, folder)
    assert run(given)["facts"]["images"] == "3"


def test_a_single_picture_is_enough(home: Home, root: Path) -> None:
    for name in ("b.png", "x/c.png", "y/c.png"):
        (root / "images" / name).unlink()
    assert run(task(home, root))["facts"]["images"] == "1"


def test_a_file_lost_after_the_end_costs_its_image_alone(
    home: Home, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = task(home, root)
    run(given)
    before = made(given)
    (home.store / given.key / "epoch_00001" / "a.png").unlink()
    real, seen = SamMasks.produce, []
    monkeypatch.setattr(
        SamMasks, "produce", lambda self, name, *rest: seen.append(name) or real(self, name, *rest)
    )
    again = task(home, root)
    run(again)
    assert seen == ["a"] and made(again) == before


def test_what_is_watched_decides_the_key(home: Home, root: Path) -> None:
    (first,) = prepared(home, root).runs
    (second,) = prepared(home, root, watch=["a"]).runs
    (third,) = prepared(home, root, points_per_side=4).runs
    small_sam(root / "small.pth", seed=1)
    (other,) = prepared(home, root).runs
    assert len({first.key, second.key, third.key, other.key}) == 4


def test_a_name_that_no_image_has_is_told_before_anything_starts(home: Home, root: Path) -> None:
    with pytest.raises(StudyError, match="stages.sam.config.watch: there is no image 'aa'"):
        prepared(home, root, watch=["aa"])


def test_a_picture_that_went_bad_meanwhile_is_a_fault_that_names_it(home: Home, root: Path) -> None:
    given = task(home, root)
    (root / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(Unrecoverable, match="b.png: not an image"):
        produce(given, ALONE, lambda figures: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainable": "rotation"}, "needs one of `trainable:`"),
        ({"after": "sam"}, "a producer has no `after`"),
        ({"producer": "sma"}, "no producer 'sma' .did you mean 'sam'"),
    ],
)
def test_a_stage_learns_or_produces(root: Path, change: dict[str, Any], message: str) -> None:
    given = mapping(root)
    given["stages"]["sam"] |= change
    with pytest.raises(StudyError, match=message):
        from_mapping(given)


def test_nothing_starts_from_a_producer(root: Path) -> None:
    given = mapping(root)
    given["stages"]["A"] = {
        "trainable": "classify", "after": "sam", "config": {"dataset": "images"},
    }  # fmt: skip
    with pytest.raises(StudyError, match="'sam' is a producer: it has no weights to start from"):
        from_mapping(given)


def test_a_missing_checkpoint_is_one_line_before_anything_starts(root: Path) -> None:
    (root / "small.pth").unlink()
    given = mapping(root, model="vit_h")
    with pytest.raises(StudyError, match="stages.sam.config.weights: there is no file .* bytes"):
        from_mapping(given)


def test_means_are_over_the_images_that_have_the_figure() -> None:
    assert means([{"a": 1.0}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}


def _rank(rank: int, given: dict[str, Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    produce(Task(**given), World(rank, 2, torch.device("cpu")), lambda figures: None)
    dist.destroy_process_group()


def test_two_ranks_make_what_one_makes(home: Home, root: Path, tmp_path: Path) -> None:
    alone = task(Home(tmp_path / "other").create(), root)
    run(alone)
    given = task(home, root)
    multiprocessing.spawn(_rank, (asdict(given), str(tmp_path)), nprocs=2)
    assert made(given) == made(alone)
    found = Store(home.store).run(given.key).result()
    assert found is not None and found["facts"]["workers"] == "2"


def test_images_that_were_moved_are_found(tmp_path: Path) -> None:
    """What is in them names the list of them, not where they lie."""
    listing = tmp_path / "cache" / "files-0.json"
    for number in range(3):
        path = tmp_path / "here" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(40, 64)).save(path)
    for place in ("here", "there"):
        config = DatasetConfig(type="image_folder", path=str(tmp_path / place), labels=False)
        write_image_list(read(config, None, cut=False), "fail", listing)
        assert open_images(listing).open(0)[0].shape == (40, 64, 3)
        (tmp_path / place).rename(tmp_path / "there")


def test_a_producer_refuses_other_channels_than_rgb(home: Home, root: Path) -> None:
    (root / "bands").mkdir()
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)
    tifffile.imwrite(root / "bands/a.tif", pixels, photometric="minisblack", planarconfig="contig")
    data = {"type": "image_folder", "subfolder": "bands", "labels": False, "channels": 4}
    with pytest.raises(StudyError, match="stages.sam.config.dataset: a producer needs RGB"):
        prepared(home, root, data)
