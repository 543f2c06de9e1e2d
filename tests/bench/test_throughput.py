"""Every row of `shacira bench throughput` at tiny sizes: its schema, and that its check can fail.

No time is asserted.
"""

import dataclasses
import io
import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from shacira_nerfstudio.bench.throughput import coding, driver, ops, processes, training
from shacira_nerfstudio.bench.throughput.timing import (
    Row,
    Side,
    WrongResultError,
    check_close,
    check_relative,
    interleave,
)
from shacira_nerfstudio.cli import main as cli

REPEATS = 1
SIZES = ops.OpSizes(
    num_samples=1 << 10,
    samples_per_ray=8,
    num_levels=4,
    max_res=64,
    log2_hashmap_size=10,
    num_march_rays=64,
    occupancy_resolution=32,
    steps_across_box=128,
)
OURS = {
    "grid.num_levels": 4,
    "grid.max_res": 64,
    "grid.log2_hashmap_size": 10,
    "grid.latents_init_std": 2.0,
    "networks.hidden_dim": 16,
    "sampling.occupancy_resolution": 32,
    "sampling.occupancy_warmup": 4,
    "sampling.occupancy_every": 4,
    "sampling.steps_across_box": 128,
    "sampling.target_num_samples": 512,
    "schedule.warmup_steps": 2,
}
SMALL_NET = {"hidden_dim": 8, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 16}
NERFACTO = {
    "num_levels": 2,
    "max_res": 16,
    "log2_hashmap_size": 8,
    "num_proposal_samples_per_ray": (4, 4),
    "num_nerf_samples_per_ray": 4,
    "proposal_update_every": 1,
    "proposal_net_args_list": [SMALL_NET, SMALL_NET],
}
GOLDEN = Path(__file__).parents[1] / "golden" / "v1_tiny.shacira"
SCENE_ROWS = ["train_step", "render"]
OP_ROWS = ["interpolate", "march", "composite", "networks", "rate", "adam"]
CODEC_ROWS = ["encode_scene", "decode_scene"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def setting():
    return ops.Setting.create(REPEATS, SIZES, num_threads=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

    folder = tmp_path_factory.mktemp("throughput")
    write_demo_scene(folder / "scene", num_views=6, size=16)
    return training.SceneRuns(
        folder / "scene",
        folder / "runs",
        warmup_steps=6,
        options=OURS,
        rival_options=NERFACTO,
        num_threads=1,
    )


@pytest.fixture
def plan(setting, runs):
    return driver.Plan(setting, runs, REPEATS)


def assert_schema(row):
    assert {field.name for field in dataclasses.fields(Row)} < set(row)
    assert row["ours"] > 0 and row["check"] and row["rival_what"]
    if row["rival"] is None:
        assert row["ratio"] is None
    else:
        assert row["ratio"] > 0 and math.isfinite(row["rival"])
    assert row["peak_rss_bytes"] > 1 << 20
    assert {"date", "commit", "machine", "versions", "threads", "backend"} <= set(row)
    assert row["versions"]["torch"] and row["versions"]["numba"]
    assert row["ours_times_s"]["min"] <= row["ours_times_s"]["median"]


@pytest.mark.nerfstudio
def test_operations_give_rows(plan, tmp_path):
    rows = driver.write_rows(plan, OP_ROWS, tmp_path / "deep" / "out.jsonl")
    written = (tmp_path / "deep" / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == rows
    assert [row["name"] for row in rows] == OP_ROWS
    for row in rows:
        assert_schema(row)
        assert row["ratio"] is not None and row["backend"] == "cpu_numba"


@pytest.mark.nerfstudio
def test_steps_and_views_give_rows(plan, tmp_path):
    rows = {row["name"]: row for row in driver.write_rows(plan, SCENE_ROWS, tmp_path / "o.jsonl")}
    assert list(rows) == SCENE_ROWS
    for row in rows.values():
        assert_schema(row)
    more = rows["train_step"]["more"]
    for side in ("ours", "rival"):
        assert more[f"{side}_samples_per_s"] > 0 and more[f"{side}_rays_per_step"] > 0
    assert "grad scene.field.encoding.latents" in rows["train_step"]["check"]
    assert rows["render"]["sizes"]["table_bytes_per_latent"] == 1


@pytest.mark.parametrize("name", CODEC_ROWS)
def test_the_codec_gives_rows(plan, name):
    runs = dataclasses.replace(plan.runs, scene_file=GOLDEN)
    row = driver.ROWS[name](dataclasses.replace(plan, runs=runs)).as_dict()
    assert_schema(row)
    json.dumps(row, allow_nan=False)
    assert row["more"]["numpy_s"] > 0


# ── checks that fail ──


def spoil(setting, name, change):
    """A backend whose operation returns something else."""
    right = getattr(setting.backend, name)
    setattr(setting.backend, name, lambda *args, **options: change(right(*args, **options)))


@pytest.mark.nerfstudio
@pytest.mark.parametrize(
    ("row", "operation", "change"),
    [
        ("interpolate", "interpolate", lambda out: out * 1.001),
        ("interpolate", "interpolate", lambda out: out.detach() + (out - out.detach()) * 1.01),
        ("march", "march", lambda s: dataclasses.replace(s, positions=s.positions + 1e-5)),
        ("composite", "composite", lambda out: (out[0] + 1e-3, *out[1:])),
        ("composite", "composite", lambda out: (out[0], out[1] * torch.nan, out[2])),
        ("rate", "coded_bits", lambda bits: bits * 2),
        ("networks", "shade", lambda out: (out[0], out[1] * 1.02)),
        ("networks", "shade", lambda out: (out[0] + 1e-9, 2 * out[1] - out[1].detach())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_operation_is_not_timed(setting, row, operation, change):
    spoil(setting, operation, change)
    with pytest.raises(WrongResultError, match="off `reference`"):
        driver.ROWS[row](driver.Plan(setting, None, REPEATS))


@pytest.mark.nerfstudio
@pytest.mark.parametrize("name", ["train_step", "render"])
def test_a_wrong_model_is_not_timed(runs, monkeypatch, name):
    from shacira_nerfstudio.bench.throughput import nerfstudio_side

    right = nerfstudio_side.twin

    def wrong(model, backend, *args):
        other = right(model, backend, *args)
        if backend == "reference":
            with torch.no_grad():
                other.scene.field.color_mlp[-1].bias += 0.1
        return other

    monkeypatch.setattr(nerfstudio_side, "twin", wrong)
    with pytest.raises(WrongResultError, match=r"colors|rgb"):
        driver.ROWS[name](driver.Plan(None, runs, REPEATS))


def test_a_wrong_codec_is_not_timed(monkeypatch):
    right = coding.encode_scene
    monkeypatch.setattr(coding, "encode_scene", lambda scene, *, fast: right(scene) + b"\0" * fast)
    with pytest.raises(WrongResultError, match="encode_scene: differs"):
        coding.scene_row("encode_scene", GOLDEN.read_bytes(), REPEATS)


def test_checks():
    one = torch.ones(3)
    assert check_close("x", one, one, atol=0, because="equal")["x"]["max_error"] == 0
    for other in (one * torch.nan, one + 0.1, torch.ones(4)):
        with pytest.raises(WrongResultError, match="x: "):
            check_close("x", other, one, atol=1e-3, because="")
        with pytest.raises(WrongResultError, match="x: "):
            check_relative("x", other, one, limit=1e-3, because="")


# ── processes ──


def worker_says(monkeypatch, **answers):
    monkeypatch.setattr(processes, "run_worker", lambda task, *args, **options: answers[task])


def test_first_uses_and_memory(runs, monkeypatch):
    monkeypatch.setattr(training.SceneRuns, "check_step", lambda self: {"step": {}})
    took = {"first_s": 9.0, "again_s": 0.5, "other_sizes_s": 0.6, "backend": "cpu_numba"}
    memory = {"seconds": [0.2] * 5, "mean_step_s": 0.2, "samples_per_step": 5, "num_entries": 9}
    memory |= {"peak_rss_bytes": 10, "setup_peak_rss_bytes": 8, "backend": "cpu_numba"}
    worker_says(monkeypatch, compile_time=took, train_memory=memory)
    row = processes.compile_time(runs).as_dict()
    assert row["ours"] == 8.5 and row["rival"] is None
    row = processes.large_table(runs)
    assert row.ratio == 1 and row.more["peak_rss_bytes_22"] == 10
    worker_says(monkeypatch, compile_time={**took, "other_sizes_s": 8.0})
    with pytest.raises(WrongResultError, match="other sizes"):
        processes.compile_time(runs)


def test_a_failing_process_says_why(tmp_path, monkeypatch):
    """With a worker that does not take seconds to load what it does not use."""
    (tmp_path / "failing_worker.py").write_text("import sys\nraise KeyError(sys.argv[1])\n")
    monkeypatch.setattr(processes, "WORKER", "failing_worker")
    with pytest.raises(RuntimeError, match=r"(?s)absent failed with status 1.*KeyError: 'absent'"):
        processes.run_worker("absent", {}, environment={"PYTHONPATH": str(tmp_path)})


@pytest.mark.nerfstudio
def test_the_worker_finds_the_task_and_its_arguments(monkeypatch):
    from shacira_nerfstudio.bench.throughput import nerfstudio_side

    asked = []

    def fail(data, output, **options):
        asked.append((data, options["options"]))
        raise KeyError("said by the trainer")

    monkeypatch.setattr(nerfstudio_side, "our_trainer", fail)
    arguments = {"data": "x", "dataparser": None, "warmup_steps": 1, "num_steps": 1, "options": {}}
    monkeypatch.setattr(sys, "argv", [processes.WORKER, "train_memory", json.dumps(arguments)])
    monkeypatch.delitem(sys.modules, processes.WORKER, raising=False)
    with pytest.raises(KeyError, match="said by the trainer"):
        runpy.run_module(processes.WORKER, run_name="__main__")
    assert asked == [(Path("x"), {})]


# ── turns ──


def test_sides_take_turns():
    seen = []

    def side(name):
        return Side(lambda: seen.append((name, torch.get_num_threads())), name, 1, 1, 6.0)

    before = torch.get_num_threads()
    timed = interleave({"a": side("a"), "b": side("b")}, 3)
    assert seen == [("a", 1), ("b", 1)] * 4  # the first of each does not count
    assert torch.get_num_threads() == before
    assert [len(t.seconds) for t in timed.values()] == [3, 3]
    assert timed["a"].rates == tuple(pytest.approx(6.0 / s) for s in timed["a"].seconds)


# ── the command ──


def test_the_table_shows_figures():
    more = {"samples_per_step": 98304.0, "fresh": {"first_s": 1.0}}
    row = Row("step", "ms/step", 4.0, None, None, "", "none", {"x": {}}, {}, {}, "b", more=more)
    console = Console(file=io.StringIO(), width=120)
    driver.print_table([{**row.as_dict(), "rival_times_s": {"median": 0.5, "min": 0.25}}], console)
    text = console.file.getvalue()
    for expected in ("ms/step", "0.5 (0.25)", "step: samples_per_step 98,304"):
        assert expected in text


def test_the_command_refuses_what_makes_no_sense(tmp_path, capsys):
    arguments = ["bench", "throughput", "--data", str(tmp_path), "--output", str(tmp_path / "o")]
    for wrong, complaint in (
        (["--only", "speed"], "expected rows of interpolate"),
        (["--repeats", "2"], "5 or more"),
        (["--data", str(tmp_path / "absent")], "folder with a scene"),
        (["--only", "train_step"], "transforms_train.json"),
    ):
        assert cli.main([*arguments, *wrong]) == 2
        assert complaint in capsys.readouterr().err


# ── devices ──


@pytest.mark.parametrize(
    ("device", "only", "message"),
    [
        ("cpu", "plain_step", "expected rows that cpu has, got plain_step"),
        ("mps", "march", "expected --device of cpu or cuda, got mps"),
        ("cuda", "march", "expected --device cuda on a machine with a CUDA device, found none"),
    ],
)
def test_devices_have_rows_of_their_own(tmp_path, device, only, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("the error is that of a machine without a CUDA device; here is one")
    with pytest.raises(ValueError, match=message):
        driver.run_throughput(tmp_path, tmp_path / "o.jsonl", device=device, only=[only])


@pytest.mark.nerfstudio
def test_steps_beside_those_of_plain_torch(runs):
    """The row that is for a GPU, on a CPU."""
    row = driver.ROWS["plain_step"](driver.Plan(None, runs, REPEATS)).as_dict()
    assert_schema(row)
    assert runs.plain.pipeline.model.scene.encoding.backend.name == "reference"
    assert row["more"]["rival_samples_per_s"] > 0 and row["gpu"] is None
