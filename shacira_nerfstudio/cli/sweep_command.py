"""`shacira sweep`: many scenes, on this machine or a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from shacira_nerfstudio.output_files import check_output_dir, check_output_file, write_file


@dataclass
class Sweep:
    """Run a plan of scenes, qualities, rates and seeds: train, export, decode the FILE, render all
    test views, one JSON line each; ends with means over scenes.

    Whatever fails is reported and stops nobody. The same command goes on where a sweep was killed:
    finished runs are never done again, half-finished ones go on from their checkpoint. The exit
    status is 1 if a run failed. Plans are described in configs/sweeps/; `limits` in them say what
    one run may take: cpus, gpus, memory_gb, minutes, retries.
    """

    plan: Positional[Path]
    """YAML file."""
    output: Path
    """File of JSON lines; new ones are appended."""
    data_root: Path | None = None
    """Folder that holds the scenes' folders."""
    work_dir: Path = Path("sweep_work")
    """Gets runs, exports and logs, a folder per run."""
    executor: Literal["local", "ray"] = "local"
    """local: processes on this machine. ray: tasks of a Ray cluster (pip install
    'shacira_nerfstudio[sweep]')."""
    ray_address: str | None = None
    """Of the cluster; by default the one that runs on this machine or that RAY_ADDRESS names, else
    a new one of this machine."""
    ship_scenes: bool = False
    """Send scenes to the nodes of a cluster, which send files and logs back. Else --data-root and
    --work-dir are on a path that all nodes share."""
    node_dir: Path | None = None
    """Where a node keeps what is shipped; by default in its folder for temporary files."""
    num_workers: int | None = None
    """Runs at once at most; by default as many as there is room for."""
    retries: int | None = None
    """Instead of the plan's."""
    report: Path | None = None
    """Also write the table of means here, as Markdown."""
    list_jobs: bool = False
    """Only print the runs, and which of them are there."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.plan import load_plan
        from shacira_nerfstudio.bench.sweep.engine import run_plan
        from shacira_nerfstudio.bench.sweep.live_table import shown
        from shacira_nerfstudio.bench.sweep.results import keys_of

        self._check()
        jobs = load_plan(self.plan, self.data_root)
        if self.list_jobs:
            done = keys_of(self.output)
            for job in jobs:
                print(f"{job.key} {'there' if job.key in done else 'to do'}: {job.title}")
            return 0
        check_output_dir(self.output.parent)
        check_output_dir(self.work_dir)
        if self.report is not None:
            check_output_file(self.report)
        with shown() as (say, show):
            failures = run_plan(
                self.plan,
                self.output,
                data_root=self.data_root,
                work_dir=self.work_dir,
                executor=self._executor(),
                retries=self.retries,
                say=say,
                show=show,
            )
        text = _report(jobs, self.output)
        print(text)
        if self.report is not None:
            write_file(self.report, f"{text}\n")
        for failure in failures:
            print(f"failed: {failure.job.title} ({failure.job.key}): {_first_line(failure.error)}")
        return 1 if failures else 0

    def _check(self) -> None:
        if self.executor == "local" and (self.ray_address is not None or self.ship_scenes):
            raise ValueError("expected --executor ray with --ray-address and --ship-scenes")
        for name, value, least in (
            ("--num-workers", self.num_workers, 1),
            ("--retries", self.retries, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"expected {name} of {least} or more, got {value}")

    def _executor(self) -> Any:
        if self.executor == "local":
            from shacira_nerfstudio.bench.sweep.local_pool import LocalPool

            return LocalPool(self.num_workers)
        from shacira_nerfstudio.bench.sweep.ray_pool import RayPool

        return RayPool(
            self.ray_address,
            ships_scenes=self.ship_scenes,
            node_dir=self.node_dir,
            num_workers=self.num_workers,
        )


def _report(jobs: list[Any], output: Path) -> str:
    """Means over the scenes of a plan."""
    from shacira_nerfstudio.bench.report.collection import collection_text
    from shacira_nerfstudio.bench.report.rows import load_rows

    keys = {job.key for job in jobs}
    rows = load_rows([output]) if output.exists() else []
    mine = [row for row in rows if row["key"] in keys]
    return collection_text(mine, [job.scene for job in jobs])


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
