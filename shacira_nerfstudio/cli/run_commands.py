"""Sub-commands of `shacira` that train or open a run of Nerfstudio's, and the demo.

As in :mod:`file_commands`, everything heavy is imported in ``main``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from shacira_nerfstudio.cli.file_commands import File, as_json


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
        from shacira_nerfstudio.plugin.evaluate import evaluate_run

        results = evaluate_run(
            self.load_config,
            output_path=self.output_path,
            render_output_path=self.render_output_path,
        )
        if self.json:
            print(as_json(results))
        else:
            for name, value in results.items():
                print(f"{name}: {value:.6g}")
        return 0


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
