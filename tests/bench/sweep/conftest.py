"""Sweeps of quick fake jobs in real processes."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from shacira_nerfstudio.bench.plan import Limits, load_plan
from shacira_nerfstudio.bench.report.rows import load_rows
from shacira_nerfstudio.bench.sweep import engine, tasks

SCENES = ("a", "b", "c")
PLAN = """
scenes: [a, b, c]
dataparser: rtmv-data
steps: 2
runs:
  - preset: preset.yaml
    rate_lambdas: [1.0e-3]
"""
FAKE_WORKER = Path(__file__).with_name("fake_worker.py")


class FakeSweep:
    """A plan, its scenes and its results in a folder."""

    def __init__(self, folder, monkeypatch):
        (folder / "preset.yaml").write_text("model.grid.num_levels: 4\n", "utf-8")
        self.plan = folder / "plan.yaml"
        self.plan.write_text(PLAN, "utf-8")
        self.data, self.work, self.output = folder / "data", folder / "work", folder / "rows.jsonl"
        for scene in SCENES:
            (self.data / scene).mkdir(parents=True)
        self.said = []
        monkeypatch.setattr(engine, "check_jobs", lambda *arguments: None)
        monkeypatch.setattr(tasks, "WORKER", [sys.executable, str(FAKE_WORKER)])
        self.acts()

    def acts(self, **by_scene):
        """What starts of a scene's runs do, see ``fake_worker``."""
        self.work.mkdir(exist_ok=True)
        (self.work / "acts.json").write_text(json.dumps(by_scene), "utf-8")

    def run(self, executor, **options):
        """Failures of one call, by scene."""
        failures = engine.run_plan(
            self.plan,
            self.output,
            data_root=self.data,
            work_dir=self.work,
            executor=executor,
            say=self.said.append,
            **options,
        )
        return Counter(failure.job.scene for failure in failures)

    def rows(self):
        """Results by scene; a job that stands there twice is an error."""
        return Counter(row["scene"] for row in load_rows([self.output]))

    def starts(self):
        """How often runs of each scene were started."""
        counts = Counter()
        for path in self.work.glob("*/starts"):
            scene = json.loads((path.parent / "task.json").read_text("utf-8"))["job"]["scene"]
            counts[scene] += len(path.read_text("utf-8").splitlines())
        return counts


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    return FakeSweep(tmp_path, monkeypatch)


@pytest.fixture
def task(sweep):
    """Makes the task of a scene, with limits."""
    job = load_plan(sweep.plan, sweep.data)[0]

    def task(scene, **limits):
        each = replace(job, scene=scene, limits=Limits(**limits))
        return tasks.Task(each, sweep.data / scene, sweep.work / scene, sweep.work)

    return task
