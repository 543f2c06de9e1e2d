"""Sweeps: what is skipped, what is repeated, what a failure does; and one real job of each kind."""

import dataclasses
import importlib
import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from shacira_nerfstudio.bench.plan import load_plan
from shacira_nerfstudio.bench.report.rows import load_rows
from shacira_nerfstudio.bench.sweep import engine, job_steps
from shacira_nerfstudio.bench.sweep.engine import run_plan
from shacira_nerfstudio.bench.sweep.job_steps import JobError
from shacira_nerfstudio.bench.sweep.tasks import Outcome
from shacira_nerfstudio.cli import main as cli

PLAN = """
scene: demo
demo_scene: {num_views: 2, size: 8}
dataparser: rtmv-data
steps: 2
runs:
  - preset: preset.yaml
    rate_lambdas: [1.0e-3, 1.0e-2]
"""
FACTS = {
    **{"psnr": 20.0, "ssim": 0.5, "bytes": 100, "bytes_by_part": {"latents": 100}},
    **{"paper_accounting_bytes": 90, "encode_seconds": 0.1, "decode_seconds": 0.1},
    **{"render_seconds": 0.1, "resolution": [8, 8], "num_views": 1, "backend": "none"},
}


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "preset.yaml").write_text("model.grid.num_levels: 4\n", "utf-8")
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN, "utf-8")
    return path


class Inline:
    """An executor in this process: a run has ended when it is submitted."""

    def __init__(self, *arguments, **options):
        self.ended = []

    def try_submit(self, task):
        task.folder.mkdir(parents=True, exist_ok=True)
        try:
            row = job_steps.run_job(
                task.job, data=task.data, folder=task.folder, scenes=task.scenes
            )
            self.ended.append(Outcome(task.job.key, row))
        except JobError as error:
            self.ended.append(Outcome(task.job.key, error=str(error), is_final=error.is_final))
        return True

    def outcomes(self, timeout_s):
        found, self.ended = self.ended, []
        return found

    def close(self):
        pass


@pytest.fixture
def ran(monkeypatch):
    """Commands that a sweep ran, each replaced by writing what it would leave behind."""
    commands = []

    def run(command, log, handles=()):
        commands.append(command)
        log.write_text("all went well\n", "utf-8")
        name = log.stem
        if name == "train":
            made = [log.parent / "train" / "demo" / "shacira" / "run" / "config.yml"]
        elif name == "export":
            made = [log.parent / "export" / part for part in ("scene.shacira", "config.yml")]
        else:
            made = [log.parent / "figures.json"]
        for path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(FACTS), "utf-8")
        return 0, 1.5

    monkeypatch.setattr(job_steps, "run_logged", run)
    monkeypatch.setattr(engine, "check_jobs", lambda *arguments: None)
    monkeypatch.setattr(engine, "LocalPool", Inline)
    return commands


def stems(commands):
    return [command[2].rsplit(".", 1)[-1] + " " + command[3] for command in commands]


def test_a_sweep_trains_exports_and_measures_each_job_once(plan, tmp_path, ran):
    output, said = tmp_path / "results" / "rows.jsonl", []
    assert run_plan(plan, output, work_dir=tmp_path / "work", say=said.append) == []
    assert stems(ran) == ["main train", "main export", "rate_distortion --run"] * 2
    rows = load_rows([output])
    assert [row["rate_lambda"] for row in rows] == [0.001, 0.01]
    assert rows[0]["psnr"] == 20 and rows[0]["plan"] == "plan.yaml" and rows[0]["steps"] == 2
    assert rows[0]["peak_rss_mb"] == 1.5 and rows[0]["train_seconds"] >= 0
    assert rows[0]["settings"] == {"model.grid.num_levels": 4}
    assert str(tmp_path) not in output.read_text("utf-8")  # no paths of a machine in results
    ran.clear()
    said.clear()
    assert run_plan(plan, output, work_dir=tmp_path / "work", say=said.append) == []
    assert ran == [] and len(said) == 2 and all("there already" in line for line in said)
    assert load_rows([output]) == rows


def test_the_training_command_is_shacira_train_with_one_preset(plan, tmp_path, ran):
    run_plan(plan, tmp_path / "rows.jsonl", work_dir=tmp_path / "work", say=lambda _: None)
    command = ran[0]
    assert command[:4] == [sys.executable, "-m", "shacira_nerfstudio.cli.main", "train"]
    preset = Path(command[4]).read_text("utf-8")
    assert "model.rate_lambda: 0.001" in preset and "max_num_iterations: 2" in preset
    assert command[-3:-1] == ["rtmv-data", "--data"]


def test_only_new_jobs_run_when_a_plan_grows(plan, tmp_path, ran):
    output = tmp_path / "rows.jsonl"
    run_plan(plan, output, work_dir=tmp_path / "work", say=lambda _: None)
    ran.clear()
    plan.write_text(PLAN.replace("1.0e-2]", "1.0e-2, 0.1]"), "utf-8")
    run_plan(plan, output, work_dir=tmp_path / "work", say=lambda _: None)
    assert len(ran) == 3
    assert [row["rate_lambda"] for row in load_rows([output])] == [0.001, 0.01, 0.1]


def test_a_failed_job_is_told_and_the_others_go_on(plan, tmp_path, ran, monkeypatch):
    run, output, said = job_steps.run_logged, tmp_path / "rows.jsonl", []
    first = load_plan(plan)[0].key

    def fail(command, log, handles=()):
        if log.stem == "export" and log.parent.name == first:
            log.write_text("line\n" * 100 + "out of luck\n", "utf-8")
            return 3, None
        return run(command, log)

    monkeypatch.setattr(job_steps, "run_logged", fail)
    failed = run_plan(plan, output, work_dir=tmp_path / "work", say=said.append, retries=0)
    assert [failure.job.key for failure in failed] == [first]
    assert [row["rate_lambda"] for row in load_rows([output])] == [0.01]
    (report,) = [line for line in said if ": failed: " in line]
    assert "export ended with status 3" in report and report.endswith("out of luck")
    # The next call repeats what failed and nothing that did not.
    monkeypatch.setattr(job_steps, "run_logged", run)
    ran.clear()
    assert run_plan(plan, output, work_dir=tmp_path / "work", say=said.append) == []
    assert stems(ran) == ["main export", "rate_distortion --run"]
    assert len(load_rows([output])) == 2


def test_a_step_that_leaves_nothing_behind_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        job_steps,
        "run_logged",
        lambda command, log, handles=(): (log.write_text("done") and 0, None),
    )
    with pytest.raises(JobError, match=r"no config\.yml"):
        job_steps.run_step(tmp_path, "train", [], [tmp_path / "config.yml"])


def test_a_process_reports_status_memory_and_log(tmp_path):
    log = tmp_path / "log"
    code = "print('said'); block = bytearray(50 << 20); raise SystemExit(3)"
    status, peak = job_steps.run_logged([sys.executable, "-c", code], log)
    assert status == 3 and log.read_text("utf-8").strip() == "said"
    if sys.platform != "win32":
        assert 52 < peak < 5000
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert job_steps.run_logged([sys.executable, "-c", code], log)[0] == -9


def test_the_command_says_by_its_status_that_a_job_failed(plan, tmp_path, ran, monkeypatch, capsys):
    options = ["--output", str(tmp_path / "rows.jsonl"), "--work-dir", str(tmp_path / "work")]
    run = job_steps.run_logged
    monkeypatch.setattr(
        job_steps, "run_logged", lambda command, log, handles=(): (log.write_text("no"), None)
    )
    assert cli.main(["bench", "rd", str(plan), *options]) == 1
    assert capsys.readouterr().out.count("failed: demo") == 2
    monkeypatch.setattr(job_steps, "run_logged", run)
    assert cli.main(["bench", "rd", str(plan), *options]) == 0
    capsys.readouterr()
    assert cli.main(["bench", "rd", str(plan), *options, "--list-jobs"]) == 0
    assert capsys.readouterr().out.count(" there: demo") == 2
    plan.write_text(PLAN + "sceme: x\n", "utf-8")
    assert cli.main(["bench", "rd", str(plan), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("shacira: error: ") and len(error.strip().splitlines()) == 1


def test_results_that_are_no_rows_are_refused(plan, tmp_path, ran):
    output = tmp_path / "rows.jsonl"
    run_plan(plan, output, work_dir=tmp_path / "work", say=lambda _: None)
    good = output.read_text("utf-8").splitlines()
    changed = json.loads(good[1])
    for line, complaint in [
        ('{"key":', "line 2: expected JSON"),
        ("[]", "expected an object"),
        (good[0], "expected each job once"),
        (json.dumps({**changed, "psnr": None}), "number for psnr"),
        (json.dumps({**changed, "psnr": float("nan")}), "psnr of 0 or more"),
        (json.dumps({**changed, "bytes": 99}), "add up to bytes"),
        (json.dumps({**changed, "commit": 1}), "text for commit"),
        (json.dumps({**changed, "resolution": [8]}), r"\[width, height\]"),
    ]:
        output.write_text(good[0] + "\n" + line + "\n", "utf-8")
        with pytest.raises(ValueError, match=complaint):
            load_rows([output])


# One real job of each kind. Steps run in this process, which has loaded the host already: what
# processes do is tested above.


@pytest.fixture
def here(monkeypatch):
    """Steps of a sweep in this process."""

    def run(command, log, handles=()):
        assert command[:2] == [sys.executable, "-m"]
        monkeypatch.setattr(sys, "argv", sys.argv)  # training changes them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert not importlib.import_module(command[2]).main(command[3:])
        log.touch()
        return 0, None

    monkeypatch.setattr(job_steps, "run_logged", run)
    monkeypatch.setattr(engine, "LocalPool", Inline)
    monkeypatch.setattr(
        engine, "ProcessPoolExecutor", lambda count, mp_context: ThreadPoolExecutor(count)
    )


@pytest.mark.slow
@pytest.mark.nerfstudio
def test_a_real_sweep_measures_what_ns_eval_measures(tmp_path, here):
    from shacira_nerfstudio.codec import load_scene
    from shacira_nerfstudio.plugin.evaluate import evaluate_run

    (tmp_path / "preset.yaml").write_text("model.rate_lambda: 0.5\n", "utf-8")
    (tmp_path / "plain.yaml").write_text(
        "model.quantizer.mode: none\n"
        "model.grid.latent_dim: 4\n"
        "model.schedule.weight_qat_start: 1.0\n",
        "utf-8",
    )
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        """
scene: demo
demo_scene: {num_views: 6, size: 24}
dataparser: rtmv-data
downscale: 2
steps: 2
settings:
  model.grid.num_levels: 4
  model.grid.max_res: 64
  model.grid.log2_hashmap_size: 10
  model.sampling.occupancy_resolution: 32
  model.sampling.target_num_samples: 4096
  model.grid.latents_init_std: 2.0
runs:
  - preset: preset.yaml
    rate_lambdas: [1.0e-3]
  - preset: plain.yaml
""",
        "utf-8",
    )
    output, work = tmp_path / "rows.jsonl", tmp_path / "work"
    assert run_plan(plan, output, work_dir=work, say=lambda _: None) == []
    ours, plain = load_rows([output])
    folder = work.resolve() / ours["key"]
    file = folder / "export" / "scene.shacira"
    assert ours["bytes"] == file.stat().st_size
    assert ours["resolution"] == [12, 12] and ours["num_views"] == 2
    assert ours["rate_lambda"] == 0.001 and "0.001" in load_scene(file).meta["rate_lambda"]
    judged = evaluate_run(folder / "export" / "config.yml")
    assert ours["psnr"] == pytest.approx(judged["psnr"], abs=1e-4)
    assert ours["ssim"] == pytest.approx(judged["ssim"], abs=1e-4)
    assert "ms_ssim" not in ours  # 12 pixels are too few
    assert "lpips" not in ours or ours["lpips"] > 0
    # Latents of a standard deviation of 2 cost about 3 bits each; networks stand at 32 bits.
    assert ours["num_nonzero_latents"] > 0
    assert ours["paper_accounting_bytes"] > ours["bytes_by_part"]["weights"]
    assert ours["rate_lambda_at_end"] == 0.001
    # Everything is occupied yet: there is nothing to skip.
    other = ours["codec_ablation_bytes"]
    assert other["skipping off"] == ours["bytes"] < other["weights at 32 bits"]
    assert other["contexts and skipping off"] >= other["skipping off"]
    assert plain["method"] == "ngp-fp16" and plain["compressor"] in ("zstd-19", "xz-6")
    size = (work.resolve() / plain["key"] / "parameters.fp16").stat().st_size
    assert plain["bytes"] == size == sum(plain["bytes_by_part"].values())
    assert plain["paper_accounting_bytes"] > plain["bytes"]
    assert not (work.resolve() / plain["key"] / "export").exists()
    floats = evaluate_run(next((work.resolve() / plain["key"]).rglob("config.yml")))
    assert plain["psnr"] == pytest.approx(floats["psnr"], abs=0.1)  # half floats lose little


def test_entropy_is_that_of_each_channel():
    from shacira_nerfstudio.bench.codec_audit import entropy_bytes

    flat = np.tile(np.arange(4, dtype=np.int16), 1000)[:, None]
    assert entropy_bytes(flat) == 4000 * 2 / 8
    assert entropy_bytes(np.zeros((100, 2), np.int16)) == 0
    assert entropy_bytes(np.concatenate([flat, flat * 0], 1)) == 4000 * 2 / 8


@pytest.mark.parametrize("compressor", ["xz-6", "zstd-19"])
def test_half_floats_come_back(compressor, monkeypatch):
    from shacira_nerfstudio.bench import fp16_baseline

    if compressor == "zstd-19":
        pytest.importorskip("zstandard")
    else:
        monkeypatch.setattr(fp16_baseline.importlib.util, "find_spec", lambda name: None)
    generator = np.random.default_rng(0)
    arrays = {"a": generator.normal(size=(50, 3)), "b": np.zeros(1000), "c": np.ones(())}
    data, by_name, used = fp16_baseline.pack_halves(arrays)
    assert used == compressor
    assert sum(by_name.values()) == len(data) and by_name["b"] < 200 < by_name["a"]
    shapes = {name: array.shape for name, array in arrays.items()}
    back = fp16_baseline.unpack_halves(data, shapes, used)
    for name, array in arrays.items():
        assert np.array_equal(back[name], array.astype(np.float16).astype(np.float32))
    with pytest.raises(ValueError, match="expected"):
        fp16_baseline.unpack_halves(data + b"x", shapes, used)


def test_commits_and_machines_are_named_without_paths():
    from shacira_nerfstudio.bench import environment

    assert environment.commit() and "/" not in environment.machine()
    assert environment.date().endswith("Z") and "torch" in environment.versions()


def test_a_job_shows_all_it_is(plan):
    job = load_plan(plan)[0]
    assert job.title == "demo, shacira, preset, lambda 0.001, 2 steps, seed 42"
    plainer = dataclasses.replace(job, ablation="no x", changes={"model.networks.hidden_dim": 8})
    assert "ablation no x, hidden_dim 8" in plainer.title
