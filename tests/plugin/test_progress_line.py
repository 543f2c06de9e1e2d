"""Stages of a long command, on the error stream."""

import io
import sys

import pytest

from shacira_nerfstudio.plugin.progress_line import ProgressLine


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def stages(progress):
    progress("encode latents")
    for number in range(3):
        progress("choose bits", number / 3)
    progress("write")


def test_a_log_gets_a_line_for_each_stage(capsys):
    with ProgressLine("export") as progress:
        stages(progress)
    out, err = capsys.readouterr()
    assert out == "" and [line.partition(": ")[2] for line in err.splitlines()] == [
        *("encode latents", "choose bits", "write"),
    ]
    assert all(line.startswith("export, 0 s: ") for line in err.splitlines())


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    with ProgressLine("export") as progress:
        stages(progress)
        assert len(progress._bar.tasks) == 1 and "write" in progress._bar.tasks[0].description
    assert "export: write" in terminal.getvalue()


def test_the_bar_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    with pytest.raises(ValueError, match="no"), ProgressLine("export") as progress:
        progress("encode latents")
        raise ValueError("no")
    assert not progress._bar.live.is_started
