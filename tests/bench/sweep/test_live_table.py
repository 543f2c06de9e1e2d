"""What is shown of a sweep while it runs."""

import io
import sys
from collections import deque

from shacira_nerfstudio.bench.plan import load_plan
from shacira_nerfstudio.bench.sweep.engine import Failure, Progress
from shacira_nerfstudio.bench.sweep.live_table import rows_of, shown, summary_line


def progress_of(sweep):
    """One done, one running for a minute, one failed."""
    jobs = load_plan(sweep.plan, sweep.data)
    progress = Progress(jobs, sweep.work, running={jobs[1].key: 40.0}, num_done=1)
    progress.failures.append(Failure(jobs[2], "why"))
    folder = progress.folder(jobs[1].key)
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("step 5 of 9 [ok]\n", "utf-8")
    return progress


def test_counts_and_what_runs(sweep):
    progress = progress_of(sweep)
    assert summary_line(progress, 61) == "1 of 3 done, 1 run, 0 wait, 1 failed; 1 min 01 s"
    assert rows_of(progress, 100.0) == [
        (progress.jobs[1].title, "1 min 00 s", "train: step 5 of 9 [ok]")
    ]
    progress.waiting = deque(progress.jobs)
    assert "3 wait" in summary_line(progress, 0)


def test_more_runs_than_lines(sweep):
    progress = progress_of(sweep)
    job = progress.jobs[0]
    copies = [type(job)(**{**vars(job), "seed": seed}) for seed in range(20)]
    progress.jobs = copies
    progress.running = {copy.key: 0.0 for copy in copies}
    rows = rows_of(progress, 1.0)
    assert len(rows) == 17 and rows[-1] == ("and 4 more", "", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_table_and_a_log_gets_lines(sweep, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with shown() as (say, show):
        say("[1/3] begins [b]")
        show(progress_of(sweep))
        text = terminal.getvalue()
    assert "[1/3] begins [b]" in text and "1 of 3 done" in text and "step 5 of 9 [ok]" in text
    log = io.StringIO()
    monkeypatch.setattr(sys, "stdout", log)
    with shown() as (say, show):
        say("[1/3] begins")
        show(Progress([], sweep.work))
    assert log.getvalue() == "[1/3] begins\n"
