"""Work in a thread, whose results come when they are asked for; what the compressor does with it
is in test_compressor.py."""

import threading

import pytest

from shacira_nerfstudio.compression.background_refresh import BackgroundWork


def test_one_piece_of_work_at_a_time():
    work, found, gate = BackgroundWork(), [], threading.Event()
    assert work.is_idle
    work.install()  # nothing to install
    work.begin(lambda: gate.wait(120) and threading.current_thread().name, found.append)
    assert not work.is_idle
    work.install()  # not done yet
    assert not found
    with pytest.raises(RuntimeError, match="expected earlier work"):
        work.begin(lambda: None, found.append)
    gate.set()
    work.install(waits=True)
    assert work.is_idle and found[0].startswith("shacira_background")


def test_errors_come_out_and_dropped_results_do_not():
    work, found = BackgroundWork(), []
    work.begin(lambda: 1 // 0, found.append)
    with pytest.raises(ZeroDivisionError):
        work.install(waits=True)
    work.begin(lambda: 1, found.append)
    work.drop()
    work.install(waits=True)
    assert work.is_idle and not found
