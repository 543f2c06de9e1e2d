"""A headless Chromium for tests of marker `browser`, and what any machine needs to run one."""

import contextlib
import importlib.util
import pathlib
import sys

import pytest

from shacira_nerfstudio.bench.viewers.browser import FLAGS, find_chromium

# What tests of the codec are made of serves here, too.
GOLDEN = str(pathlib.Path(__file__).parents[1] / "golden")
if GOLDEN not in sys.path:
    sys.path.insert(0, GOLDEN)


PATIENCE_S = 180
"""For whatever a browser is waited for: only what never comes takes it, on any busy machine."""


@pytest.fixture(scope="session")
def chromium():
    """A running browser with an empty profile of its own."""
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("there is no playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Playwright makes a new user data folder for each launch and removes it.
        browser = playwright.chromium.launch(
            executable_path=path, args=FLAGS, timeout=1000 * PATIENCE_S
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def opening_pages(chromium):
    """What :func:`open_page` is."""
    context = chromium.new_context(offline=True)
    context.set_default_timeout(1000 * PATIENCE_S)
    pages = []

    def open_page(path, *, width=320, height=240):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on(
            "console",
            lambda line: page.complaints.append(line.text) if line.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                page.complaints.append(f"asks for {request.url}")
                if not request.url.startswith(("file:", "blob:", "data:"))
                else None
            ),
        )
        pages.append(page)
        page.goto(path.as_uri())
        return page

    yield open_page
    complaints = [line for page in pages for line in page.complaints]
    context.close()
    assert complaints == []


@pytest.fixture
def open_page(chromium):
    """Opens a page from disk in a fresh tab: ``open_page(path, width=, height=)``.

    Whatever the page logs as an error, throws or asks the network for fails the test when it ends;
    ``page.complaints.clear()`` forgives it.
    """
    with opening_pages(chromium) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def open_lasting_page(chromium):
    """As :func:`open_page`, for tests that share a page: the last of them fails."""
    with opening_pages(chromium) as open_page:
        yield open_page


@pytest.fixture(scope="session")
def decoded():
    """Waits for the end of a page's decoder: ``decoded(page)`` is its digest, or fails."""

    def decoded(page):
        page.wait_for_selector("html[data-digest], html[data-error]", state="attached")
        found = page.evaluate("() => ({...document.documentElement.dataset})")
        assert "error" not in found, found["error"]
        return found["digest"]

    return decoded
