"""Runs in processes of this machine: what is killed, fails, hangs or is refused, and what of it is
counted."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from shacira_nerfstudio.bench.sweep import local_pool, tasks
from shacira_nerfstudio.bench.sweep.local_pool import LocalPool
from shacira_nerfstudio.bench.sweep.tasks import Outcome, doing, run_task

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes by signals")


def is_running(pid):
    state = Path(f"/proc/{pid}/stat")
    if state.parent.parent.joinpath("self").exists():
        return state.exists() and state.read_text("utf-8").rsplit(") ", 1)[1][0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid):
    """A process that was killed may take a moment; one that was not takes ten minutes."""
    for _ in range(600):
        if not is_running(pid):
            return
        time.sleep(0.1)
    raise AssertionError(f"expected process {pid} to have ended, found it running")


def test_killed_failed_and_broken_runs_lose_nothing_and_double_nothing(sweep):
    sweep.acts(a=["die", "ok"], b=["refuse"], c=["fail", "ok"])
    assert sweep.run(LocalPool(2)) == {"b": 1}
    assert sweep.rows() == {"a": 1, "c": 1}
    assert sweep.starts() == {"a": 2, "b": 1, "c": 2}  # what was refused is not tried again
    assert sum("starts again" in line for line in sweep.said) == 2
    (step,) = [int(path.read_text("utf-8")) for path in sweep.work.glob("*/step_pid")]
    wait_for_end(step)  # no orphan is left
    # The next call does what is left, and nothing else.
    sweep.acts()
    assert sweep.run(LocalPool(2)) == {}
    assert sweep.rows() == {"a": 1, "b": 1, "c": 1}
    assert sweep.starts() == {"a": 2, "b": 2, "c": 2}
    # Rows that a killed driver did not note, or noted by half, are in the runs' folders.
    lines = sweep.output.read_text("utf-8").splitlines(keepends=True)
    sweep.output.write_text(lines[0] + lines[1][:40], "utf-8")
    assert sweep.run(LocalPool(2)) == {}
    assert sweep.rows() == {"a": 1, "b": 1, "c": 1}
    assert sweep.starts() == {"a": 2, "b": 2, "c": 2}


def test_a_run_that_takes_too_long_is_ended_with_its_steps(sweep, task, monkeypatch):
    sweep.acts(a=["hang"])
    each = task("a", minutes=1.0)
    pid = each.folder / "step_pid"
    clock = SimpleNamespace(monotonic=lambda: 61.0 if pid.exists() else 0.0)
    monkeypatch.setattr(tasks, "time", clock)
    outcome = run_task(each)
    assert outcome.is_final and "took longer than 1 minutes" in outcome.error
    wait_for_end(int(pid.read_text("utf-8")))


class Busy(LocalPool):
    """A pool whose runs end when they are told to."""

    def _run(self, task):
        self.environs = {**getattr(self, "environs", {}), task.job.key: task.environ}

    def end(self, key):
        self._ended.put(Outcome(key))
        self.outcomes(1)


@pytest.fixture
def machine(monkeypatch):
    """Four cores, 8 GB and two cards."""
    monkeypatch.setattr(local_pool.environment, "num_cores", lambda: 4)
    monkeypatch.setattr(local_pool, "_memory_bytes", lambda: 8_000_000_000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")


def test_as_many_runs_as_cores_memory_and_cards_allow(machine, task):
    pool = Busy()
    assert pool.try_submit(task("a", cpus=3, gpus=0, memory_gb=1))
    assert not pool.try_submit(task("b", cpus=2, gpus=0, memory_gb=1))
    assert not pool.try_submit(task("b", cpus=1, gpus=0, memory_gb=7.5))
    assert pool.try_submit(task("c", cpus=1, gpus=0, memory_gb=7))
    pool = Busy()
    first, second, third = (task(name, gpus=0.5, memory_gb=0.1) for name in "abc")
    assert all(pool.try_submit(each) for each in (first, second, third))
    cards = [pool.environs[each.job.key]["CUDA_VISIBLE_DEVICES"] for each in (first, second)]
    assert cards == ["3", "5"]
    assert not pool.try_submit(task("d", gpus=1, memory_gb=0.1))
    pool.end(second.job.key)
    assert pool.try_submit(task("d", gpus=1, memory_gb=0.1))
    assert pool.environs[first.job.key]["OMP_NUM_THREADS"] == "1"


def test_one_that_never_finds_room_runs_alone(machine, task):
    pool = Busy()
    assert pool.try_submit(task("a", cpus=64, memory_gb=1000, gpus=7))
    assert not pool.try_submit(task("b", gpus=0))


def test_a_card_by_default_where_there_is_one(machine, task, monkeypatch):
    pool = Busy()
    assert [pool.try_submit(task(name, memory_gb=0.1)) for name in "abc"] == [True, True, False]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    pool = Busy()
    assert [pool.try_submit(task(name, memory_gb=0.1)) for name in "abc"] == [True, True, True]


def test_what_a_run_does_is_the_last_line_of_its_newest_log(tmp_path):
    assert doing(tmp_path) == "starts"
    (tmp_path / "train.log").write_text("step 1\nstep 2 of 3\n\n", "utf-8")
    assert doing(tmp_path) == "train: step 2 of 3"


def test_an_error_of_the_watcher_is_an_outcome(task, monkeypatch):
    def fail(task, stop):
        raise OSError("no room")

    monkeypatch.setattr(local_pool, "run_task", fail)
    pool = LocalPool(1)
    assert pool.try_submit(task("a"))
    (outcome,) = pool.outcomes(5)
    assert outcome.error == "OSError: no room" and outcome.row is None
    assert tasks.WORKER
