"""The command `shacira`. Heavy packages load when a sub-command needs them, not for `--help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import tyro

from shacira_nerfstudio.cli import bench_commands, file_commands, run_commands
from shacira_nerfstudio.cli.command_union import command_union
from shacira_nerfstudio.plugin.export_command import ExportShacira

COMMANDS: dict[str, Any] = {
    "train": run_commands.Train,
    # The same options as ns-export, so the same way to write booleans.
    "export": tyro.conf.FlagConversionOff[ExportShacira],
    "import": run_commands.Import,
    "info": file_commands.Info,
    "verify": file_commands.Verify,
    "truncate": file_commands.Truncate,
    "render": file_commands.Render,
    "eval": run_commands.Eval,
    "decompress": file_commands.Decompress,
    "diff": file_commands.Diff,
    "demo": run_commands.Demo,
    "demo-scene": run_commands.DemoScene,
    "bench": bench_commands.Bench,
}
"""Sub-commands: dataclasses with ``main() -> int | None``, the exit status."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one sub-command and returns the exit status: 2 for wrong input, in one line."""
    args = list(sys.argv[1:] if args is None else args)
    # What follows a preset belongs to the host's parser, not to this one.
    ours, rest = (args[:2], args[2:]) if args[:1] == ["train"] else (args, [])
    command = tyro.cli(
        command_union(COMMANDS),
        prog="shacira",
        description="Compressed radiance fields in one file.",
        args=ours,
    )
    if isinstance(command, run_commands.Train):
        command.arguments = tuple(rest)
    try:
        return command.main() or 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"shacira: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
