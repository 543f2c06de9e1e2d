"""What a person sees while training."""

import io
import re

import pytest
from nerfstudio.configs.base_config import LocalWriterConfig
from nerfstudio.utils import writer
from rich.console import Console
from tiny_runs import make_config, make_trainer

from shacira_nerfstudio.plugin import console_line
from shacira_nerfstudio.plugin.config import shacira_method
from shacira_nerfstudio.plugin.console_line import TrainingLines

LINE = re.compile(
    r"\d+ \(\d+%\) of \d+ steps, train [\d.]+ dB, file [\d,]+ kB, [\d,.]+ k rays/s, .*\d+ s left"
)


@pytest.fixture
def run(monkeypatch):
    """Steps of half a second with the host's events; returns what is printed."""

    def run(num_steps, *, is_terminal=True, metrics=None, seconds=0.5, banner=None, begin=0):
        now = [0.0]
        console = Console(file=io.StringIO(), force_terminal=is_terminal, width=80)
        monkeypatch.setattr(console_line, "CONSOLE", console)
        monkeypatch.setattr(console_line.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(writer, "GLOBAL_BUFFER", {"max_iter": num_steps})
        lines = TrainingLines(LocalWriterConfig(enable=True), banner_messages=banner)
        for step in range(begin, num_steps):
            now[0] += seconds
            name = writer.EventName.TRAIN_RAYS_PER_SEC.value
            events = [{"name": name, "event": 41234.0, "step": step}]
            if step % 10 == 0:
                found = {"psnr": 20.0 + step % 20, "estimated_bytes": 123_456.0, **(metrics or {})}
                events.append({"name": "Train Metrics Dict", "event": found, "step": step})
            monkeypatch.setattr(writer, "EVENT_STORAGE", events)
            lines.write_stats_log(step)
        lines.write_stats_log(num_steps)  # of the whole time, at the end
        return console.file.getvalue().splitlines()

    return run


def test_a_line_every_few_seconds_on_a_terminal(run):
    lines = run(100)
    assert 9 <= len(lines) <= 12
    assert lines[2] == (
        "25 (25%) of 100 steps, train 20.00 dB, file 123 kB, 41.2 k rays/s, 38 s left"
    )
    assert lines[-1].startswith("100 (100%)") and lines[-1].endswith("0 s left")
    assert all("(" in line and "left" in line for line in lines)


def test_few_lines_elsewhere(run):
    assert len(run(1000, is_terminal=False)) <= 22
    assert len(run(1000, is_terminal=True)) > 90
    # Long steps: somebody who looks at the log shall see that it goes on.
    assert len(run(100, is_terminal=False, seconds=100.0)) > 45


def test_a_clock_and_held_out_views_are_in_it(run):
    lines = run(60, metrics={"num_steps": 240.0})
    assert lines[-1].split(",")[0].endswith("of 240 steps")
    assert "min" in lines[1]


def test_a_run_that_is_resumed_says_where_it_is(run):
    assert run(100, begin=80)[0].startswith("85 (85%) of 100 steps, ")


def test_the_address_of_the_viewer_is_said_once(run):
    lines = run(100, banner=["Viewer running at [link]: http://localhost:7007"])
    assert [line for line in lines if "7007" in line] == [lines[0]] and "[link]" in lines[0]


@pytest.mark.nerfstudio
def test_the_host_prints_it_in_place_of_its_table(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(writer, "EVENT_WRITERS", [])  # of other tests
    config = make_config(scene, tmp_path)
    assert config.logging == shacira_method.config.logging
    make_trainer(config).train()
    printed = capsys.readouterr().out
    assert "Train Iter (time)" not in printed and "% Done" not in printed
    lines = [line for line in printed.splitlines() if LINE.fullmatch(line.strip())]
    assert lines and lines[-1].startswith("80 (100%) of 80 steps")
    assert len(lines) < 22
