"""A headless Chromium, and what is noted inside of a page while it runs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from typing import Any

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebGL2 in software, so that machines with and without a GPU give comparable numbers.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
_NAMES = ("chromium", "chromium-browser", "google-chrome")

NOTE_PICTURES = """
window.pictures = [];
for (const name of ["texImage2D", "texSubImage2D"]) {
  const upload = WebGL2RenderingContext.prototype[name];
  WebGL2RenderingContext.prototype[name] = function (...values) {
    const image = values[values.length - 1];
    if (image instanceof HTMLImageElement && image.src.startsWith("blob:")) {
      const found = { width: image.naturalWidth, height: image.naturalHeight };
      requestAnimationFrame(() => requestAnimationFrame(
        () => window.pictures.push({ at: Date.now() / 1000, ...found })));
    }
    return upload.apply(this, values);
  };
}
"""
"""Notes when a picture that the server has sent is on the screen: two frames after it became a
texture, as the first of them is drawn with it."""

NOTE_PAGE = """
window.noted = { frames: [] };
new MutationObserver(() => {
  const { digest, error } = document.documentElement.dataset;
  if (digest || error) window.noted.decoded ??= performance.now() / 1000;
}).observe(document, {
  subtree: true, attributes: true, attributeFilter: ["data-digest", "data-error"],
});
let front = null;
const look = () => {
  const painter = window.shacira?.page.painter, now = performance.now() / 1000;
  if (painter?.front && painter.front !== front) {
    front = painter.front;
    window.noted.first ??= now;
    window.noted.frames.push({ at: now, width: front.width, height: front.height });
  }
  if (window.shacira?.state.isSharp) window.noted.sharp ??= now;
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
"""Notes, in seconds since the page began to load, when its file was decoded, each picture, and the
first that nothing is missing from."""


def find_chromium() -> str | None:
    """Path of this machine's Chromium or Chrome; SHACIRA_CHROMIUM overrides."""
    return os.environ.get("SHACIRA_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A running browser of Playwright with an empty profile of its own.

    Raises:
        ValueError: there is none, or no Playwright.
    """
    path = find_chromium()
    if path is None:
        raise ValueError(f"expected one of {', '.join(_NAMES)} on this machine, found none")
    if importlib.util.find_spec("playwright") is None:
        raise ValueError("expected playwright to drive the browser: pip install playwright")
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            with contextlib.suppress(Error):  # it was killed, and something else says why
                browser.close()


@contextlib.contextmanager
def tab(
    browser: Any, *, width: int, height: int, note: str, offline: bool = False
) -> Iterator[Any]:
    """A fresh tab whose pages run a script of this module first."""
    from playwright.sync_api import Error

    context = browser.new_context(viewport={"width": width, "height": height}, offline=offline)
    try:
        page = context.new_page()
        page.add_init_script(note)
        yield page
    finally:
        with contextlib.suppress(Error):
            context.close()
