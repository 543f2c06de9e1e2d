"""Sub-commands of `shacira` that train or open a run of Nerfstudio's, and the demo.

As in :mod:`file_commands`, everything heavy is imported in ``main``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from shacira_nerfstudio.cli.file_commands import File, Output, as_json
from shacira_nerfstudio.cli.file_lists import (
    find_files,
    form_of,
    is_list,
    list_text,
    num_failed,
    rows_of,
)


@dataclass
class Import:
    """Make the folder that ns-viewer, ns-eval and ns-render open, from a lone .shacira file."""

    file: File
    """The .shacira file."""
    output_dir: Path
    """Folder for scene.shacira, config.yml and ckpt/; made if it is not there."""
    data: Path | None = None
    """The data set. Without it the cameras stored in the file are used: enough for ns-viewer and
    ns-render, not for ns-eval."""
    dataparser: str | None = None
    """Data parser of the data set; the one named in the file by default, else nerfstudio-data."""
    json: bool = False
    """Print JSON."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        from shacira_nerfstudio.plugin.import_scene import import_scene

        config = import_scene(
            self.file,
            self.output_dir,
            data=self.data,
            dataparser=self.dataparser,
            allow_truncated=self.allow_truncated,
        )
        print(as_json({"config": str(config)}) if self.json else config)
        return 0


@dataclass
class Eval:
    """Evaluate a file, a run or an export folder on test images, as ns-eval does; or several files
    and all in folders, one row each.

    `shacira eval FILE --data SCENE [DATAPARSER [OPTIONS]]`: the data parser and its options are
    those of `ns-train shacira`; by default the one that the file was trained with. Without --data a
    file in an export folder is measured on what that folder's config.yml says. A folder behind the
    first name is written with a slash.
    """

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """.shacira files, and folders of such files; or --load-config."""
    load_config: Path | None = None
    """Path to the config YAML file of a run or an export folder."""
    data: Path | None = None
    """The data set, for files."""
    camera_res_scale_factor: float = 1.0
    """For files: as their run had it; 0.5 measures at half of the images' resolution."""
    output_path: Path | None = None
    """JSON file to write the metrics to, of one file."""
    render_output_path: Path | None = None
    """Folder for the rendered images of one file."""
    sheet: Path | None = None
    """Folder for sheets of truth | rendered | error, four views on each, of one file."""
    json: bool = False
    """Print JSON; of several files, one object a line."""
    csv: bool = False
    """Print rows as CSV."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""
    dataparser: tyro.conf.Suppress[tuple[str, ...]] = ()
    """What follows the files on the command line: a data parser and its options."""

    def main(self) -> int:
        self._check()
        if self.load_config is None and (self.csv or is_list(self.files)):
            return self._print_list()
        if self.sheet is None:
            results = self._results(on_view=None)
        else:
            from shacira_nerfstudio.viewer.pictures.sheet import SheetWriter

            with SheetWriter(self.sheet) as sheets:
                results = self._results(on_view=sheets.add)
        if self.json:
            print(as_json(results))
        else:
            for name, value in results.items():
                print(f"{name}: {value:.6g}")
        return 0

    def _results(self, *, on_view: Callable[..., None] | None) -> dict[str, float]:
        shown: dict[str, Any] = {
            "output_path": self.output_path,
            "render_output_path": self.render_output_path,
            "on_view": on_view,
        }
        if self.load_config is not None:
            from shacira_nerfstudio.plugin.evaluate import evaluate_run

            return evaluate_run(self.load_config, **shown)
        return self._measure_file(self.files[0], **shown)

    def _measure_file(self, file: Path, **shown: Any) -> dict[str, float]:
        from shacira_nerfstudio.plugin.evaluate_file import evaluate_file

        return evaluate_file(
            file,
            data=self.data,
            dataparser=self.dataparser,
            camera_res_scale_factor=self.camera_res_scale_factor,
            allow_truncated=self.allow_truncated,
            **shown,
        )

    def _print_list(self) -> int:
        wanted = {"--output-path": self.output_path, "--sheet": self.sheet}
        wanted["--render-output-path"] = self.render_output_path
        for name, value in wanted.items():
            if value is not None:
                raise ValueError(f"expected one file with {name}, got a list of files")
        rows = rows_of(find_files(self.files), self._measure_row, "evaluating")
        print(list_text(rows, form_of(json=self.json, csv=self.csv)))
        return 1 if num_failed(rows) else 0

    def _measure_row(self, file: Path) -> dict[str, Any]:
        config, size = file.parent / "config.yml", file.stat().st_size
        if self.data or self.dataparser:
            return {"bytes": size, **self._measure_file(file)}
        if not config.is_file():
            raise ValueError(f"expected a data set (--data), or {config}, got neither")
        from shacira_nerfstudio.plugin.evaluate import evaluate_run

        return {"bytes": size, **evaluate_run(config)}

    def _check(self) -> None:
        """Refuses options that contradict each other."""
        if bool(self.files) == (self.load_config is not None):
            found = "both" if self.files else "neither"
            raise ValueError(f"expected a .shacira file or --load-config, got {found}")
        if self.load_config is not None and (self.data or self.dataparser):
            raise ValueError(
                "expected --data and a data parser beside a .shacira file, got them beside "
                "--load-config, which names its own"
            )
        if not 0 < self.camera_res_scale_factor <= 1:
            raise ValueError(
                "expected --camera-res-scale-factor in (0, 1], got "
                f"{self.camera_res_scale_factor:.6g}"
            )


_SWITCHES = ("json", "csv", "allow-truncated")
EVAL_FLAGS = (
    *("-h", "--help"),
    *(f"--{no}{name}" for name in _SWITCHES for no in ("", "no-")),
)
"""Options of :class:`Eval` without a value."""


def split_dataparser(args: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of `shacira eval`, and those of its data parser: from the first name on that is no
    option, no value of one and no file's. The first name always is a file's."""
    num_names, is_value = 0, False
    for index, argument in enumerate(args):
        if is_value:
            is_value = False
        elif argument.startswith("-"):
            is_value = "=" not in argument and argument not in EVAL_FLAGS
        else:
            num_names += 1
            is_file = argument.endswith(".shacira") or "/" in argument or os.sep in argument
            if num_names > 1 and not is_file:
                return args[:index], args[index:]
    return args, []


@dataclass
class Train:
    """Train as `ns-train shacira` does, whose options follow: `shacira train --data SCENE`, or
    `shacira train PRESET --data SCENE`. --quality Q is short for --pipeline.model.quality Q; by the
    time that they take for an object on two cores: draft (laid out for 5 minutes), normal (15
    minutes), max (90 minutes)."""

    preset: tyro.conf.Positional[Path | None] = None
    """Name of a preset, or a YAML file of dotted keys; none by default."""
    arguments: tyro.conf.Suppress[tuple[str, ...]] = ()
    """What follows on the command line."""

    def main(self) -> int:
        from shacira_nerfstudio.plugin.presets import train

        train(self.preset, self.arguments)
        return 0


@dataclass
class Demo:
    """Write a small scene, train, export, verify and evaluate; ends with table and picture."""

    output_dir: Path = Path("demo_output")
    """Folder for all of it."""

    def main(self) -> int:
        from shacira_nerfstudio.cli.demo import run_demo

        run_demo(self.output_dir)
        return 0


@dataclass
class DemoScene:
    """Write a procedural scene in RTMV's format: `shacira demo-scene OUT --num-views 150
    --size 1600`. Whoever was interrupted goes on by the same command."""

    output_dir: Output
    """Folder for JSON and EXR files."""
    scene: Literal["plaza", "toys"] = "plaza"
    """plaza: 72 objects with textures, soft shadows, mirrors, an HDR environment, depth and
    segmentation. toys: the small one of `shacira demo`."""
    num_views: int = 60
    """Number of views; two thirds are for training."""
    size: int = 128
    """Width and height in pixels."""
    seed: int = 0
    """Seed of the objects and the cameras."""
    num_processes: int | None = None
    """That render the plaza; as many as there are cores by default."""

    def main(self) -> int:
        options: dict[str, Any] = {
            "num_views": self.num_views,
            "size": self.size,
            "seed": self.seed,
        }
        if self.scene == "toys":
            from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

            write_demo_scene(self.output_dir, **options)
            return 0
        from shacira_nerfstudio.scenes.plaza.writer import write_plaza

        count = write_plaza(self.output_dir, num_processes=self.num_processes, **options)
        print(f"{self.output_dir}: {self.num_views} views, {count} of them new")
        return 0
