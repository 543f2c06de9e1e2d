"""Pictures on disk, through Pillow, and through the command line."""

import dataclasses
import json

import make
import numpy as np
import pytest
import tifffile
from PIL import Image, UnidentifiedImageError
from synthetic_pictures import frames, picture

from shacira_nerfstudio.cli.main import main
from shacira_nerfstudio.codec import encode_scene, load_scene
from shacira_nerfstudio.pictures import pillow_plugin
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.files import image_files
from shacira_nerfstudio.pictures.files.image_files import read_image, write_image
from shacira_nerfstudio.pictures.files.video_files import read_video

QUICK = ["--num-steps", "30"]


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_are_read_as_they_were_written(tmp_path, ending, bits, channels):
    pixels = picture(9, 7, channels, bits)
    write_image(tmp_path / f"a{ending}", pixels)
    found, layout = read_image(tmp_path / f"a{ending}")
    if channels == 2 and bits == 16 and ending == ".png":
        found, layout = found[..., [0, 3]], None  # OpenCV has no grey with alpha
    assert np.array_equal(found, pixels)
    assert layout is None or (layout.channels, layout.bits) == (channels, bits)


def test_large_files_are_read_and_written_in_parts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(image_files, "LARGE_PIXELS", 100)
    for ending in (".npy", ".tif"):
        source, back = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
        size = ["--width", "40", "--height", "30"]
        assert run(capsys, "image", "synthetic", "-o", source, *size)[0] == 0
        pixels, layout = read_image(source)
        assert isinstance(pixels, np.memmap) and (layout.width, layout.height) == (40, 30)
        assert len(np.unique(pixels)) > 20
        path = tmp_path / "a.shacira"
        assert run(capsys, "image", "compress", source, "-o", path, *QUICK)[0] == 0
        assert run(capsys, "image", "decompress", path, "-o", back)[0] == 0
        expected = PixelDecoder(load_scene(path)).pixels()
        assert np.array_equal(read_image(back)[0], expected)


def test_large_tiled_files_are_unpacked_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "LARGE_PIXELS", 100)
    pixels = picture(40, 36)
    for name, options in {"tiles": {"tile": (16, 16)}, "strips": {"rowsperstrip": 5}}.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", **options)
        found, layout = read_image(path)
        assert isinstance(found, np.memmap) and layout.channels == 3
        assert np.array_equal(found, pixels)


def test_what_pillow_means(tmp_path):
    rgb = Image.fromarray(picture(9, 7))
    rgb.convert("P").save(tmp_path / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    rgb.save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(picture(9, 7)[..., 0] > 128).save(tmp_path / "bits.png")
    assert read_image(tmp_path / "palette.png")[0].shape == (7, 9, 3)
    assert read_image(tmp_path / "turned.jpg")[0].shape == (9, 7, 3)
    assert read_image(tmp_path / "bits.png")[0].max() == 255


def test_pillow_opens_files(tmp_path):
    pillow_plugin.register()
    path = tmp_path / "a.shacira"
    path.write_bytes(encode_scene(make.tiny_picture()))
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("SHACIRA", "RGBA", (15, 10))
        expected = PixelDecoder(make.tiny_picture()).pixels()
        assert np.array_equal(np.asarray(image), expected)
        image.convert("RGB").resize((30, 20)).save(tmp_path / "a.png")
    path.write_bytes(encode_scene(make.tiny_frames()))
    with Image.open(path) as video:
        assert video.mode == "I;16" and video.n_frames == 4
        video.seek(2)
        expected = PixelDecoder(make.tiny_frames()).pixels(frame=2)[..., 0]
        assert np.array_equal(np.asarray(video), expected)
        with pytest.raises(EOFError):
            video.seek(4)
    path.write_bytes(encode_scene(make.tiny_scene()))
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)


def test_pillow_has_16_bits_for_grey_alone(tmp_path):
    # Colours are rounded to what it has, and it is said that they were 16 bits.
    path, picture = tmp_path / "a.shacira", make.tiny_picture()
    deep = dataclasses.replace(picture, architecture={**picture.architecture, "bits": 16})
    path.write_bytes(encode_scene(deep))
    with Image.open(path) as image:
        assert (image.mode, image.info["bits"]) == ("RGBA", 16)
        expected = (PixelDecoder(deep).pixels().astype(int) + 128) // 257
        assert np.array_equal(np.asarray(image), expected)


def test_a_damaged_file_is_an_error_of_pillows(tmp_path):
    data = bytearray(encode_scene(make.tiny_picture()))
    path = tmp_path / "a.shacira"
    for position in range(0, len(data), 7):
        broken = bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        path.write_bytes(broken)
        with pytest.raises((OSError, UnidentifiedImageError)), Image.open(path) as image:
            image.load()


def run(capsys, *args):
    status = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_there_and_back(tmp_path, capsys):
    write_image(tmp_path / "a.png", picture())
    status, out, _ = run(
        capsys, "image", "compress", tmp_path / "a.png", "-o", tmp_path / "a.shacira", "--quality",
        "draft", "--num-steps", "120", "--json",
    )  # fmt: skip
    row = json.loads(out)
    assert status == 0 and row["bytes"] == (tmp_path / "a.shacira").stat().st_size
    assert "48x36 pixels, 3 channels" in run(capsys, "info", tmp_path / "a.shacira")[1]
    for command in (["info"], ["verify"], ["truncate", tmp_path / "b.shacira", "--max-level", "1"]):
        name, *rest = command
        assert run(capsys, name, tmp_path / "a.shacira", *rest)[0] == 0
    assert run(capsys, "diff", tmp_path / "a.shacira", tmp_path / "b.shacira")[0] == 1
    status, out, _ = run(
        capsys, "image", "decompress", tmp_path / "a.shacira", "-o", tmp_path / "b.png", "--box",
        "4", "2", "24", "12", "--scale", "2.5",
    )  # fmt: skip
    assert status == 0 and "50x25 pixels" in out
    assert read_image(tmp_path / "b.png")[0].shape == (25, 50, 3)


def test_folders_go_on_where_they_were(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_image(tmp_path / "in" / f"{name}.png", picture(20, 16))
    command = ["image", "compress", tmp_path / "in", "-o", tmp_path / "out", *QUICK]
    assert run(capsys, *command)[0] == 0
    first = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert sorted(first) == ["a.shacira", "b.shacira"]
    (tmp_path / "out" / "b.shacira").write_bytes(b"half a file")
    status, out, _ = run(capsys, *command)
    assert status == 0 and out.startswith("1 files are there already")
    again = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert again["a.shacira"] == first["a.shacira"] and again["b.shacira"] != first["b.shacira"]
    status, _, _ = run(capsys, "image", "decompress", tmp_path / "out", "-o", tmp_path / "back")
    assert status == 0 and len(list((tmp_path / "back").iterdir())) == 2
    (tmp_path / "back" / "b.png").unlink()
    kept = (tmp_path / "back" / "a.png").stat().st_mtime_ns
    status, out, _ = run(capsys, "image", "decompress", tmp_path / "out", "-o", tmp_path / "back")
    assert status == 0 and out.startswith("1 pictures are there already") and "b.png" in out
    assert (tmp_path / "back" / "a.png").stat().st_mtime_ns == kept


@pytest.mark.parametrize("kind", ["folder", "mp4", "y4m"])
def test_videos_there_and_back(tmp_path, capsys, kind):
    source = tmp_path / "in"
    source.mkdir()
    for number, frame in enumerate(frames(width=32, height=16)):
        write_image(source / f"{number:03d}.png", frame)
    path = tmp_path / "a.shacira"
    status, out, _ = run(
        capsys, "video", "compress", source, "-o", path, "--rate", "12.5", *QUICK, "--json"
    )
    assert status == 0 and json.loads(out)["frames"] == 6
    target = tmp_path / ("out" if kind == "folder" else f"out.{kind}")
    status, out, _ = run(capsys, "video", "decompress", path, "-o", target, "--frames", "1", "5")
    assert status == 0 and "4 frames of 32x16 pixels" in out
    pixels, layout = read_video(target)
    assert pixels.shape == (4, 16, 32, 3)
    assert kind == "folder" or layout.rate == (25, 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["image", "compress", "none.png", "-o", "a.shacira"], "a file or a folder"),
        (["image", "decompress", "a.shacira", "-o", "a.gif"], "a file ending in"),
        (["image", "decompress", "a.shacira", "-o", "a.jpg"], "a format with alpha"),
        (["image", "decompress", "a.shacira", "-o", "a.png", "--box", "0", "0", "99", "1"],
         "a box"),
        (["image", "decompress", "s.shacira", "-o", "a.png"], "a picture or a video"),
        (["image", "decompress", "v.shacira", "-o", "a.png"], "got the video"),
        (["video", "decompress", "a.shacira", "-o", "out"], "got the picture"),
        (["video", "decompress", "v.shacira", "-o", "out", "--frames", "2", "5"], "frames within"),
        (["video", "compress", "a.shacira", "-o", "b.shacira"], "a folder or a video of"),
        (["image", "compress", "a.shacira", "-o", "b.shacira", *QUICK, "--target-bpp", "1",
          "--target-psnr", "30"], "one target"),
    ],
)  # fmt: skip
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    scenes = {"a": make.tiny_picture(), "v": make.tiny_frames(), "s": make.tiny_scene()}
    for name, scene in scenes.items():
        (tmp_path / f"{name}.shacira").write_bytes(encode_scene(scene))
    status, _, err = run(capsys, *args)
    assert status == 2 and message in err and err.count("\n") == 1
