"""The command `shacira` on files: what it prints, writes and returns, and what it does not load."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from synthetic_ball import HEIGHT, NUM_CAMERAS, WIDTH, make_ball

from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.codec import decode_scene, encode_scene, load_scene, save_scene
from shacira_nerfstudio.codec.array_export import scene_arrays


@pytest.fixture(scope="module")
def scene():
    return make_ball()


@pytest.fixture
def file(scene, tmp_path):
    path = tmp_path / "scene.shacira"
    save_scene(path, scene)
    return path


def run(*args):
    return cli.main([str(arg) for arg in args])


def test_info_shows_where_the_bytes_go(file, capsys):
    assert run("info", file, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes"] == file.stat().st_size == sum(facts["bytes_by_part"].values())
    assert facts["num_cameras"] == NUM_CAMERAS
    assert run("info", file) == 0
    text = capsys.readouterr().out
    assert f"{file.stat().st_size:,} bytes" in text
    assert "step: 7" in text


def test_verify_tells_good_from_broken(file, capsys):
    assert run("verify", file) == 0
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert run("verify", file) == 1
    assert "not valid: LATN: expected CRC-32" in capsys.readouterr().out
    assert run("verify", file, "--json") == 1
    assert json.loads(capsys.readouterr().out)["valid"] is False


def test_truncate_writes_a_valid_coarser_file(scene, file, tmp_path):
    out = tmp_path / "coarse.shacira"
    assert run("truncate", file, out, "--max-level", 0) == 0
    coarse = load_scene(out)
    assert coarse.num_levels_present == 1
    assert np.array_equal(coarse.level_symbols(0), scene.level_symbols(0))
    assert run("verify", out) == 0
    most = out.stat().st_size + 1
    assert run("truncate", file, out, "--max-bytes", most) == 0
    assert out.stat().st_size == most - 1
    assert run("truncate", file, out) == 2


def cut(file):
    """Takes the last byte off, so that one level of three is lost."""
    file.write_bytes(file.read_bytes()[:-1])
    return file


def test_a_truncated_download_opens_when_asked_to(scene, file, tmp_path, capsys):
    whole = tmp_path / "whole.shacira"
    whole.write_bytes(file.read_bytes())
    cut(file)
    commands = {
        "info": [file],
        "verify": [file],
        "decompress": [file, tmp_path / "scene.npz"],
        "render": [file, "--output-dir", tmp_path / "images", "--views", 1],
        "diff": [file, file],
    }
    for command, arguments in commands.items():
        assert run(command, *arguments) == (1 if command == "verify" else 2)
        capsys.readouterr()
        assert run(command, *arguments, "--allow-truncated", "--json") == 0
        json.loads(capsys.readouterr().out)
    assert run("info", file, "--allow-truncated") == 0
    assert "1 of 3 levels are missing: the end is missing" in capsys.readouterr().out
    with np.load(tmp_path / "scene.npz") as arrays:
        assert np.array_equal(arrays["symbols"][:64], scene.symbols[:64])
        assert not arrays["symbols"][scene.grid.offsets[2] :].any()
    # Without any whole level there is nothing to open.
    file.write_bytes(whole.read_bytes()[:600])
    assert run("info", file, "--allow-truncated") == 2


def test_truncate_as_json(file, tmp_path, capsys):
    out = tmp_path / "coarse.shacira"
    assert run("truncate", cut(file), out, "--max-level", 2, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["num_levels_present"] == 2 and facts["num_levels"] == 3
    assert facts["bytes"] == out.stat().st_size


def test_texts_of_a_file_do_not_move_the_cursor(scene, file, capsys):
    save_scene(file, dataclasses.replace(scene, meta={"comment": "a\x1b[2Jb", "author": "Zoë"}))
    assert run("info", file) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "comment: a\\x1b[2Jb" in text and "author: Zoë" in text


def test_decompress_writes_safetensors(scene, file, tmp_path):
    out = tmp_path / "scene.safetensors"
    assert run("decompress", file, out) == 0
    data = out.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    words = header.pop("__metadata__")
    assert words["kind"] == "radiance_field" and words["meta.step"] == "7"
    dtypes = {"I16": "<i2", "I64": "<i8", "U32": "<u4", "F32": "<f4", "BOOL": "?"}
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(body[begin:end], dtypes[entry["dtype"]])
        assert begin % array.itemsize == 0
        arrays[name] = array.reshape(entry["shape"])
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(body)
    expected = scene_arrays(scene)
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], expected[name]) for name in arrays)


def test_diff_compares_content(scene, file, tmp_path, capsys):
    assert run("diff", file, file) == 0
    assert "same scene, same bytes" in capsys.readouterr().out
    symbols = scene.symbols.copy()
    index = np.flatnonzero(symbols)[0]
    symbols.flat[index] += 2
    other = dataclasses.replace(scene, symbols=symbols, meta={}, cameras=None)
    save_scene(tmp_path / "other.shacira", other)
    assert run("diff", file, tmp_path / "other.shacira", "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["differences"]) == {"symbols", "meta", "cameras"}
    assert facts["differences"]["symbols"].startswith("1 of")
    assert facts["differences"]["symbols"].endswith("at most by 2")


def test_decompress_writes_plain_arrays(scene, file, tmp_path):
    assert run("decompress", file, tmp_path / "scene.npz") == 0
    with np.load(tmp_path / "scene.npz") as arrays:
        assert np.array_equal(arrays["symbols"], scene.symbols)
        assert np.array_equal(arrays["occupancy"], scene.occupancy)
        assert np.array_equal(arrays["resolutions"], scene.grid.resolutions)
        for name, tensor in scene.weights.items():
            assert np.array_equal(arrays[f"weights.{name}"], tensor.dequantize())
    assert run("decompress", file, tmp_path / "scene.txt") == 2


def test_render_writes_the_stored_views(file, tmp_path):
    assert run("render", file, "--output-dir", tmp_path / "own") == 0
    images = sorted((tmp_path / "own").iterdir())
    assert [path.name for path in images] == ["00000.png", "00001.png", "00002.png"]
    with Image.open(images[0]) as image:
        assert image.size == (WIDTH, HEIGHT)
        pixels = np.asarray(image)
    assert (pixels[0, 0] == 255).all()  # the corner looks past the ball, at the background
    assert (pixels[HEIGHT // 2, WIDTH // 2] < 255).any()
    assert run("render", file, "--output-dir", tmp_path / "big", "--views", 1, "--width", 24) == 0
    (path,) = (tmp_path / "big").iterdir()
    with Image.open(path) as image:
        assert image.size == (24, 16)


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-1], lambda data: b"NOPE" + data[4:]],
    ids=["empty", "cut", "magic"],
)
@pytest.mark.parametrize("command", ["info", "decompress", "render", "diff"])
def test_a_broken_file_is_one_line_and_status_2(file, tmp_path, capsys, command, damage):
    file.write_bytes(damage(file.read_bytes()))
    out = tmp_path / "out.npz"
    rest = {
        "info": [],
        "decompress": [out],
        "render": ["--output-dir", out],
        "diff": [file],
    }
    assert run(command, file, *rest[command]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("shacira: error: ")
    assert "expected" in error
    assert not out.exists()


def test_a_missing_file_is_one_line_and_status_2(tmp_path, capsys):
    assert run("info", tmp_path / "nothing.shacira") == 2
    error = capsys.readouterr().err
    assert error.startswith("shacira: error: ")
    assert len(error.strip().splitlines()) == 1


def test_bytes_survive_the_tools(scene, file):
    assert file.read_bytes() == encode_scene(decode_scene(file.read_bytes()))


def test_help_is_light():
    code = (
        "import sys, shacira_nerfstudio.cli.main as cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'nerfstudio', 'numba', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert name in done.stdout
