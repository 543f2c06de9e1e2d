"""One HTML page that holds a scene: the file itself, its decoder and a renderer.

The page needs no server, no network and no build step. It is put together from ``page/``:
``page.html`` has one place for the file and one for the scripts. The scripts ``*.js`` become one
classic script, for modules do not load from ``file://``; before them stand the constants
``FILE_NAME``, ``DECODER`` (the text of a worker) and ``SHADERS``. All that is compressed, which
leaves a third of it, and ``loader.js`` unpacks it while the page loads.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import PackedScene
from shacira_nerfstudio.compression.pack import unpack_scene

PAGE = Path(__file__).with_name("page")

DECODER_FILES = ("bytes", "entropy", "sections", "cameras", "features", "levels", "scene")
"""Of ``page/decoder``, each after those that it uses."""

FLAT_FILE = "flat_levels"
"""The one more that pictures take; scenes do without it."""

LOADER, MAIN = "loader.js", "main.js"
"""The only script that stands in the page as it is, and the last one of the program."""

SCRIPTS_MARKER, DATA_MARKER = "/*@SHACIRA_SCRIPTS@*/", "@SHACIRA_DATA@"


def check_scene(scene: PackedScene) -> None:
    """Raises ValueError unless a page can show a scene."""
    unpack_scene(scene, get_backend("reference", "cpu"))


def make_page(data: bytes, *, file_name: str = "scene.shacira", page: Path = PAGE) -> str:
    """The page with a file in it; the file is not looked at, see :func:`check_scene`.

    Args:
        file_name: What the page calls the file, and saves it as.
        page: Folder of the page's parts.

    Raises:
        ValueError: a part of the page is missing or cannot be inlined.
    """
    program = zlib.compress(page_program(file_name, page).encode(), 9)
    loader = _read(page / LOADER)
    if "</script" in loader.lower() or "<!--" in loader:
        raise ValueError(f"expected no markup in {page / LOADER}, which would end the script")
    parts = {
        SCRIPTS_MARKER: f"const PROGRAM = {_literal(_base64(program))};\n{loader}",
        DATA_MARKER: _base64(data),
    }
    template = _read(page / "page.html")
    for marker in parts:
        if template.count(marker) != 1:
            raise ValueError(
                f"expected {marker} once in {page / 'page.html'}, found it "
                f"{template.count(marker)} times"
            )
    # The last place is filled first: what is injected is never searched.
    for marker, text in sorted(parts.items(), key=lambda part: -template.index(part[0])):
        begin = template.index(marker)
        template = template[:begin] + text + template[begin + len(marker) :]
    return template


def page_program(file_name: str, page: Path = PAGE) -> str:
    """All scripts of the page but its loader, as one classic script."""
    constants = {
        "FILE_NAME": file_name,
        "DECODER": decoder_source(page),
        "SHADERS": {path.name: _read(path) for path in sorted(page.glob("*.glsl"))},
    }
    lines = [f"const {name} = {_literal(value)};" for name, value in constants.items()]
    others = (path.name for path in page.glob("*.js") if path.name not in (LOADER, MAIN))
    scripts = [_read(page / name) for name in (*sorted(others), MAIN)]
    return "\n".join([*lines, *scripts])


def decoder_source(page: Path = PAGE, *, takes_pictures: bool = False) -> str:
    """The decoder as one classic script; it runs in a worker, and anywhere else."""
    names = (*DECODER_FILES, *((FLAT_FILE,) if takes_pictures else ()))
    return "\n".join(_read(page / "decoder" / f"{name}.js") for name in names)


def _literal(value: object) -> str:
    """A JavaScript literal of ASCII characters alone."""
    return json.dumps(value)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"expected a part of the page, found no {path}") from None
