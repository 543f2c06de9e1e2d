"""The session on a machine with a card, without one: limits, rows, and what a failure costs."""

import json
import os
import sys
import time

import pytest

from shacira_nerfstudio.bench import cuda_session
from shacira_nerfstudio.bench.cuda_session import SESSION_MINUTES, STAGES, Stage, run_session
from shacira_nerfstudio.cli import main as cli

CARD = "A card, 24576 MiB, 570.1"
NCU = """==PROF== Connected to process 7
"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","_forward_kernel","Duration","us","31.5"
"0","_forward_kernel","DRAM Throughput","%","62.0"
"0","_forward_kernel","Something else","","1"
"1","_backward_kernel","Achieved Occupancy","%","48.1"
"""


def is_open_elsewhere(reader):
    """Whether somebody could still write to a pipe that is read without waiting."""
    try:
        return os.read(reader, 1) != b""
    except BlockingIOError:
        return True


def python(code):
    return [sys.executable, "-c", code]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs stages of these names and functions; returns failures, rows and lines."""
    monkeypatch.setattr(cuda_session, "find_gpu", lambda: CARD)
    output = tmp_path / "out.jsonl"

    def run(stages, **options):
        monkeypatch.setattr(cuda_session, "STAGES", stages)
        lines = []
        where = {"work_dir": tmp_path / "work", "say": lines.append}
        failed = run_session(tmp_path, output, **where, **options)
        return failed, [json.loads(line) for line in output.read_text("utf-8").splitlines()], lines

    return run


def test_a_failure_loses_nothing_and_what_is_done_is_not_done_again(run):
    calls = []

    def stage(name, code):
        def figures(session):
            calls.append(name)
            return {"said": session.run(name, python(code)).strip()}

        return Stage(600, figures)

    stages = {"good": stage("good", "print('well')"), "bad": stage("bad", "print(1); 1 / 0")}
    stages["other"] = stage("other", "import os; print(os.environ['TERM'])")
    failed, rows, lines = run(stages)
    assert failed == ["bad"] and [row["is_done"] for row in rows] == [True, False, True]
    assert rows[0]["figures"] == {"said": "well"} and rows[2]["figures"] == {"said": "dumb"}
    assert all(row["gpu"] == CARD and row["seconds"] >= 0 for row in rows)
    assert {"commit", "date", "machine", "versions"} <= set(rows[1])
    assert "ended with status 1" in rows[1]["error"] and "ZeroDivisionError" in rows[1]["error"]
    assert lines[0] == 'good: {"said": "well"}'
    failed, rows, lines = run(stages)
    assert calls == ["good", "bad", "other", "bad"] and len(rows) == 4
    assert lines[0] == "good: there already" and failed == ["bad"]


def test_what_takes_too_long_is_ended_with_its_children(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    sleep = f"import time; pipe = open({str(tmp_path / 'pipe')!r}, 'w'); time.sleep(600)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleep!r}])"
    slow = Stage(0.5, lambda session: {"said": session.run("slow", python(child))})
    failed, rows, _ = run({"slow": slow, "next": Stage(600, lambda session: {})})
    give_up = time.monotonic() + 120
    while (is_held := is_open_elsewhere(reader)) and time.monotonic() < give_up:
        time.sleep(0.05)
    os.close(reader)
    assert not is_held
    assert failed == ["slow"] and "slow took too long" in rows[0]["error"]
    assert rows[1]["is_done"]
    failed, rows, _ = run({"never": Stage(600, lambda session: {})}, minutes=1e-9)
    assert failed == ["never"] and rows[-1]["error"] == "no time is left"


def test_all_stages_fit_into_the_time_and_name_what_they_lack(run):
    assert sum(stage.limit_s for stage in STAGES.values()) <= 60 * SESSION_MINUTES < 30 * 60
    names = [name for name in STAGES if name not in ("tests", "profile")]
    failed, rows, _ = run(dict(STAGES), only=names)
    assert failed == names
    expected = {
        **dict.fromkeys(["throughput", "lego", "bear", "fox"], "expected a folder"),
        "frames": "expected the file of the stage lego",
        "kernels": r"expected",
    }
    assert all(expected[row["stage"]] in row["error"] for row in rows)
    with pytest.raises(ValueError, match=r"expected stages of tests, throughput.+got lions"):
        run(dict(STAGES), only=["lions"])


def test_any_error_costs_its_own_stage_alone(run):
    def figures(session):
        raise TypeError("what nobody thought of")

    failed, rows, _ = run({"odd": Stage(9, figures), "next": Stage(9, lambda session: {})})
    assert failed == ["odd"] and rows[0]["error"] == "TypeError: what nobody thought of"
    assert rows[1]["is_done"]


def test_figures_are_held_against_the_bars(run):
    found = {"metrics": {"psnr": 35.6}, "bytes": 600_001, "train_seconds": 240.0}
    _, rows, lines = run({"lego": Stage(9, lambda session: found)})
    assert [bar["is_met"] for bar in rows[0]["bars"]] == [True, False, True]
    assert lines[1:] == [
        "  dB: 35.6, bar 35.5: met",
        "  bytes: 6e+05, bar 600,000: missed",
        "  seconds: 240, bar 240: met",
    ]
    assert set(cuda_session.BARS) < set(STAGES)


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("_look_up_kernel", "_look_up_kernel"),
        (
            "void at::native::vectorized<4, at::native::Add>(int, float*)",
            "vectorized",
        ),
        ("void (anonymous namespace)::sum<float, 512>(float*)", "sum"),
        ("sm90_gemm_bf16_128x64", "sm90_gemm_bf16_128x64"),
    ],
)
def test_names_that_ncu_compares(kernel, name):
    assert cuda_session.function_name(kernel) == name


@pytest.mark.parametrize("printed", ["", NCU], ids=["no metrics", "metrics"])
def test_ncu_looks_at_the_slowest_kernels_late_in_training(run, tmp_path, monkeypatch, printed):
    def kernel(name, per_step):
        return {"name": name, "per_step": per_step, "us_per_step": 9.0}

    rows = [kernel("Memcpy DtoD", 1.0), kernel("void a::b<3>(int)", 2.0), kernel("c", 0.5)]
    work = tmp_path / "work"
    work.mkdir()
    (work / "profile_steps.log").write_text(json.dumps({"kernels": [*rows, kernel("d", 1.0)]}))
    (tmp_path / "lego").mkdir()
    (tmp_path / "lego" / "transforms_train.json").write_text("{}")
    monkeypatch.setattr(cuda_session.shutil, "which", lambda name: f"/bin/{name}")
    commands = []
    monkeypatch.setattr(
        cuda_session.Session, "run", lambda self, name, command: commands.append(command) or printed
    )
    failed, rows, _ = run({"kernels": Stage(9, cuda_session.kernels)})
    (command,) = commands
    assert "regex:^(b|c)$" in command and command[command.index("--launch-skip") + 1] == "150"
    assert failed == ([] if printed else ["kernels"])
    if printed:
        assert rows[0]["figures"]["kernels"] == ["b", "c"]
        assert len(rows[0]["figures"]["launches"]) == 2
    else:
        assert "expected metrics of ['b', 'c'] from ncu, got none" in rows[0]["error"]


def test_metrics_of_ncu():
    assert cuda_session.ncu_launches(NCU) == [
        {"kernel": "_forward_kernel", "Duration": "31.5 us", "DRAM Throughput": "62.0 %"},
        {"kernel": "_backward_kernel", "Achieved Occupancy": "48.1 %"},
    ]


def test_a_machine_without_a_card_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["--data-root", str(tmp_path), "--output", str(tmp_path / "o.jsonl")]
    arguments += ["--work-dir", str(tmp_path / "work")]
    assert cli.main(["bench", "cuda", *arguments]) == 2
    assert "expected a machine with an NVIDIA card" in capsys.readouterr().err
