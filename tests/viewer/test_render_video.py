"""Pictures and videos: whole or not there, of the right size, in the right colours."""

import os

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from synthetic_ball import make_ball

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.compression.pack import stored_cameras, unpack_scene
from shacira_nerfstudio.viewer.camera_paths import CameraPath
from shacira_nerfstudio.viewer.render_video import (
    check_output,
    render_path,
    with_even_sides,
    write_pictures,
    write_video,
)

COLORS = ([220, 40, 30], [30, 200, 60], [20, 60, 210])


@pytest.fixture(scope="module")
def ball():
    packed = make_ball()
    scene = unpack_scene(packed, get_backend("reference", "cpu"))
    return scene, CameraPath(stored_cameras(packed.cameras))


def plain(colors=COLORS, width=64, height=32):
    return iter([np.full((height, width, 3), color, np.uint8) for color in colors])


def read(path):
    """Frames of a video, uint8 [N, H, W, 3], and what its head says."""
    frames = imageio_ffmpeg.read_frames(str(path))
    meta = next(frames)
    width, height = meta["size"]
    return np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in frames]), meta


def left_over(folder):
    return [path for path in folder.iterdir() if path.name.endswith(".part")]


def test_a_video_holds_the_pictures(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, plain(), fps=12.5)
    frames, meta = read(path)
    assert frames.shape == (3, 32, 64, 3) and meta["fps"] == 12.5 and meta["codec"] == "h264"
    assert np.abs(frames[:, 16, 32].astype(int) - COLORS).max() <= 6
    assert not left_over(tmp_path) and os.stat(path).st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_video_is_there_when_it_is_whole(tmp_path):
    """Whenever the run is killed, the earlier video stays."""
    path = tmp_path / "video.mp4"
    path.write_bytes(b"earlier")

    def frames(fails):
        yield from plain()
        assert path.read_bytes() == b"earlier" and len(left_over(tmp_path)) == 1
        if fails:
            raise KeyboardInterrupt
        yield from plain()

    with pytest.raises(KeyboardInterrupt):
        write_video(path, frames(True), fps=30)
    assert path.read_bytes() == b"earlier" and not left_over(tmp_path)
    write_video(path, frames(False), fps=30)
    assert len(read(path)[0]) == 6


def test_what_the_encoder_says_is_passed_on(tmp_path):
    with pytest.raises(RuntimeError, match=r"expected ffmpeg to write .*video.mp4, got: .+"):
        write_video(tmp_path / "video.mp4", plain(width=63), fps=30)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="pictures per second"):
        write_video(tmp_path / "video.mp4", plain(), fps=0)


def test_videos_need_a_file(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("folder.mp4", "pipe.mp4", "nowhere/video.mp4"):
        with pytest.raises((OSError, ValueError), match="expected"):
            check_output(tmp_path / name)
    for name in ("video.gif", "video.webm", "picture.png"):
        with pytest.raises(ValueError, match=r"expected a video NAME.mp4 or a folder"):
            check_output(tmp_path / name)


def test_sides_of_a_video_are_even(ball):
    path = ball[1].resized(width=13, height=9)
    assert {(c.width, c.height) for c in with_even_sides(path, 1).cameras} == {(14, 10)}
    assert {(c.width, c.height) for c in with_even_sides(path, 2).cameras} == {(13, 10)}
    mixed = CameraPath([*path.cameras, *ball[1].cameras])
    with pytest.raises(ValueError, match="one size for a video, got 2 sizes"):
        with_even_sides(mixed, 1)


def test_a_path_as_a_video(ball, tmp_path):
    done = render_path(ball[0], ball[1], tmp_path / "v.mp4", outputs=("rgb", "depth"))
    frames, meta = read(tmp_path / "v.mp4")
    assert frames.shape == (3, 8, 24, 3) and meta["fps"] == 30
    assert done.files == (tmp_path / "v.mp4",) and done.size == (24, 8) and done.num_frames == 3
    assert 1 < done.depths[0] < done.depths[1] < 4.5
    assert (frames[:, 0, 0] > 240).all() and (frames[:, 0, -1] < 20).all()  # white, and no depth


def test_a_path_as_pictures(ball, tmp_path):
    scene, path = ball
    done = render_path(scene, path, tmp_path / "out")
    assert [file.name for file in done.files] == ["00000.png", "00001.png", "00002.png"]
    with Image.open(done.files[1]) as image:
        expected = (scene.render_view(path.cameras[1]).numpy() * 255 + 0.5).astype(np.uint8)
        assert np.array_equal(np.asarray(image), expected)
    assert done.depths is None


def test_sequences_do_not_mix(ball, tmp_path):
    write_pictures(tmp_path, plain([COLORS[0]] * 5))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"beyond 00002.png .* found 2 .* such as 00003.png"):
        render_path(*ball, tmp_path)
    for number in (3, 4):
        (tmp_path / f"{number:05d}.png").unlink()
    render_path(*ball, tmp_path)  # as long as before: overwritten
    with Image.open(tmp_path / "00000.png") as image:
        assert image.size == (12, 8)


def test_an_output_has_to_be_named(ball, tmp_path):
    with pytest.raises(ValueError, match="expected an output"):
        render_path(*ball, tmp_path / "v.mp4", outputs=())
