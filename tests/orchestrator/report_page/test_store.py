"""What a reader learns from the page alone, and when a page is made again."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.report_page.store import report_of, write_report
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import Submission, load
from orchestrator.tracking.tags import Tag
from tests.mlflow_server import mlflow_server
from tests.orchestrator.report_page.submissions import HARMFUL, Sample, submit

PRICES = {"currency": "EUR", "gpu_hour": 2.0, "gpu_watts": 300.0}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield Tracker(uri)


@pytest.fixture(scope="module")
def submission(tracker: Tracker, tmp_path_factory: pytest.TempPathFactory) -> Submission:
    return submit(tracker, tmp_path_factory.mktemp("pictures"), "photos", Sample())


@pytest.fixture(scope="module")
def page(tracker: Tracker, submission: Submission) -> str:
    return write_report(tracker, submission, PRICES)


def words(page: str) -> str:
    """Return what a reader sees: without style, drawings and tags."""
    for part in ("style", "svg"):
        page = re.sub(f"<{part}.*?</{part}>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", page)).split())


def test_the_page_explains_the_words_that_it_uses_and_no_others(page: str) -> None:
    explained = re.findall("<dt>([^<]+)</dt>", page[page.index('id="words"') :])
    needed = {"Run", "95 % interval", "p", "established", "paired", "points", "fingerprint"}
    assert needed <= set(explained)
    assert not {"IoU", "McNemar"} & set(explained)


def test_the_page_states_question_answer_and_how_sure_it_is(page: str) -> None:
    seen = words(page)
    assert "Does pretraining help?" in seen
    # 91.00 - 81.33; the differences 0.10, 0.09, 0.10 have s = 0.00577, t(2) = 4.303:
    # 9.667 ± 4.303 * 0.577 / √3 = 8.23 to 11.10
    assert (
        "tuned is better than scratch by 9.67 percentage points (test accuracy 91.00 % against "
        "81.33 %): established; with 3 seeds, tuned minus scratch lies from +8.23 to +11.10."
    ) in seen
    assert "tuned starts from the weights that pretrain has learned; scratch from random" in seen
    # 120 of 200 test images are cats
    assert (
        "Guessing among 2 classes would reach a test accuracy of 50.00 %; always answering cat, "
        "the most frequent, 60.00 %."
    ) in seen
    assert "Each configuration was trained with 3 seeds" in seen
    assert "77.10 +4.23" in seen  # the reference, and the difference to it


def test_the_page_states_data_recipe_cost_and_how_to_repeat_it(page: str) -> None:
    seen = words(page)
    assert "train 1,200, val 100, test 200; 1,500 in all" in seen
    assert "2 classes cat, dog" in seen
    assert "f" * 16 in seen
    assert "3 files not read: .txt, no image" in seen
    assert "classify, starts from pretrain; seeds 0, 1, 2." in seen
    assert "epochs how often training passes over the training images 3 20" in seen  # of pretrain
    assert "lr learning rate after the warm-up 0.02 0.05" in seen
    # 9 Runs of 90 s on 2 threads and half a GPU hour: 4.5 h at 300 W and 2 EUR
    assert "trained here, in all 9 14 min 4.50 0.45 1.350 9.00" in seen
    assert "computed from 300 W for each GPU, not measured" in seen
    assert f"git checkout {'a' * 40}" in seen
    assert "python -m orchestrator submit photos.yaml" in seen
    assert "Nothing: every Run has finished" in seen
    assert "This is not final" not in seen


def test_the_page_tells_no_reader_where_the_data_lie(page: str) -> None:
    assert "secret" not in page
    assert "path: photos" in words(page)


def test_the_page_names_nothing_outside_itself_and_can_be_sent(page: str) -> None:
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s)>]+)""", page)
    assert [a for a in addresses if not a.startswith(("#", "data:image/png;base64,"))] == []
    assert "http:" not in page and "https:" not in page
    assert len(page) < 5_000_000


def test_headings_are_in_order_and_cells_have_headers(page: str) -> None:
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(re.search(r'scope="(col|row)"', cell) for cell in re.findall(r"<th\b[^>]*>", page))
    assert all(re.search(r'alt="[^"]+', image) for image in re.findall(r"<img[^>]*>", page))


def test_texts_are_escaped_everywhere(tracker: Tracker, tmp_path: Path) -> None:
    sample = Sample(f"Why? {HARMFUL}", (HARMFUL,), failed=True)
    page = write_report(tracker, submit(tracker, tmp_path, "harmful", sample), {})
    assert "<script" not in page
    assert page.count(html.escape(HARMFUL, quote=False).replace("'", "&#39;")) >= 3
    assert "scratch seed 2 failed the loss is not finite" in words(page)
    assert "Energy and cost: not known" in words(page)
    assert "This is not final: 8 of 9 Runs have finished." in words(page)


def test_a_page_is_made_again_only_when_something_has_changed(
    tracker: Tracker, submission: Submission, page: str
) -> None:
    run_id = submission.tracked.run_id
    tracker.writer.log_text(run_id, "mine", "report.html")

    def now() -> Submission:
        return load(tracker.reader, tracker.reader.run(run_id))

    made = write_report(tracker, now(), PRICES)  # it was damaged
    assert words(made)[:20] == words(page)[:20]
    assert tracker.reader.text(run_id, "report.html") == made
    digest = now().tracked.tags[Tag.REPORT]
    assert write_report(tracker, now(), PRICES) == made
    assert now().tracked.tags[Tag.REPORT] == digest
    write_report(tracker, now(), {**PRICES, "gpu_hour": 3.0})
    assert now().tracked.tags[Tag.REPORT] != digest
    cheap = report_of(tracker, now(), {})  # of another home: nothing is written
    assert "(EUR)" not in cheap
    assert "(EUR)" in tracker.reader.text(run_id, "report.html")
