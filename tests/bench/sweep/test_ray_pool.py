"""The same with Ray: one small cluster for all tests. On request: Ray's start has limits of its own
by the clock, which a busy machine exceeds."""

import os
import signal
import sys
from collections import Counter

import pytest

if "SHACIRA_TEST_RAY" not in os.environ:
    reason = "starts a Ray cluster, whose limits by the clock a busy machine exceeds"
    pytest.skip(f"{reason}; SHACIRA_TEST_RAY=1 runs it", allow_module_level=True)
ray = pytest.importorskip("ray", reason="needs ray: pip install 'shacira_nerfstudio[sweep]'")

from shacira_nerfstudio.bench.sweep.ray_pool import RayPool  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="kills processes by signals"),
]


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def test_lost_workers_and_broken_scenes(sweep, cluster):
    sweep.acts(a=["die", "ok"], b=["refuse"])
    assert sweep.run(RayPool()) == {"b": 1}
    assert sweep.rows() == {"a": 1, "c": 1}
    assert sweep.starts() == Counter(a=2, b=1, c=1)


def test_a_killed_ray_worker_is_replaced_and_its_run_ended(sweep, cluster):
    sweep.acts(a=["hang", "ok"], b=["refuse"], c=["refuse"])
    killed = []

    def kill_ray_worker(progress):
        for path in sweep.work.glob("*/group.json"):
            if (path.parent / "step_pid").exists() and not killed:
                worker = int((path.parent / "starts").read_text("utf-8").split()[0])
                with open(f"/proc/{worker}/stat", encoding="utf-8") as file:
                    killed.append(int(file.read().rsplit(") ", 1)[1].split()[1]))
                os.kill(killed[0], signal.SIGKILL)  # the process of Ray's, not the run's

    assert sweep.run(RayPool(), show=kill_ray_worker) == {"b": 1, "c": 1}
    assert killed and sweep.rows() == {"a": 1} and sweep.starts()["a"] == 2


def test_scenes_are_shipped_and_files_come_back(sweep, cluster, tmp_path):
    (sweep.data / "a" / "00000.json").write_text("{}", "utf-8")
    assert sweep.run(RayPool(ships_scenes=True, node_dir=tmp_path / "node")) == {}
    assert sweep.rows() == {"a": 1, "b": 1, "c": 1}
    assert len(list(sweep.work.glob("*/export/scene.shacira"))) == 3
    assert len(list(sweep.work.glob("*/train.log"))) == 3


def test_what_no_node_has_is_an_error(sweep, cluster):
    sweep.plan.write_text(f"limits: {{cpus: 99}}\n{sweep.plan.read_text('utf-8')}", "utf-8")
    with pytest.raises(ValueError, match="expected a node with 99 cores"):
        sweep.run(RayPool())
