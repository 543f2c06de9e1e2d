"""`shacira html`: a scene as one page that any browser opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from shacira_nerfstudio.cli.file_commands import File, as_json
from shacira_nerfstudio.output_files import check_output_file, write_file

PAGE_BYTES = 60_000
"""What a page takes beside the file, which takes 4 / 3 of its length."""


@dataclass
class Html:
    """Write one HTML page that shows a file, scene, picture or video, in any browser: no server, no
    network, nothing else."""

    file: File
    """The .shacira file; its very bytes are inside the page, with a button that saves them."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """The page to write; by default the file's name with the ending .html, in this folder."""
    json: bool = False
    """Print JSON."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        output = self.output or Path(f"{self.file.stem}.html")
        data = self.file.read_bytes()
        if output.exists() and output.samefile(self.file):
            raise ValueError(f"expected another file to write than {self.file}")
        check_output_file(output, 4 * len(data) // 3 + PAGE_BYTES)
        count = write_file(output, self._page(data))
        content = {"file": str(output), "bytes": count, "scene_bytes": len(data)}
        text = f"{output}: {count:,} bytes, {len(data):,} of them the scene's"
        print(as_json(content) if self.json else text)
        return 0

    def _page(self, data: bytes) -> str:
        from shacira_nerfstudio.codec import decode_scene
        from shacira_nerfstudio.viewer.html import check_scene, decoder_source, make_page

        name, is_partial = self.file.name, self.allow_truncated
        scene = decode_scene(data, allow_truncated=is_partial)
        if scene.kind in ("image", "video"):
            from shacira_nerfstudio.pictures.page_files import embedded_page

            return embedded_page(
                name, data, decoder=decoder_source(takes_pictures=True), allow_truncated=is_partial
            )
        check_scene(scene)
        return make_page(data, file_name=name)
