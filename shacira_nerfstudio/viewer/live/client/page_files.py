"""Files of viser's page that are not sent as they are.

Its start page asks Google to count its visitors; it gets a script of ours instead. The light of its
surroundings, 1.5 MB that everything in the browser waits for, falls on nothing here: a little grey
does. And its program takes pixels away, four of five along each side, from a window that is not
drawn 38 times a second, for which there is no need here: pictures would be blurred while they are
refined.
"""

from __future__ import annotations

import re
from importlib import resources

START_PAGES = ("/", "/index.html")
_TRACKER = re.compile(rb"<!-- Google tag.*?-->|<script(?![^>]*type=)[^>]*>.*?</script>", re.DOTALL)
_FEWER_PIXELS = re.compile(rb"window\.devicePixelRatio\*\(\.2\+\.8\*\w+\)")
_WIDTH = 64
"""Pixels; from fewer three.js makes textures of none."""
LIGHT = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (_WIDTH // 2, _WIDTH)
LIGHT += bytes((128, 128, 128, 128)) * (_WIDTH * _WIDTH // 2)
"""A grey picture in the format of Radiance."""


def is_light(path: str) -> bool:
    """Whether a request, without its query, is for the light of the surroundings."""
    return path.startswith("/hdri/") and path.endswith(".hdr")


def is_program(path: str) -> bool:
    """Whether a request, without its query, is for the program of the page."""
    return path.startswith("/assets/index-") and path.endswith(".js")


def steady_program(program: bytes) -> bytes:
    """The page's program, without its rule for the number of pixels if it has the one we know."""
    return _FEWER_PIXELS.sub(b"window.devicePixelRatio", program)


def start_page(page: bytes) -> bytes:
    """viser's start page with our script before its own, and without others'.

    Raises:
        RuntimeError: it is no page that we know.
    """
    script = resources.files(__package__ or "").joinpath("draw_what_is_new.js").read_bytes()
    page, count = re.subn(
        rb"<head>", lambda _: b"<head><script>" + script + b"</script>", _TRACKER.sub(b"", page)
    )
    if count != 1:
        raise RuntimeError(f"expected one <head> in viser's start page, found {count}")
    return page
