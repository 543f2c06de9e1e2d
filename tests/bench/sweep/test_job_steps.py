"""Steps of a run that goes on where it was killed."""

import json
import zipfile

import pytest

from shacira_nerfstudio.bench.plan import load_plan
from shacira_nerfstudio.bench.sweep import job_steps
from shacira_nerfstudio.bench.sweep.job_steps import newest_checkpoint, run_job

FIGURES = {"psnr": 20.0, "bytes": 3, "trained_steps": 77}


def write_checkpoint(folder, step, content=b"weights " * 100):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"step-{step:09d}.ckpt", "w") as archive:
        archive.writestr("data", content)


@pytest.fixture
def run(sweep, monkeypatch):
    """Runs a job of 1000 steps; returns its row and the commands of its steps."""
    text = sweep.plan.read_text("utf-8").replace("steps: 2", "steps: 1000")
    sweep.plan.write_text(text, "utf-8")
    job, folder = load_plan(sweep.plan, sweep.data)[0], sweep.work / "run"
    trained = folder / "train" / job.scene / "shacira" / "run"
    commands = {}

    def run_logged(command, log, handles=()):
        commands[log.stem] = command
        log.touch()
        trained.mkdir(parents=True, exist_ok=True)
        (folder / "export").mkdir(exist_ok=True)
        (trained / "config.yml").write_text("a: 1\nmax_num_iterations: 1000\n", "utf-8")
        for name in ("scene.shacira", "config.yml"):
            (folder / "export" / name).touch()
        (folder / "figures.json").write_text(json.dumps(FIGURES), "utf-8")
        return 0, None

    monkeypatch.setattr(job_steps, "run_logged", run_logged)
    folder.mkdir(parents=True)

    def run():
        commands.clear()
        row = run_job(job, data=sweep.data / job.scene, folder=folder, scenes=sweep.work)
        return row, dict(commands)

    run.checkpoints, run.folder, run.config = (
        trained / "nerfstudio_models",
        folder,
        trained / "config.yml",
    )
    return run


def test_training_goes_on_from_the_newest_whole_checkpoint(run):
    write_checkpoint(run.checkpoints, 499)
    (run.checkpoints / "step-000000999.ckpt").write_bytes(b"PK half of one")
    row, commands = run()
    assert commands["train"][commands["train"].index("--load-dir") + 1] == str(run.checkpoints)
    assert row["note"] == "resumed from step 500" and row["steps"] == 1000
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000000499.ckpt"]


def test_training_that_had_ended_is_not_done_again(run):
    """It was killed between its last checkpoint and the note that it had ended."""
    write_checkpoint(run.checkpoints, 999)
    run.config.write_text("max_num_iterations: 1000\n", "utf-8")
    row, commands = run()
    assert list(commands) == ["export", "measure"] and "killed after training" in row["note"]


def test_what_has_begun_without_a_checkpoint_begins_anew(run):
    run.checkpoints.mkdir(parents=True)
    row, commands = run()
    assert "--load-dir" not in commands["train"] and "note" not in row
    assert run() == (row, {})  # all is there


def test_a_damaged_checkpoint_is_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 499)
    path = tmp_path / "step-000000499.ckpt"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    assert newest_checkpoint(tmp_path) is None and not path.exists()


def test_a_scene_that_is_not_there_is_not_tried_again(run, sweep):
    (sweep.data / "a").rmdir()
    with pytest.raises(job_steps.JobError, match="expected a folder") as error:
        run()
    assert error.value.is_final
