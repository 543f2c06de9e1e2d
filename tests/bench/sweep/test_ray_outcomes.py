"""What the executor makes of what Ray says; Ray itself is a stand-in that runs tasks at once."""

import json
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from shacira_nerfstudio.bench.sweep import ray_pool
from shacira_nerfstudio.bench.sweep.ray_pool import RayPool
from shacira_nerfstudio.bench.sweep.tasks import Outcome


class RayError(Exception):
    """As ``ray.exceptions.RayError``."""


class Ref:
    """Of a task."""

    def __init__(self, function, values):
        self.function, self.values = function, values


class FakeRay(SimpleNamespace):
    """One node of two cores. ``lost`` names scenes whose next task is lost."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self):
        super().__init__(lost=[], options=[], is_there=False, num_put=0)

    def is_initialized(self):
        return self.is_there

    def init(self, **options):
        self.is_there = True

    def shutdown(self):
        self.is_there = False

    def cluster_resources(self):
        return {"CPU": 2.0}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0, "memory": 8e9}}]

    def put(self, value):
        self.num_put += 1
        return value

    def remote(self, function):
        def options(**wanted):
            self.options.append(wanted)
            return SimpleNamespace(remote=lambda *values: Ref(function, values))

        return SimpleNamespace(options=options)

    def wait(self, refs, timeout):
        return refs[:1], refs[1:]

    def get(self, ref):
        scene = ref.values[0].job.scene
        if scene in self.lost:
            self.lost.remove(scene)
            raise RayError("the worker died\nmore")
        return ref.function(*ref.values)

    def cancel(self, ref, force):
        pass


@pytest.fixture
def fake(monkeypatch):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


@pytest.fixture
def quick(monkeypatch):
    """Runs that are over at once, and leave what they would."""
    row = {"psnr": 1.0, "bytes": 3, "train_seconds": 1.0}

    def run(task):
        folder = task.folder
        (folder / "export").mkdir(parents=True, exist_ok=True)
        (folder / "export" / "scene.shacira").write_text("file", "utf-8")
        (folder / "train.log").write_text("log", "utf-8")
        found = {**row, "key": task.job.key, "scene": task.job.scene}
        (folder / "row.json").write_text(json.dumps(found), "utf-8")
        has_data = task.data is not None and (task.data / "picture").exists()
        return Outcome(task.job.key, found) if has_data else Outcome(task.job.key, error="no data")

    monkeypatch.setattr(ray_pool, "run_task", run)


def scenes_in(path):
    return Counter(json.loads(line)["scene"] for line in path.read_text("utf-8").splitlines())


@pytest.mark.parametrize("ships_scenes", [False, True])
def test_what_ray_loses_is_given_to_it_again(sweep, fake, quick, tmp_path, ships_scenes):
    for scene in "abc":
        (sweep.data / scene / "picture").write_text(scene, "utf-8")
    fake.lost = ["a", "c"]
    pool = RayPool(ships_scenes=ships_scenes, node_dir=tmp_path / "node")
    assert sweep.run(pool) == {}
    assert scenes_in(sweep.output) == {"a": 1, "b": 1, "c": 1}
    again = [line for line in sweep.said if "starts again: lost by Ray: the worker died" in line]
    assert len(again) == 2 and not fake.is_there  # what was started here is ended
    assert len(list(sweep.work.glob("*/export/scene.shacira"))) == 3
    assert fake.options[0]["num_cpus"] == 1 and fake.options[0]["max_retries"] == 0
    if ships_scenes:
        assert fake.num_put >= 3 and len(list((tmp_path / "node" / "scenes").iterdir())) == 3
        assert not list((tmp_path / "node" / "runs").iterdir())


def test_a_scene_that_ray_always_loses_is_reported(sweep, fake, quick):
    for scene in "abc":
        (sweep.data / scene / "picture").write_text(scene, "utf-8")
    fake.lost, fake.is_there = ["b"] * 9, True
    assert sweep.run(RayPool(), retries=1) == {"b": 1}
    assert scenes_in(sweep.output) == {"a": 1, "c": 1} and fake.is_there


def test_what_no_node_has_is_refused(sweep, fake, quick):
    sweep.plan.write_text(f"limits: {{cpus: 3}}\n{sweep.plan.read_text('utf-8')}", "utf-8")
    with pytest.raises(ValueError, match="expected a node with 3 cores"):
        sweep.run(RayPool())


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'shacira_nerfstudio\[sweep\]'"):
        RayPool()
