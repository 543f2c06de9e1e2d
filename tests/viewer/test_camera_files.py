"""Cameras from Nerfstudio's files: read as the host reads them, and refused by name."""

import copy
import json
import math

import numpy as np
import pytest
from PIL import Image

from shacira_nerfstudio.viewer.camera_files import (
    WorldTransform,
    camera_path_of,
    transforms_cameras,
)
from shacira_nerfstudio.viewer.camera_paths import PanoramaCamera, looking_at

POSE = np.vstack(
    [looking_at(np.array([1.0, 2, 3]), np.zeros(3), np.array([0, 0, 1.0])), [0, 0, 0, 1]]
)
FRAME = {"camera_to_world": POSE.reshape(-1).tolist(), "fov": 50.0, "aspect": 1.5}
PATH = {
    "camera_type": "perspective",
    "render_height": 40,
    "render_width": 60,
    "fps": 24,
    "seconds": 0.5,
    "camera_path": [FRAME] * 12,
}
CROP = {
    "crop_center": [1, 2, 3],
    "crop_scale": [2, 4, 6],
    "crop_rot": [0.1, -0.2, 0.3],
    "crop_bg_color": {"r": 255, "g": 51, "b": 0},
}
TRANSFORMS = {
    "fl_x": 50.0,
    "fl_y": 51.0,
    "cx": 30.5,
    "cy": 20.5,
    "w": 60,
    "h": 40,
    "frames": [{"file_path": "a.png", "transform_matrix": POSE.tolist()}] * 3,
}


def written(folder, content, name="file.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_camera_path(tmp_path):
    path = camera_path_of(written(tmp_path, PATH))
    assert len(path.cameras) == 12 and path.fps == 24 and path.crop is None
    camera = path.cameras[0]
    assert (camera.width, camera.height, camera.cx, camera.cy) == (60, 40, 30, 20)
    assert camera.fx == camera.fy == pytest.approx(20 / math.tan(math.radians(25)))
    assert np.allclose(camera.camera_to_world, POSE[:3])
    assert camera_path_of(written(tmp_path, {**PATH, "seconds": 2})).fps == 6  # as the host has it
    sized = camera_path_of(tmp_path / "file.json", width=90).cameras[0]
    assert (sized.width, sized.height) == (90, 60)
    assert sized.fx == pytest.approx(1.5 * camera.fx)


@pytest.mark.nerfstudio
@pytest.mark.parametrize("kind", ["perspective", "equirectangular"])
def test_camera_paths_are_the_hosts(tmp_path, kind):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("nerfstudio.cameras.camera_paths")
    content = {**PATH, "camera_type": kind}
    cameras = theirs.get_path_from_json(copy.deepcopy(content))
    rays = cameras.generate_rays(camera_indices=0, keep_shape=True)
    origins, directions = camera_path_of(written(tmp_path, content)).cameras[0].rays()
    assert torch.allclose(directions, rays.directions.reshape(-1, 3).float(), atol=1e-5)
    assert torch.allclose(origins, rays.origins.reshape(-1, 3).float())


@pytest.mark.nerfstudio
def test_crops_are_the_hosts(tmp_path):
    torch = pytest.importorskip("torch")
    render = pytest.importorskip("nerfstudio.scripts.render")
    maths = pytest.importorskip("nerfstudio.utils.math")
    content = {**PATH, "crop": CROP}
    crop, theirs = (
        camera_path_of(written(tmp_path, content)).crop,
        render.get_crop_from_json(content),
    )
    assert crop.background == pytest.approx(theirs.background_color.tolist())
    origins, directions = (
        torch.randn(200, 3) * 4,
        torch.nn.functional.normalize(torch.randn(200, 3)),
    )
    theirs.obb.R = theirs.obb.R.float()
    expected = torch.stack(maths.intersect_obb(origins, directions, theirs.obb), -1)
    ours = crop.limits(origins, directions)
    hit = (ours[:, 1] > ours[:, 0]).nonzero()[:, 0]
    assert 10 < len(hit) < 150
    assert torch.allclose(ours[hit], expected[hit].clamp_min(0), atol=1e-3)


def test_a_panorama_in_a_camera_path(tmp_path):
    path = camera_path_of(written(tmp_path, {**PATH, "camera_type": "equirectangular"}))
    assert isinstance(path.cameras[0], PanoramaCamera)


FAULTS = [
    (
        {"camera_type": "fisheye"},
        "expected camera_type perspective or equirectangular, got fisheye",
    ),
    ({"camera_type": "vr180"}, "got vr180"),
    ({"camera_path": []}, "found \\[\\]: add keyframes"),
    ({"camera_path": None}, "found nothing: add keyframes"),
    ({"camera_path": [FRAME, 3]}, r"camera_path\[1\]: expected a frame, found 3"),
    ({"camera_path": [{**FRAME, "fov": 0}]}, r"camera_path\[0\]: expected a field of view"),
    (
        {"camera_path": [{**FRAME, "fov": None}]},
        r"camera_path\[0\].fov: expected numbers, found not",
    ),
    ({"camera_path": [{**FRAME, "camera_to_world": [1] * 9}]}, "a pose of 16 numbers, found 9"),
    ({"camera_path": [{**FRAME, "camera_to_world": [math.nan] * 16}]}, "finite numbers, found"),
    ({"camera_path": [{**FRAME, "camera_to_world": [2] * 16}]}, "expected a rotation"),
    ({"camera_path": [{**FRAME, "camera_to_world": "x"}]}, 'expected numbers, found "x"'),
    ({"render_width": 0}, "expected a number of pixels as render_width, got 0"),
    ({"render_height": 1.5}, "render_height, got 1.5"),
    ({"render_width": None}, "render_width: expected numbers, found nothing"),
    ({"seconds": "x"}, "seconds: expected numbers"),
    ({"crop": 3}, "expected a box as crop"),
    ({"crop": {**CROP, "crop_scale": [1, 2]}}, "crop.crop_scale: expected 3 finite numbers"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_what_is_wrong_with_a_camera_path_is_said(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        camera_path_of(written(tmp_path, {**PATH, **change}))


@pytest.mark.parametrize("content", ["", "[1]", "\x00", "{"])
@pytest.mark.parametrize("read", [camera_path_of, transforms_cameras, WorldTransform.read])
def test_other_files_are_refused(tmp_path, content, read):
    with pytest.raises(ValueError, match=r"expected .* at .*file.json"):
        read(written(tmp_path, content))


def test_transforms_of_a_capture(tmp_path):
    path = transforms_cameras(written(tmp_path, TRANSFORMS))
    camera = path.cameras[2]
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (50, 51, 30.5, 20.5)
    assert (camera.width, camera.height) == (60, 40) and path.notes == ()
    assert np.allclose(camera.camera_to_world, POSE[:3])
    assert transforms_cameras(tmp_path / "file.json", height=80).cameras[0].width == 120
    frames = [{**TRANSFORMS["frames"][0], "fl_x": 70.0, "k1": 0.1}]
    path = transforms_cameras(written(tmp_path, {**TRANSFORMS, "frames": frames}))
    assert path.cameras[0].fx == 70 and "distortion" in path.notes[0]


def test_transforms_of_blender_take_the_size_of_pictures(tmp_path):
    content = {"camera_angle_x": 0.8, "frames": [{"file_path": "./a", **TRANSFORMS["frames"][0]}]}
    content["frames"][0]["file_path"] = "./a"
    file = written(tmp_path, content)
    with pytest.raises(ValueError, match="state --width and --height"):
        transforms_cameras(file)
    camera = transforms_cameras(file, width=20, height=10).cameras[0]
    assert (camera.width, camera.height) == (20, 10)
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    camera = transforms_cameras(file).cameras[0]
    assert (camera.width, camera.height, camera.cx) == (30, 20, 15)
    assert camera.fx == camera.fy == pytest.approx(15 / math.tan(0.4))
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"expected a picture .*a.png"):
        transforms_cameras(file)


def test_transforms_into_the_scene(tmp_path):
    turn = [[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30]]
    world = WorldTransform.read(written(tmp_path, {"transform": turn, "scale": 0.5}, "world.json"))
    camera = transforms_cameras(written(tmp_path, TRANSFORMS), world).cameras[0]
    assert np.allclose(camera.camera_to_world[:, 3], [(10 - 2) / 2, (20 + 1) / 2, (30 + 3) / 2])
    assert np.allclose(camera.camera_to_world[:, :3], np.array(turn)[:, :3] @ POSE[:3, :3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera_model": "OPENCV_FISHEYE"}, "expected a camera_model of .*, got OPENCV_FISHEYE"),
        ({"is_fisheye": True}, "is_fisheye"),
        ({"fl_x": 0}, "focal|fx, fy > 0"),
        ({"fl_x": math.nan}, "fl_x: expected 1 finite numbers"),
        ({"frames": []}, "expected a list of frames"),
        ({"frames": [{"transform_matrix": [[1, 2], [3, 4]]}]}, r"frames\[0\].transform_matrix"),
        ({"w": 0}, "expected a number of pixels as w"),
    ],
)
def test_what_is_wrong_with_transforms_is_said(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        transforms_cameras(written(tmp_path, {**TRANSFORMS, **change}))


def test_panoramas_in_transforms(tmp_path):
    path = transforms_cameras(written(tmp_path, {**TRANSFORMS, "camera_model": "EQUIRECTANGULAR"}))
    assert isinstance(path.cameras[0], PanoramaCamera)
