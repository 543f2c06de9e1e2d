"""Rows that are measured in fresh processes: first uses, and what training needs of memory."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from shacira_nerfstudio.bench.throughput.timing import Row, Timed, WrongResultError
from shacira_nerfstudio.bench.throughput.training import SceneRuns

WORKER = "shacira_nerfstudio.bench.throughput.worker"
SMALL_TABLE, LARGE_TABLE = 19, 22
"""Log2 of a level's entries: the usual one, and eight times that."""
MEMORY_STEPS = 32
"""Timed steps of a run that is measured for memory: two updates of the occupancy."""
MEMORY_RUNS = 2
"""Runs of either size, in turns; most of their time is warm-up."""


def run_worker(
    task: str, arguments: dict[str, Any], *, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """Runs a task of :mod:`worker` in a fresh process and returns what it says.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    run = subprocess.run(
        [sys.executable, "-m", WORKER, task, json.dumps(arguments)],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        tail = "\n".join((run.stdout + run.stderr).splitlines()[-15:])
        raise RuntimeError(f"{task} failed with status {run.returncode}:\n{tail}")
    return json.loads(run.stdout.splitlines()[-1])


def compile_time(runs: SceneRuns) -> Row:
    """What compiling costs the first process ever, the ones after it, and other sizes."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {"NUMBA_CACHE_DIR": cache}
        fresh = run_worker("compile_time", {}, environment=environment)
        cached = run_worker("compile_time", {}, environment=environment)
    compiled = fresh["first_s"] - fresh["again_s"]
    recompiled = fresh["other_sizes_s"] - fresh["again_s"]
    # Compiling one kernel takes a second or more; everything at tiny sizes takes some tenths.
    if recompiled > 0.5 * compiled:
        raise WrongResultError(
            f"other sizes take {recompiled:.1f} s longer than the same again: they were compiled"
        )
    return Row(
        name="compile",
        unit="s",
        ours=compiled,
        rival=None,
        ratio=None,
        ours_what="first use of everything less the same again: train, encode, decode, render",
        rival_what="torch is not compiled",
        check={"other sizes": {"extra_s": recompiled, "because": "nothing is compiled per size"}},
        sizes={"steps": 3},
        threads={"ours": runs.num_threads},
        backend=fresh["backend"],
        more={"cached_s": cached["first_s"] - cached["again_s"], "fresh": fresh, "cached": cached},
    )


def large_table(runs: SceneRuns) -> Row:
    """Step time and peak memory with eight times as many entries per level, processes in turns."""
    results: dict[int, list[dict[str, Any]]] = {SMALL_TABLE: [], LARGE_TABLE: []}
    for _ in range(MEMORY_RUNS):
        for size, of_size in results.items():
            arguments = {
                "data": str(runs.data),
                "dataparser": runs.dataparser,
                "warmup_steps": runs.warmup_steps,
                "num_steps": MEMORY_STEPS,
                "options": {**runs.options, "grid.log2_hashmap_size": size},
            }
            of_size.append(run_worker("train_memory", arguments))
    seconds = {
        size: Timed(tuple(itertools.chain.from_iterable(result["seconds"] for result in of_size)))
        for size, of_size in results.items()
    }
    small, large = seconds[SMALL_TABLE].median, seconds[LARGE_TABLE].median
    more: dict[str, Any] = {"slowdown": large / small}
    for size, of_size in results.items():
        for name in ("peak_rss_bytes", "setup_peak_rss_bytes"):
            more[f"{name}_{size}"] = max(result[name] for result in of_size)
        for name in ("mean_step_s", "samples_per_step", "num_entries"):
            more[f"{name}_{size}"] = statistics.median(result[name] for result in of_size)
    return Row(
        name="large_table",
        unit="s/step",
        ours=large,
        rival=small,
        ratio=small / large,
        ours_what=f"shacira with 2^{LARGE_TABLE} entries per level, in a process of its own",
        rival_what=f"shacira with 2^{SMALL_TABLE}",
        check=runs.check_step(),
        sizes={"num_steps": MEMORY_STEPS, "warmup_steps": runs.warmup_steps},
        threads={"ours": runs.num_threads, "rival": runs.num_threads},
        backend=results[LARGE_TABLE][-1]["backend"],
        ours_times_s=seconds[LARGE_TABLE].as_dict(),
        rival_times_s=seconds[SMALL_TABLE].as_dict(),
        more=more,
    )
