"""How far work is: a bar on a terminal, a line now and then elsewhere, nothing for short work."""

import io

import pytest

from shacira_nerfstudio import progress
from shacira_nerfstudio.progress import Progress, duration, tracked


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_short_work_leaves_no_trace_in_a_log(clock):
    log = io.StringIO()
    assert list(tracked("abc", "working", total=3, stream=log)) == ["a", "b", "c"]
    assert log.getvalue() == ""


def test_a_log_gets_a_line_now_and_then(clock):
    log = io.StringIO()
    with Progress("rendering", 100, unit="pictures", stream=log) as bar:
        for _ in range(100):
            clock[0] += 1.0
            bar.advance()
    lines = log.getvalue().splitlines()
    assert len(lines) == 10 and "\r" not in log.getvalue()
    assert lines[0] == "rendering 10 of 100 pictures, 1 min 30 s left"


def test_the_first_step_does_not_count_for_the_pace(clock):
    """It compiles."""
    bar = Progress("rendering", 11, stream=io.StringIO())
    clock[0] += 60.0
    bar.advance()
    assert bar.seconds_left(clock[0]) is None
    clock[0] += 2.0
    bar.advance()
    assert bar.seconds_left(clock[0]) == pytest.approx(2.0 * 9)


def test_a_terminal_gets_one_line_that_is_gone_at_the_end(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    screen = Terminal()
    with Progress("rendering", 4, stream=screen) as bar:
        for _ in range(3):
            clock[0] += 1.0
            bar.advance()
    shown = screen.getvalue().split("\r\x1b[K")
    assert "\n" not in screen.getvalue()
    assert shown[-1] == "" and "[##################......] 3 of 4, 1 s left" in shown[-2]
    assert max(map(len, shown)) < 60


def test_durations():
    texts = [duration(seconds) for seconds in (-1, 0.4, 59.4, 59.6, 125, 3720)]
    assert texts == ["0 s", "0 s", "59 s", "1 min 00 s", "2 min 05 s", "1 h 02 min"]
