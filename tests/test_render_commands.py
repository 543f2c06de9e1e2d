"""`shacira render` and `shacira pointcloud`: what they take, write and say."""

import json

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from synthetic_ball import HEIGHT, WIDTH, make_ball

from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.codec import save_scene


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "scene.shacira"
    save_scene(path, make_ball())
    return path


def run(*args):
    return cli.main([str(arg) for arg in args])


def test_a_video_of_an_orbit(file, tmp_path, capsys):
    out = tmp_path / "orbit.mp4"
    assert run("render", file, "-o", out, "--orbit", "--frames", 6, "--fps", 12, "--json") == 0
    said, noted = capsys.readouterr()
    said = json.loads(said)
    assert said["video"] == str(out) and said["num_frames"] == 6 and said["size"] == [12, 8]
    assert "note: the stored cameras leave 360 of the 360 degrees" in noted
    meta = next(imageio_ffmpeg.read_frames(str(out)))
    assert meta["size"] == (12, 8) and meta["fps"] == 12 and meta["duration"] == 0.5


def test_pictures_of_a_spiral(file, tmp_path, capsys):
    options = ["--spiral", "--frames", 2, "--width", 24, "--outputs", "rgb", "depth"]
    assert run("render", file, "-o", tmp_path / "out", *options) == 0
    assert "2 pictures of 48x16, depths" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "00001.png") as image:
        assert image.size == (48, 16)


def test_along_a_path_and_from_transforms(file, tmp_path, capsys):
    pose = np.eye(4)
    pose[2, 3] = 3.0
    frame = {"camera_to_world": pose.reshape(-1).tolist(), "fov": 45.0}
    path = {"render_width": 10, "render_height": 6, "camera_path": [frame] * 3, "seconds": 1}
    (tmp_path / "path.json").write_text(json.dumps(path))
    transforms = {"fl_x": 8, "w": 10, "h": 6, "frames": [{"transform_matrix": pose.tolist()}]}
    (tmp_path / "transforms.json").write_text(json.dumps(transforms))
    for option, name, count in (
        ("--camera-path", "path.json", 3),
        ("--transforms", "transforms.json", 1),
    ):
        out = tmp_path / name.partition(".")[0]
        assert run("render", file, "-o", out, option, tmp_path / name) == 0
        images = sorted(out.iterdir())
        assert len(images) == count
        with Image.open(images[0]) as image:
            assert image.size == (10, 6) and np.asarray(image).std() > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--orbit", "--spiral"], "expected one of --camera-path, --orbit, --spiral, --transforms"),
        (["--camera-path", "no.json"], "no.json"),
        (["--frames", "-1"], "--frames of 0 or more"),
        (["--width", "0"], "--width of 1 or more"),
        (["--fps", "nan"], "pictures per second"),
        (["--dataparser-transforms", "x.json"], "expected --transforms beside"),
        (["--device", "nowhere"], "expected a device that is there"),
    ],
)
def test_wrong_options_are_one_line(file, tmp_path, capsys, options, message):
    assert run("render", file, "-o", tmp_path / "v.mp4", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("shacira: error: ") and message in error
    assert not (tmp_path / "v.mp4").exists()


def test_points(file, tmp_path, capsys):
    trimesh = pytest.importorskip("trimesh")
    out = tmp_path / "points.ply"
    options = ["--num-points", 500, "--min-accumulation", 0.3, "--json"]
    assert run("pointcloud", file, "-o", out, *options) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"file": str(out), "num_points": 500, "bytes": out.stat().st_size}
    points = trimesh.load(out)
    assert points.vertices.shape == (500, 3) and np.abs(points.vertices).max() < 1
    assert run("pointcloud", file, "-o", tmp_path / "around.ply", *options, "--orbit") == 0
    around = trimesh.load(tmp_path / "around.ply")
    # From all sides, where the stored cameras see one.
    assert points.vertices[:, 2].min() > -0.3 > around.vertices[:, 2].min()


def test_points_need_a_ply_file(file, tmp_path, capsys):
    assert run("pointcloud", file, "-o", tmp_path / "points.xyz") == 2
    assert "expected a file NAME.ply" in capsys.readouterr().err


def test_sizes_of_stored_cameras(file, tmp_path):
    assert run("render", file, "-o", tmp_path / "out", "--frames", 1) == 0
    with Image.open(tmp_path / "out" / "00000.png") as image:
        assert image.size == (WIDTH, HEIGHT)
