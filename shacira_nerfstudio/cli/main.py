"""The command `shacira`. Heavy packages load when a sub-command needs them, not for `--help`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from shacira_nerfstudio.cli import (
    bench_commands,
    file_commands,
    html_command,
    picture_commands,
    render_commands,
    run_commands,
    sweep_command,
    view_command,
)
from shacira_nerfstudio.cli.command_union import command_union
from shacira_nerfstudio.plugin.export_command import ExportShacira

COMMANDS: dict[str, Any] = {
    "train": run_commands.Train,
    "export": ExportShacira,
    "import": run_commands.Import,
    "info": file_commands.Info,
    "verify": file_commands.Verify,
    "truncate": file_commands.Truncate,
    "render": render_commands.Render,
    "pointcloud": render_commands.PointCloud,
    "view": view_command.View,
    "html": html_command.Html,
    "eval": run_commands.Eval,
    "decompress": file_commands.Decompress,
    "diff": file_commands.Diff,
    "image": picture_commands.Image,
    "video": picture_commands.Video,
    "demo": run_commands.Demo,
    "demo-scene": run_commands.DemoScene,
    "sweep": sweep_command.Sweep,
    "bench": bench_commands.Bench,
}
"""Sub-commands: dataclasses with ``main() -> int | None``, the exit status."""


WRONG_INPUT, INTERRUPTED = 2, 130
"""Exit statuses."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one sub-command and returns the exit status: 2 for wrong input, in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a text of a file may have any character
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(list(sys.argv[1:] if args is None else args))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("shacira: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python would try to write what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail("expected somebody to read all of the output, found a closed pipe")
    except MemoryError as error:
        return _fail(f"expected more memory, found too little: {error}")
    except (ValueError, OSError, RuntimeError) as error:
        return _fail(str(error) or type(error).__name__)


def _run(args: list[str]) -> int:
    ours, rest = args, []
    # What follows a preset or a data parser belongs to the host's parser, not to this one.
    if args[:1] == ["train"]:
        has_preset = not args[1:2] or args[1] in ("-h", "--help") or not args[1].startswith("-")
        count = 2 if has_preset else 1
        ours, rest = args[:count], args[count:]
    if args[:1] == ["eval"]:
        ours, rest = run_commands.split_dataparser(args[1:])
        ours = ["eval", *ours]
    command = tyro.cli(
        command_union(COMMANDS),
        prog="shacira",
        description="Compressed radiance fields in one file.",
        args=_flags(ours) if args[:1] == ["export"] else ours,
    )
    if isinstance(command, run_commands.Train):
        command.arguments = tuple(rest)
    elif isinstance(command, run_commands.Eval):
        command.dataparser = tuple(rest)
    return command.main() or 0


def _flags(args: list[str]) -> list[str]:
    """Booleans as ns-export has them (`--json True`) in the form that all commands have here."""
    found: list[str] = []
    for arg in args:
        before = found[-1] if found else ""
        if arg in ("True", "False") and before in ("--json", "--verify"):
            found[-1] = before if arg == "True" else f"--no-{before[2:]}"
        else:
            found.append(arg)
    return found


def _fail(message: str) -> int:
    print(f"shacira: error: {' '.join(message.split())}", file=sys.stderr)
    return WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
