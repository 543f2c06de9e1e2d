"""`shacira bench`: options of what it measures and shows, and what is printed."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from shacira_nerfstudio.cli.command_union import command_union
from shacira_nerfstudio.output_files import check_output_dir, check_output_file, write_file


@dataclass
class Throughput:
    """Measure how fast the parts are, beside Nerfstudio's own torch path and other coders.

    Each result is held against the `reference` backend before it is timed. Run it on a machine
    that does nothing else.
    """

    data: Path
    """A scene to train on and render: a folder."""
    output: Path
    """File for the results, a JSON object per line."""
    scene_file: Path | None = None
    """The .shacira file to render; by default what has been learned by then."""
    dataparser: str | None = None
    """Nerfstudio data parser of the scene; by default the one that its files suggest."""
    only: tuple[str, ...] = ()
    """Rows to measure, by name; by default all."""
    repeats: int = 5
    """Times each side is run, in turns."""
    warmup_steps: int = 300
    """Training steps before the first that is timed: the occupancy grid settles in them."""
    device: str = "cpu"
    """Where to measure, cpu or cuda."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.throughput.driver import run_throughput

        check_output_dir(self.output.parent)
        run_throughput(
            self.data,
            self.output,
            scene_file=self.scene_file,
            dataparser=self.dataparser,
            only=self.only,
            repeats=self.repeats,
            warmup_steps=self.warmup_steps,
            device=self.device,
        )
        return 0


@dataclass
class RateDistortion:
    """Run a plan of trainings, one after the other with the whole machine: export each, decode the
    FILE, render all test views, write one JSON line. `shacira sweep` runs several at once.

    Jobs whose line is there already are skipped. The exit status is 1 if a job failed; the others
    are run all the same.
    """

    plan: Positional[Path]
    """YAML file, see configs/sweeps/."""
    output: Path
    """File of JSON lines; new ones are appended."""
    data_root: Path | None = None
    """Folder that holds the scenes' folders."""
    work_dir: Path = Path("bench_work")
    """Gets runs, exports and logs, a folder per job. What a job had finished there before it failed
    is not repeated."""
    list_jobs: bool = False
    """Only print the jobs, and which of them are there."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.plan import load_plan
        from shacira_nerfstudio.bench.sweep.engine import run_plan
        from shacira_nerfstudio.bench.sweep.results import keys_of

        if self.list_jobs:
            done = keys_of(self.output)
            for job in load_plan(self.plan, self.data_root):
                print(f"{job.key} {'there' if job.key in done else 'to do'}: {job.title}")
            return 0
        check_output_dir(self.output.parent)
        check_output_dir(self.work_dir)
        failures = run_plan(
            self.plan,
            self.output,
            data_root=self.data_root,
            work_dir=self.work_dir,
            retries=0,
        )
        for failure in failures:
            print(f"failed: {failure.job.title} ({failure.job.key})")
        return 1 if failures else 0


@dataclass
class Report:
    """Make tables, plots and 3DGS.zip CSV files of results: RESULTS.md, rd.html, PNG, csv/."""

    results: Positional[tuple[Path, ...]]
    """Files of JSON lines, as `shacira bench rd` writes them."""
    output: Path
    """Folder for all of it."""
    readme: Path | None = None
    """README above that folder whose lines between the marks for results are replaced, too."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.report.readme_block import write_readme
        from shacira_nerfstudio.bench.report.results_page import write_report
        from shacira_nerfstudio.bench.report.rows import load_rows

        for path in write_report(self.results, self.output):
            print(path)
        if self.readme is not None:
            write_readme(load_rows(self.results), self.readme, self.output)
            print(self.readme)
        return 0


@dataclass
class Codec:
    """Show how good the coding of files is: beside the entropies of their integers and beside other
    coders of the same integers.

    The exit status is 1 if a file misses a bar of what a trained scene should reach.
    """

    files: Positional[tuple[Path, ...]]
    """The .shacira files."""
    output: Path | None = None
    """File of JSON lines to write, one per file."""
    json: bool = False
    """Print these lines instead of a table."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.codec_audit import audit, audit_text, missed_bars

        if self.output is not None:
            check_output_file(self.output)
        lines, has_missed = [], False
        for path in self.files:
            figures = audit(path.read_bytes())
            missed = missed_bars(figures)
            has_missed |= bool(missed)
            lines.append(json.dumps({"file": str(path), "missed": missed, **figures}))
            print(lines[-1] if self.json else audit_text(str(path), figures))
        if self.output is not None:
            write_file(self.output, "".join(f"{line}\n" for line in lines))
        return 1 if has_missed else 0


@dataclass
class Cuda:
    """Run all that needs a machine with an NVIDIA card, in less than half an hour: tests, speed of
    operations, steps and pictures beside plain torch, lego, bear and fox in full, and what the
    slowest kernels wait for.

    Each stage has a time limit and writes its row at once, with the name of the card; a later call
    skips those that are done. The exit status is 1 if a stage failed.
    """

    data_root: Path
    """Folder that holds lego, bear and fox."""
    output: Path
    """File of JSON lines; new ones are appended."""
    work_dir: Path = Path("cuda_work")
    """Gets logs, runs and files."""
    only: tuple[str, ...] = ()
    """Stages to run, by name; by default all."""
    minutes: float = 28.0
    """For all stages together."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.cuda_session import run_session

        check_output_dir(self.output.parent)
        check_output_dir(self.work_dir)
        failed = run_session(
            self.data_root,
            self.output,
            work_dir=self.work_dir,
            only=self.only,
            minutes=self.minutes,
            say=lambda line: print(line, flush=True),
        )
        return 1 if failed else 0


@dataclass
class Viewers:
    """Measure how long people wait for `shacira view`, `html` and `render`, in a real browser.

    The browser is Chromium, which draws in software: numbers of a machine without a GPU. Needs
    playwright. Run it on a machine that does nothing else, twice after an update: the first run
    compiles. The exit status is 1 if a bar was missed.
    """

    files: Positional[tuple[Path, ...]]
    """The .shacira files."""
    output: Path | None = None
    """File of JSON lines to write, one per file."""
    only: tuple[str, ...] = ()
    """Of view, html and render, those to measure; by default all."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.viewers.driver import measure_viewers

        if self.output is not None:
            check_output_file(self.output)
        rows = measure_viewers(self.files, self.output, self.only)
        return 1 if any(row["missed"] for row in rows) else 0


@dataclass
class Images:
    """Measure pictures: files of this package, decoded, beside ordinary codecs and a plain
    Instant-NGP on the same pixels, one JSON line per picture, method and setting.

    What is in the output already is not measured again. Ends with a table of means.
    """

    data: Path
    """Folder of pictures, RGB of 8 bits."""
    output: Path
    """File of JSON lines."""
    methods: tuple[str, ...] = ("ours", "rivals")
    """Of ours, paper (the paper's choices), ngp (plain Instant-NGP in half floats), rivals (what
    Pillow writes)."""
    quality: Literal["draft", "normal", "max"] = "normal"
    """Of ours: how long training takes."""
    rate_lambdas: tuple[float, ...] = (8e-3, 4e-3, 2e-3, 1e-3)
    """Of ours: weights of the rate, one point of the curve each."""
    paper_log2_tables: tuple[int, ...] = (10, 11, 12)
    """Of the paper's choices, and of a plain Instant-NGP: sizes of tables, one point each."""
    num_steps: int = 0
    """Steps of training; 0 means what the quality takes."""
    limit: int = 0
    """At most so many pictures; 0 means all."""
    pages: Path | None = None
    """Folder for a plot and a page of tables, called as the output."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.pictures import run
        from shacira_nerfstudio.bench.pictures.summary import summary_text
        from shacira_nerfstudio.pictures.options import PictureOptions

        check_output_file(self.output)
        unknown = set(self.methods) - {"ours", "paper", "ngp", "rivals"}
        if unknown or not self.methods:
            raise ValueError(f"expected methods of ours, paper, ngp, rivals, got {self.methods}")
        common = {"quality": self.quality, "num_steps": self.num_steps}
        jobs = list(run.rivals()) if "rivals" in self.methods else []
        for weight in self.rate_lambdas if "ours" in self.methods else ():
            options = PictureOptions(rate_lambda=weight, **common)  # pyright: ignore
            jobs.append(run.ours(f"ours, {self.quality}", f"{weight:g}", options))
        for log2_table in self.paper_log2_tables:
            sizes = {"paper_log2_table": log2_table, **common}
            if "paper" in self.methods:
                options = PictureOptions(choices="paper", **sizes)  # pyright: ignore
                jobs.append(run.ours("the paper's choices", str(log2_table), options))
            if "ngp" in self.methods:
                options = PictureOptions(choices="ngp", paper_levels=16, **sizes)  # pyright: ignore
                jobs.append(run.plain_ngp(str(log2_table), options))
        rows = run.run_images(
            self.data, self.output, methods=jobs, limit=self.limit, progress=_to_stderr
        )
        print(summary_text(rows))
        _write_pages(rows, self.pages, name=self.output.stem, is_video=False)
        return 0


@dataclass
class Video:
    """Measure a video: files of this package, decoded, beside a plain Instant-NGP and x264 and x265
    on the same frames, one JSON line per method and setting.

    What is in the output already is not measured again. Ends with a table.
    """

    data: Path
    """A video, or a folder of frames."""
    output: Path
    """File of JSON lines."""
    methods: tuple[str, ...] = ("ours", "rivals")
    """Of ours, ngp (plain Instant-NGP in half floats), rivals (what ffmpeg writes)."""
    quality: Literal["draft", "normal", "max"] = "normal"
    """Of ours: how long training takes."""
    rate_lambdas: tuple[float, ...] = (8e-3, 4e-3, 2e-3)
    """Of ours: weights of the rate, one point of the curve each."""
    log2_tables: tuple[int, ...] = (14, 16, 18)
    """Of a plain Instant-NGP: sizes of tables, one point each."""
    num_steps: int = 0
    """Steps of training; 0 means what the quality takes."""
    limit: int = 0
    """At most so many frames; 0 means all."""
    pages: Path | None = None
    """Folder for a plot and a page of tables, called as the output."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.pictures import videos
        from shacira_nerfstudio.bench.pictures.summary import video_text
        from shacira_nerfstudio.pictures.files.video_files import read_video
        from shacira_nerfstudio.pictures.options import PictureOptions

        check_output_file(self.output)
        unknown = set(self.methods) - {"ours", "ngp", "rivals"}
        if unknown or not self.methods:
            raise ValueError(f"expected methods of ours, ngp, rivals, got {self.methods}")
        frames, layout = read_video(self.data)
        if layout.bits != 8 or layout.channels != 3:
            raise ValueError(f"expected RGB of 8 bits, got {self.data}")
        count = min(self.limit or layout.frames, layout.frames)
        frames, layout = frames[:count], replace(layout, frames=count)
        common = {"quality": self.quality, "num_steps": self.num_steps}
        jobs = list(videos.rivals()) if "rivals" in self.methods else []
        for weight in self.rate_lambdas if "ours" in self.methods else ():
            options = PictureOptions(rate_lambda=weight, **common)  # pyright: ignore
            jobs.append(videos.ours(f"ours, {self.quality}", f"{weight:g}", options))
        for size in self.log2_tables if "ngp" in self.methods else ():
            options = PictureOptions(
                choices="ngp",
                paper_levels=16,
                paper_log2_table=size,
                **common,  # pyright: ignore
            )
            jobs.append(videos.plain_grid(str(size), options))
        name = self.data.resolve().stem
        rows = videos.run_video(
            name, frames, layout, self.output, methods=jobs, progress=_to_stderr
        )
        print(video_text(rows))
        _write_pages(rows, self.pages, name=self.output.stem, is_video=True)
        return 0


def _write_pages(rows: Any, folder: Path | None, *, name: str, is_video: bool) -> None:
    if folder is not None:
        from shacira_nerfstudio.bench.pictures.page import write_pages

        check_output_dir(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for path in write_pages(rows, folder, name=name, is_video=is_video):
            print(path)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_COMMANDS: dict[str, Any] = {
    "cuda": Cuda,
    "throughput": Throughput,
    "rd": RateDistortion,
    "report": Report,
    "codec": Codec,
    "viewers": Viewers,
    "images": Images,
    "video": Video,
}
_Benchmark: Any = command_union(_COMMANDS)


@dataclass
class Bench:
    """Measure: speed of the parts, rate and distortion of trained scenes, and what to show of
    them."""

    benchmark: Annotated[_Benchmark, tyro.conf.arg(name="")]  # pyright: ignore

    def main(self) -> int:
        return self.benchmark.main() or 0
