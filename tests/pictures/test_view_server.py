"""The page of a picture, and the parts of it that a browser asks for."""

import io
import json
import threading
import urllib.error
import urllib.request

import make
import numpy as np
import pytest
from PIL import Image

from shacira_nerfstudio.codec import encode_scene
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.view_server import PictureServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("view") / "a</script>.shacira".replace("/", "_")
    path.write_bytes(encode_scene(make.tiny_picture()))
    with PictureServer(path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, address):
    with urllib.request.urlopen(server.url + address, timeout=120) as answer:
        return answer.read()


def test_the_page_knows_the_file(server):
    page = get(server, "").decode()
    info = json.loads(page.partition("const INFO = ")[2].partition(";\n")[0])
    assert (info["width"], info["height"], info["levels"]) == (15, 10, 3)
    assert info["bytes"] == info["prefixBytes"][-1]
    assert page.count("</script") == 2


def test_a_part_is_what_the_decoder_shows(server):
    data = get(server, "part.png?box=3,2,9,9&size=12,14&frame=0&levels=2")
    found = np.asarray(Image.open(io.BytesIO(data)))
    whole, coarse = (PixelDecoder(make.tiny_picture(), num_levels=n) for n in (None, 2))
    assert np.array_equal(found, coarse.pixels((3, 2, 9, 9), (12, 14)))
    assert not np.array_equal(found, whole.pixels((3, 2, 9, 9), (12, 14)))


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("part.png?box=3,2,9&size=12,14&frame=0&levels=2", 400),
        ("part.png?box=3,2,9,99&size=12,14&frame=0&levels=2", 400),
        ("part.png?box=3,2,9,9&size=12,5000&frame=0&levels=2", 400),
        ("part.png?box=3,2,9,9&size=12,14&frame=1&levels=2", 400),
        ("part.png?box=3,2,9,9&size=12,14&frame=0&levels=4", 400),
        ("etc/passwd", 404),
    ],
)
def test_what_makes_no_sense_is_refused(server, address, status):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(server, address)
    assert error.value.code == status
