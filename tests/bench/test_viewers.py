"""Figures of the viewers against their bars, and what cannot be measured. The measurements
themselves take a browser and minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

from shacira_nerfstudio.bench.viewers import driver
from shacira_nerfstudio.cli import main as cli

GOLDEN = Path(__file__).parents[1] / "golden"
FIRST, FRAMES = "view: first picture [s]", "view: frames/s while moving"


@pytest.fixture
def figures(monkeypatch):
    """Lets the viewer's figures be given."""
    found = {}
    monkeypatch.setitem(driver.WAYS, "view", lambda file: dict(found))
    return found


def measured(*arguments):
    return cli.main(["bench", "viewers", str(GOLDEN / "v1_tiny.shacira"), *arguments])


def test_bars_hold_in_their_direction(figures, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    figures.update({FIRST: 4.9, FRAMES: 8.1, "view: listens [s]": 99.0})
    assert measured("--only", "view", "--output", str(output)) == 0
    assert "MISSED" not in capsys.readouterr().out and output.read_text().count("\n") == 1
    for missed in ({FIRST: 5.1}, {FRAMES: 7.9}):
        figures.update({FIRST: 4.9, FRAMES: 8.1, **missed})
        assert measured("--only", "view") == 1
        [line] = [line for line in capsys.readouterr().out.splitlines() if "MISSED" in line]
        assert next(iter(missed)) in line


def test_a_capture_has_bars_of_its_own():
    name = f"view: {driver.SIDE} x {driver.SIDE} at full quality after rest [s]"
    file = GOLDEN / "v1_tiny.shacira"
    assert driver._row(file, {name: 5.0}, is_capture=False)["missed"] == [name]
    assert driver._row(file, {name: 5.0}, is_capture=True)["missed"] == []
    render = next(name for name in driver.BARS if name.startswith("render"))
    assert driver._row(file, {render: 5000.0}, is_capture=True)["missed"] == []


def test_what_cannot_be_measured(capsys):
    assert measured("--only", "vew") == 2
    assert "expected ways of view, html, render, got vew" in capsys.readouterr().err
    assert cli.main(["bench", "viewers", str(GOLDEN / "v1_tiny_image.shacira")]) == 2
    assert "expected a radiance field" in capsys.readouterr().err


def test_without_a_browser(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("SHACIRA_CHROMIUM", raising=False)
    assert measured("--only", "view") == 2
    assert "chromium" in capsys.readouterr().err


WAITS = """
import os, signal, subprocess, sys
from shacira_nerfstudio.bench.viewers.limits import within

def sleeper():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])

process = sleeper()
try:
    with within(1000, "nothing"):
        pass
    try:
        with within(1000, "nothing"):
            raise KeyError
    except KeyError:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGSTOP)  # such a one does not even hear that it shall end
    try:
        with within(0.3, "a picture"):
            process.wait(100)
    except RuntimeError as error:
        print(error)
    assert process.returncode == -signal.SIGKILL
finally:
    process.kill()
    process.wait()
"""


def test_what_hangs_is_ended_and_named():
    # In a process of its own, as all that it has started are ended: such as a browser of tests.
    found = subprocess.run(
        [sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=120, check=True
    )
    assert found.stdout == "expected a picture within 0 s, it came too late\n"
