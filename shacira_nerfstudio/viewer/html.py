"""One HTML page that holds a scene: the file itself, its decoder and a renderer.

The page needs no server, no network and no build step. It is put together from ``page/``:
``page.html`` has one place for the file and one for the scripts; the scripts are ``*.js`` in the
order of their names, one classic inline script, for modules do not load from ``file://``. Before
them stand constants that this module makes: ``FILE_NAME``, ``DECODER`` and ``SHADERS``.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import decode_scene
from shacira_nerfstudio.compression.pack import unpack_scene

PAGE = Path(__file__).with_name("page")

DECODER_FILES = ("bytes", "entropy", "sections", "cameras", "features", "levels", "scene")
"""Of ``page/decoder``, each after those that it uses."""

SCRIPTS_MARKER, DATA_MARKER = "/*@SHACIRA_SCRIPTS@*/", "@SHACIRA_DATA@"


def check_scene(data: bytes, *, allow_truncated: bool = False) -> None:
    """Raises ValueError unless a file is whole and a page can show what it holds."""
    scene = decode_scene(data, allow_truncated=allow_truncated)
    unpack_scene(scene, get_backend("reference"))


def make_page(data: bytes, *, file_name: str = "scene.shacira", page: Path = PAGE) -> str:
    """The page with a file in it; the file is not looked at, see :func:`check_scene`.

    Args:
        file_name: What the page calls the file, and saves it as.
        page: Folder of the page's parts.

    Raises:
        ValueError: a part of the page is missing or cannot be inlined.
    """
    template = _read(page / "page.html")
    parts = {
        SCRIPTS_MARKER: _scripts(page, file_name),
        DATA_MARKER: base64.b64encode(data).decode(),
    }
    for marker in parts:
        if template.count(marker) != 1:
            raise ValueError(
                f"expected {marker} once in {page / 'page.html'}, found it "
                f"{template.count(marker)} times"
            )
    # Both places are found before either is filled: what is injected is never searched.
    for marker, text in sorted(parts.items(), key=lambda part: -template.index(part[0])):
        begin = template.index(marker)
        template = template[:begin] + text + template[begin + len(marker) :]
    return template


def decoder_source(page: Path = PAGE) -> str:
    """The decoder as one classic script; it runs in a worker, and anywhere else."""
    return "\n".join(_read(page / "decoder" / f"{name}.js") for name in DECODER_FILES)


def _scripts(page: Path, file_name: str) -> str:
    # Compressed, the decoder takes 19 kB of the page's 60 instead of 54. A worker starts from a text
    # that is made while the page loads in any case.
    decoder = gzip.compress(decoder_source(page).encode(), mtime=0)
    constants = {
        "FILE_NAME": file_name,
        "DECODER": base64.b64encode(decoder).decode(),
        "SHADERS": {path.name: _read(path) for path in sorted(page.glob("*.glsl"))},
    }
    lines = [f"const {name} = {_literal(value)};" for name, value in constants.items()]
    for path in sorted(page.glob("*.js")):
        text = _read(path)
        for end in ("</script", "<!--"):
            if end in text.lower():
                raise ValueError(f"expected no {end} in {path}, which an HTML page would end at")
        lines.append(text)
    return "\n".join(lines)


def _literal(value: object) -> str:
    """A JavaScript literal that no HTML parser takes for markup."""
    return json.dumps(value).replace("<", "\\u003c")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"expected a part of the page, found no {path}") from None
