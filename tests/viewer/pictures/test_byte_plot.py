"""The plot of `info`: drawn for every kind of file; the same file gives the same bytes."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_ball import make_ball

from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.codec import describe, encode_scene, save_scene
from shacira_nerfstudio.viewer.pictures.byte_plot import write_byte_plot

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = ["v1_tiny.shacira", "v1_tiny_image.shacira", "v1_tiny_video.shacira"]


def run(*args):
    return cli.main([str(arg) for arg in args])


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_drawn(name, tmp_path, capsys):
    assert run("info", GOLDEN / name, "--plot", tmp_path / "a.png") == 0
    assert "bytes" in capsys.readouterr().out
    picture = Image.open(tmp_path / "a.png")
    assert picture.format == "PNG" and picture.width > picture.height > 400


def test_measured_prefixes_are_drawn_as_a_line(tmp_path):
    scene = make_ball()
    measured = dataclasses.replace(scene, prefix_psnr=(1500, 2100, 2400))
    for name, content in (("a", scene), ("b", measured)):
        write_byte_plot(tmp_path / f"{name}.png", describe(encode_scene(content)), "scene")
    pixels = [np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in "ab"]
    is_red = [np.abs(p.astype(int) - (220, 38, 38)).max(-1) < 12 for p in pixels]
    assert not is_red[0].any() and is_red[1].sum() > 100


def test_the_same_file_gives_the_same_bytes(tmp_path):
    description = describe(encode_scene(make_ball()))
    for name in "ab":
        write_byte_plot(tmp_path / f"{name}.png", description, "scene")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_plots_are_not_paid_for_by_others(tmp_path):
    save_scene(tmp_path / "a.shacira", make_ball())
    code = (
        "import sys; from shacira_nerfstudio.cli.main import main; "
        f"main(['info', {str(tmp_path / 'a.shacira')!r}]); "
        "sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=-3).returncode == 0


def test_strip_from_the_command_line(tmp_path, capsys):
    save_scene(tmp_path / "a.shacira", make_ball())
    out = tmp_path / "a.png"
    assert run("info", tmp_path / "a.shacira", "--strip", out, "--camera", 2) == 0
    assert Image.open(out).width > 400
    assert run("info", tmp_path / "a.shacira", "--strip", out, "--camera", 3) == 2
    assert "expected one of 3 cameras" in capsys.readouterr().err


def test_strip_needs_a_camera(tmp_path, capsys):
    save_scene(tmp_path / "a.shacira", dataclasses.replace(make_ball(), cameras=None))
    assert run("info", tmp_path / "a.shacira", "--strip", tmp_path / "a.png") == 2
    assert "got no camera in it" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
