"""The command `shacira`. Heavy packages load when a sub-command needs them, not for `--help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from shacira_nerfstudio.cli import bench_commands as cli_bench_rd
from shacira_nerfstudio.cli import file_commands as cli_tools
from shacira_nerfstudio.plugin.export_command import ExportShacira


@dataclass
class Import:
    """Make the folder that ns-viewer, ns-eval and ns-render open, from a lone .shacira file."""

    file: cli_tools.File
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
        print(json.dumps({"config": str(config)}) if self.json else config)
        return 0


@dataclass
class Eval:
    """Evaluate a run or an export folder on its test images, as ns-eval does."""

    load_config: Path
    """Path to the config YAML file."""
    output_path: Path | None = None
    """JSON file to write the metrics to."""
    render_output_path: Path | None = None
    """Folder for the rendered images."""
    json: bool = False
    """Print JSON."""

    def main(self) -> int:
        from shacira_nerfstudio.plugin.evaluation import evaluate_run

        results = evaluate_run(
            self.load_config,
            output_path=self.output_path,
            render_output_path=self.render_output_path,
        )
        if self.json:
            print(json.dumps(results, indent=2, sort_keys=True))
        else:
            for name, value in results.items():
                print(f"{name}: {value:.6g}")
        return 0


@dataclass
class Train:
    """Train with a preset: `shacira train PRESET.yaml`, then whatever `ns-train shacira` takes."""

    preset: tyro.conf.Positional[Path]
    """YAML file of dotted keys. In configs/, by the time that they take for an object on two cores:
    draft.yaml (laid out for 5 minutes), normal.yaml (15 minutes), max.yaml (90 minutes)."""
    arguments: tyro.conf.Suppress[tuple[str, ...]] = ()
    """What follows the preset on the command line."""

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
    """Write the small procedural scene in RTMV's format."""

    output_dir: Path
    """Folder for JSON and EXR files."""
    num_views: int = 60
    """Number of views; two thirds are for training."""
    size: int = 128
    """Width and height in pixels."""
    seed: int = 0
    """Seed of the cameras."""

    def main(self) -> int:
        from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

        write_demo_scene(self.output_dir, num_views=self.num_views, size=self.size, seed=self.seed)
        return 0


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
    profile: bool = False
    """Also say where the time of a training step goes."""

    def main(self) -> int:
        from shacira_nerfstudio.bench.throughput.driver import run_throughput

        run_throughput(
            self.data,
            self.output,
            scene_file=self.scene_file,
            dataparser=self.dataparser,
            only=self.only,
            repeats=self.repeats,
            warmup_steps=self.warmup_steps,
            profile=self.profile,
        )
        return 0


def _union(commands: dict[str, Any]) -> Any:
    members = tuple(
        Annotated[command, tyro.conf.subcommand(name=name, prefix_name=False)]
        for name, command in commands.items()
    )
    return Union[members]  # noqa: UP007  there is no | over a tuple


_Benchmark: Any = _union({"throughput": Throughput, **cli_bench_rd.COMMANDS})


@dataclass
class Bench:
    """Measure: speed of the parts, rate and distortion of trained scenes, and what to show of
    them."""

    benchmark: Annotated[_Benchmark, tyro.conf.arg(name="")]  # pyright: ignore

    def main(self) -> int:
        return self.benchmark.main() or 0


COMMANDS: dict[str, Any] = {
    # The same options as ns-export, so the same way to write booleans.
    "train": Train,
    "export": tyro.conf.FlagConversionOff[ExportShacira],
    "import": Import,
    "info": cli_tools.Info,
    "verify": cli_tools.Verify,
    "truncate": cli_tools.Truncate,
    "render": cli_tools.Render,
    "eval": Eval,
    "decompress": cli_tools.Decompress,
    "diff": cli_tools.Diff,
    "demo": Demo,
    "demo-scene": DemoScene,
    "bench": Bench,
}
"""Sub-commands: dataclasses with ``main() -> int | None``, the exit status."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one sub-command and returns the exit status: 2 for wrong input, in one line."""
    args = list(sys.argv[1:] if args is None else args)
    # What follows a preset belongs to the host's parser, not to this one.
    ours, rest = (args[:2], args[2:]) if args[:1] == ["train"] else (args, [])
    command = tyro.cli(
        _union(COMMANDS),
        prog="shacira",
        description="Compressed radiance fields in one file.",
        args=ours,
    )
    if isinstance(command, Train):
        command.arguments = tuple(rest)
    try:
        return command.main() or 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"shacira: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
