"""Sub-commands as tyro takes them: a union of dataclasses, each under its name."""

from __future__ import annotations

from typing import Annotated, Any, Union

import tyro


def command_union(commands: dict[str, Any]) -> Any:
    """The annotation whose value is one of the commands."""
    members = tuple(
        Annotated[command, tyro.conf.subcommand(name=name, prefix_name=False)]
        for name, command in commands.items()
    )
    return Union[members]  # noqa: UP007  there is no | over a tuple
