"""What the processes of a Run take is measured in each epoch, beside its history."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from orchestrator.execution.worker import train
from orchestrator.meters.epoch_usage import Meter, measured, total
from orchestrator.meters.gpu_usage import GpuUsage
from orchestrator.meters.process_usage import ProcessUsage
from orchestrator.meters.usage_records import CPU, GPU, GPU_MEMORY, MEMORY, read_usage, write_usage
from orchestrator.storage.run_records import StaleWriter, Store
from tests.conftest import ALONE, Tasks
from trainables.metrics import metric_of

SPINS = "import time; end = time.process_time() + {}\nwhile time.process_time() < end: pass"


def test_processes_below_count_while_they_run_and_after_they_have_ended() -> None:
    usage = ProcessUsage(scan_seconds=0)
    before, memory = usage.read()
    subprocess.run([sys.executable, "-c", SPINS.format(0.5)], check=True)
    after = usage.read()[0]
    assert 0.5 <= after - before < 5
    held = "held = bytearray(200_000_000); print('ready', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", held], **pipes) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        grown = usage.read()[1] - memory
        child.communicate(b"\n")
    assert 200e6 <= grown < 400e6
    assert usage.read()[1] - memory < 100e6


def test_cpu_is_a_mean_over_the_epoch_and_memory_its_peak() -> None:
    meter = Meter(ALONE)
    began, spent = time.perf_counter(), time.process_time()
    while time.process_time() - spent < 0.5:
        pass
    figures = meter.end_epoch()
    elapsed = time.perf_counter() - began
    assert figures[CPU] == pytest.approx((time.process_time() - spent) / elapsed, rel=0.2)
    low = figures[MEMORY]
    block = torch.ones(50_000_000)  # 200 MB
    meter.look()
    del block
    assert meter.end_epoch()[MEMORY] == pytest.approx(low + 200, abs=20)
    assert meter.end_epoch()[MEMORY] == pytest.approx(low, abs=20)
    assert {CPU, MEMORY} == figures.keys()


def test_a_real_run_notes_every_epoch_and_its_history_stays_as_it_is(tasks: Tasks) -> None:
    task = tasks.make(epochs=3)
    run, reported = tasks.store.run(task.key), []
    with measured(run.writer(task.attempt), ALONE, reported.append) as report:
        train(task, ALONE, report)
    usage, result = read_usage(run), run.result()
    assert result is not None
    assert [entry["epoch"] for entry in usage] == [1, 2, 3]
    assert all(0 < entry[CPU] <= psutil.cpu_count() + 1 for entry in usage)
    assert all(100 < entry[MEMORY] < 1e5 for entry in usage)
    assert reported == result["history"]
    assert not {CPU, MEMORY} & set(result["history"][0])


def test_weights_and_figures_are_those_of_a_run_that_is_not_measured(tasks: Tasks) -> None:
    figures, weights = [], []
    for with_meter in (True, False):
        task = tasks.make(epochs=2)
        run = tasks.store.run(task.key)
        run.forget()
        if with_meter:
            with measured(run.writer(task.attempt), ALONE, lambda figures: None) as report:
                train(task, ALONE, report)
        else:
            train(task, ALONE, lambda figures: None)
        best, result = run.best(), run.result()
        assert best is not None and result is not None
        weights.append(torch.load(best.weights, weights_only=True))
        figures.append(
            [
                {name: value for name, value in entry.items() if not name.startswith("system/")}
                for entry in result["history"]
            ]
        )
    assert figures[0] == figures[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_that_goes_on_replaces_what_it_trains_again(tmp_path: Path) -> None:
    run = Store(tmp_path).run("a" * 20)
    write_usage(run.writer(run.begin_attempt()), [{"epoch": n, CPU: 0.0} for n in (1.0, 2.0, 3.0)])
    stale = run.writer(1)
    with measured(run.writer(run.begin_attempt()), ALONE, lambda figures: None) as report:
        report({"epoch": 2.0})
    usage = read_usage(run)
    assert [entry["epoch"] for entry in usage] == [1, 2]
    assert usage[0] == {"epoch": 1, CPU: 0.0}
    assert usage[1].keys() == {"epoch", "time", CPU, MEMORY}
    assert usage[1]["time"] == pytest.approx(time.time(), abs=60)
    with pytest.raises(StaleWriter):
        write_usage(stale, [])
    assert read_usage(run) == usage
    (run.path / "usage.json").write_text('{"epochs": 3}')
    assert read_usage(run) == [] and read_usage(Store(tmp_path).run("b")) == []


def test_ranks_add_up_and_of_gpus_the_mean_is_taken() -> None:
    ranks = [{CPU: 1.0, GPU: 0.5, GPU_MEMORY: 10.0}, {CPU: 2.0, GPU: 1.0, GPU_MEMORY: 20.0}]
    assert total(ranks) == {CPU: 3.0, GPU: 0.75, GPU_MEMORY: 30.0}
    assert total([{CPU: 1.0}, {CPU: 2.0, GPU: 0.5}]) == {CPU: 3.0, GPU: 0.5}
    units = {name: metric_of(name).unit for name in (CPU, MEMORY, GPU, GPU_MEMORY)}
    assert units == {CPU: "cores", MEMORY: "MB", GPU: "%", GPU_MEMORY: "MB"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_driver_that_does_not_tell_how_busy_the_gpu_is_is_asked_once() -> None:
    usage = GpuUsage(torch.device("cuda", 0))
    assert usage.busy() is None and not usage._tells
    assert usage.memory() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_tells_its_memory_and_how_busy_it_is() -> None:
    usage = GpuUsage(torch.device("cuda", 0))
    before, block = usage.memory(), torch.ones(25_000_000, device="cuda")
    assert usage.memory() - before >= block.numel() * 4
    busy = usage.busy()
    assert busy is None or 0 <= busy <= 1


def test_a_look_costs_little() -> None:
    usage = ProcessUsage(scan_seconds=0)
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=time.sleep, args=(30,)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        began = time.process_time()
        for _ in range(20):
            usage.read()
        seconds = (time.process_time() - began) / 20
    finally:
        for child in children:
            child.terminate()
            child.join()
    assert seconds < 0.05, seconds  # of the five seconds between two looks
