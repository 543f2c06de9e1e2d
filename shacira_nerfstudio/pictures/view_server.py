"""A picture in a browser: the visible part of it is decoded when it is looked at, at any zoom.

A web server on this machine with two addresses: the page, and ``part.png``, a part of the picture
in some number of pixels. What has to be decoded does not grow with the picture.
"""

from __future__ import annotations

import io
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from shacira_nerfstudio.codec.scene_file import read_file
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.files.image_files import as_image
from shacira_nerfstudio.pictures.page_files import served_page

_MAX_SIDE = 4096
"""Pixels of a part: nobody has a larger screen."""


class PictureServer(ThreadingHTTPServer):
    """Serves one file.

    Args:
        port: 0 takes any that is free, see :attr:`url`.
        allow_truncated: Accept a file whose end is missing.
    """

    daemon_threads = True

    def __init__(
        self, path: Path, *, host: str = "127.0.0.1", port: int = 0, allow_truncated: bool = False
    ) -> None:
        data = path.read_bytes()
        content = read_file(data, allow_truncated=allow_truncated)
        count = content.scene.num_coded_levels
        self.decoders = [PixelDecoder(content.scene, num_levels=n + 1) for n in range(count)]
        self.page = served_page(path.name, data, content).encode()
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"

    def part(self, query: dict[str, list[str]]) -> bytes:
        """A PNG of what a query asks for; ValueError for what makes no sense."""
        box, size = (_integers(query, name, count) for name, count in (("box", 4), ("size", 2)))
        (frame,), (levels,) = (_integers(query, name, 1) for name in ("frame", "levels"))
        if not 1 <= levels <= len(self.decoders) or max(size) > _MAX_SIDE:
            raise ValueError(
                f"expected 1 to {len(self.decoders)} levels and at most {_MAX_SIDE} pixels a side, "
                f"got {levels} and {size}"
            )
        pixels = self.decoders[levels - 1].pixels(box, size, frame=frame)  # pyright: ignore
        stream = io.BytesIO()
        as_image(pixels).save(stream, format="PNG", compress_level=1)
        return stream.getvalue()


def _integers(query: dict[str, list[str]], name: str, count: int) -> tuple[int, ...]:
    text = query.get(name, [""])[0]
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise ValueError(f"expected {count} integers for {name}, got {text[:80]!r}")
    return values


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer

    def do_GET(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        if address.path == "/":
            self._answer(200, "text/html; charset=utf-8", self.server.page)
        elif address.path == "/part.png":
            try:
                data = self.server.part(urllib.parse.parse_qs(address.query))
            except ValueError as error:
                self._answer(400, "text/plain; charset=utf-8", str(error).encode())
            else:
                self._answer(200, "image/png", data)
        else:
            self._answer(404, "text/plain; charset=utf-8", b"expected / or /part.png")

    def _answer(self, status: int, kind: str, data: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the browser has moved on

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the browser shows what goes wrong."""
