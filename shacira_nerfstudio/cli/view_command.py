"""`shacira view`: a scene in a web browser, from its file."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass
class View:
    """Look at one or more files in a web browser: no data set, no GPU.

    Several files are seen by one camera, two at a time, with a divider between them. A file that is
    still being downloaded is shown level by level.
    """

    files: Annotated[tuple[Path, ...], Positional, arg(metavar="FILE...")]
    """The .shacira files."""
    host: str = "127.0.0.1"
    """Address to listen on; only this machine can look by default, 0.0.0.0 lets all others."""
    port: int = 7008
    """Port to listen on; 0 takes any that is free."""
    device: str = "cpu"
    """Where to render: cpu, cuda or cuda:N; auto takes a GPU if there is one."""

    def main(self) -> int:
        from shacira_nerfstudio.viewer.view import view

        if not self.files:
            raise ValueError("expected at least one FILE, got none")
        view(self.files, host=self.host, port=self.port, device=self.device)
        # Threads may be within compiled code still, over whose end Python crashes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
