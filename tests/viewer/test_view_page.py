"""What of viser's page is answered in another way than viser has it."""

import http.client
import re

import pytest
from synthetic_ball import make_ball
from view_client import LIMIT_S, serving

from shacira_nerfstudio.codec import encode_scene
from shacira_nerfstudio.viewer.live.client.page_files import (
    LIGHT,
    is_light,
    is_program,
    start_page,
)


@pytest.fixture(scope="module")
def get(tmp_path_factory):
    """Asks the running viewer for a path; gives the reply and its body."""
    with serving(tmp_path_factory.mktemp("page"), [encode_scene(make_ball())]) as port:

        def get(path, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            return reply, reply.read()

        yield get


@pytest.mark.parametrize("path", ["/", "/index.html", "/?x=1"])
def test_the_start_page_has_our_script_before_all_others_and_no_tracker(get, path):
    reply, page = get(path, **{"Accept-Encoding": "gzip"})
    assert reply.status == 200 and reply.headers["Content-Type"] == "text/html"
    assert page.index(b"requestAnimationFrame") < page.index(b"/assets/index-")
    assert page.count(b"<head>") == 1 and b"googletag" not in page and b"gtag" not in page


def test_what_stays_on_this_machine_is_not_compressed(get):
    reply, page = get("/logo.svg", **{"Accept-Encoding": "gzip, deflate"})
    assert reply.headers["Content-Encoding"] is None and b"<svg" in page


def test_the_light_of_the_surroundings_is_small(get):
    reply, found = get("/hdri/potsdamer_platz_1k.hdr")
    assert reply.status == 200 and found == LIGHT and len(found) < 10_000
    assert not is_light("/assets/x.hdr") and not is_light("/hdri/x.png")


def test_the_program_leaves_the_number_of_pixels_alone(get):
    _, page = get("/")
    path = re.search(rb"/assets/index-[\w-]+\.js", page)[0].decode()
    reply, program = get(path)
    assert reply.status == 200 and b"devicePixelRatio" in program and is_program(path)
    assert not re.search(rb"devicePixelRatio\*\([^)]", program)


def test_a_start_page_of_another_kind_is_refused():
    with pytest.raises(RuntimeError, match="one <head>"):
        start_page(b"<html><body></body></html>")
