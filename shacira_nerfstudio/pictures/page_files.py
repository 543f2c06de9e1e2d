"""The page that shows a picture or a video: by a server, or with the file itself in it.

``page/view.html`` has a place for what is known of the file, for the script that gets parts of the
picture, and for the file.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from shacira_nerfstudio.codec import describe
from shacira_nerfstudio.codec.scene_file import FileContent, read_file
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.layout import PixelLayout

PAGE = Path(__file__).with_name("page")
_INFO, _SOURCE, _DATA = "/*@SHACIRA_INFO@*/", "/*@SHACIRA_SOURCE@*/", "@SHACIRA_DATA@"


def served_page(name: str, data: bytes, content: FileContent) -> str:
    """A page that asks a server for parts of the picture.

    Args:
        content: What ``data`` holds.
    """
    return _filled(_info(name, data, content), (PAGE / "served.js").read_text(encoding="utf-8"), "")


def embedded_page(name: str, data: bytes, *, decoder: str, allow_truncated: bool = False) -> str:
    """A page that needs nothing else: the file is in it, and a worker decodes it.

    Args:
        decoder: JavaScript that decodes files into levels of integers.

    Raises:
        ValueError: the file is damaged, or neither a picture nor a video.
    """
    content = read_file(data, allow_truncated=allow_truncated)
    PixelDecoder(content.scene)  # refuses what cannot be shown
    worker = decoder + (PAGE / "pixels.js").read_text(encoding="utf-8")
    script = (PAGE / "embedded.js").read_text(encoding="utf-8")
    source = f"const DECODER = {_literal(worker)};\n{script}"
    return _filled(_info(name, data, content), source, base64.b64encode(data).decode())


def _info(name: str, data: bytes, content: FileContent) -> dict[str, Any]:
    layout = PixelLayout.of(content.scene)
    return {
        "name": name,
        "width": layout.width,
        "height": layout.height,
        "frames": layout.frames,
        "levels": content.scene.num_coded_levels,
        "bytes": len(data),
        "prefixBytes": describe(data, content=content)["prefix_bytes"],
    }


def _filled(info: dict[str, Any], source: str, data: str) -> str:
    """Raises ValueError if a place is missing: what is filled in would be, silently."""
    page = (PAGE / "view.html").read_text(encoding="utf-8")
    parts = {_INFO: _literal(info), _SOURCE: source, _DATA: data}
    for marker in parts:
        if page.count(marker) != 1:
            raise ValueError(
                f"expected {marker} once in {PAGE}, found it {page.count(marker)} times"
            )
    # The last place is filled first: what is filled in is never searched.
    for marker, text in sorted(parts.items(), key=lambda part: -page.index(part[0])):
        begin = page.index(marker)
        page = page[:begin] + text + page[begin + len(marker) :]
    return page


def _literal(value: Any) -> str:
    """A JavaScript literal that cannot end the script it stands in."""
    return json.dumps(value).replace("<", "\\u003c")
