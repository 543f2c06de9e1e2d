"""A file of pixels is whole and of these sources, or it is built anew."""

import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from shacira_nerfstudio.scenes import pixel_cache
from shacira_nerfstudio.scenes.pixel_cache import BrokenImages, PixelSource, open_pixel_cache

SIZES = ((3, 5), (4, 2), (6, 6))


def image_of(index, channels=3, bits=8):
    draw = np.random.default_rng(index)
    return draw.integers(0, 2**bits, (*SIZES[index], channels)).astype(f"u{bits // 8}")


def mask_of(index):
    return np.random.default_rng(9 + index).random(SIZES[index]) < 0.5


@pytest.fixture
def make(tmp_path):
    """Opens a cache, and tells which images were decoded for that."""
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        path.write_bytes(path.name.encode() * 99)

    def opened(channels=3, bits=8, has_masks=False, broken=()):
        source = PixelSource(tuple(paths), SIZES, channels, bits, has_masks, {"scale_factor": 1.0})
        decoded = []

        def read(index):
            decoded.append(index)
            if index in broken:
                raise ValueError(f"{paths[index]}: broken")
            return image_of(index, channels, bits), mask_of(index) if has_masks else None

        path = source.file_in(tmp_path / "cache", "scene")
        return open_pixel_cache(path, source, read), sorted(decoded), path

    return opened


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("has_masks", [False, True])
def test_every_pixel_is_where_it_belongs(make, channels, bits, has_masks):
    cache, decoded, _ = make(channels, bits, has_masks)
    assert decoded == [0, 1, 2]
    for index, size in enumerate(SIZES):
        places = np.stack(np.meshgrid([index], *map(np.arange, size), indexing="ij"), -1)
        pixels, masks = cache.gather(places.reshape(-1, 3))
        expected = image_of(index, channels, bits)
        assert pixels.dtype == expected.dtype
        np.testing.assert_array_equal(pixels.reshape(expected.shape), expected)
        if has_masks:
            np.testing.assert_array_equal(masks.reshape(size), mask_of(index))
            np.testing.assert_array_equal(cache.mask(index), mask_of(index))
        else:
            assert masks is None


def test_a_file_serves_again_and_other_options_get_their_own(make):
    assert make()[1] == [0, 1, 2]
    first = make()[2]
    assert make()[1] == []
    assert make(bits=16)[1] == [0, 1, 2]
    assert make()[1] == [] and make(bits=16)[2] != first


def rewrite_in_secret(path):
    state = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


CHANGES = {
    "content": lambda path: path.write_bytes(b"X" + path.read_bytes()[1:]),
    "length": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "time": lambda path: os.utime(path, ns=(1, 1)),
    "content at the same time": rewrite_in_secret,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_is_read_again(make, tmp_path, change, caplog):
    make()
    CHANGES[change](tmp_path / "1.png")
    caplog.set_level("INFO")
    assert make()[1] == [0, 1, 2]
    assert "1.png changed since it was built" in caplog.text
    assert make()[1] == []


def flip(place):
    def damage(path):
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)

    return damage


DAMAGES = {
    "magic": (flip(0), "its beginning is damaged"),
    "place": (flip(8), "another length than it says"),
    "length": (flip(16), "another length than it says"),
    "sum": (flip(20), "its description is damaged"),
    "description": (flip(-5), "its description is damaged"),
    "pixels": (flip(4096 + 70), "some of its pixels are damaged"),
    "masks": (flip(4096 + 59 * 3 + 20), "some of its pixels are damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "another length than it says"),
    "cut to a few bytes": (lambda path: path.write_bytes(b"SHP"), "it is cut off"),
    "nothing": (lambda path: path.write_bytes(b""), "it is cut off"),
    "no description": (lambda path: path.write_bytes(_without_text()), "description is damaged"),
}


def _without_text():
    return struct.pack("<8sQII", b"SHPIXELS", 24, 0, 77)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_built_anew(make, damage, caplog):
    path = make(has_masks=True)[2]
    change, reason = DAMAGES[damage]
    change(path)
    caplog.set_level("INFO")
    cache, decoded, _ = make(has_masks=True)
    assert decoded == [0, 1, 2] and reason in caplog.text
    np.testing.assert_array_equal(cache.gather(np.array([[2, 1, 3]]))[0][0], image_of(2)[1, 3])


def test_all_broken_images_are_named_and_no_file_is_left(make, tmp_path):
    with pytest.raises(BrokenImages) as error:
        make(broken=(0, 2))
    assert [str(tmp_path / f"{index}.png") in error.value.faults[index // 2] for index in (0, 2)]
    assert len(error.value.faults) == 2
    assert not list((tmp_path / "cache").glob("*.pixels")) and not parts(tmp_path)
    assert make()[1] == [0, 1, 2]


def parts(folder):
    return list((folder / "cache").glob("*.part"))


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from shacira_nerfstudio.scenes.pixel_cache import PixelSource, open_pixel_cache
folder = Path(sys.argv[1])
source = PixelSource(
    tuple(folder / f"{index}.png" for index in range(3)),
    ((3, 5), (4, 2), (6, 6)), 3, 8, False, {"scale_factor": 1.0},
)
def read(index):
    if index:
        print("half", flush=True)
        time.sleep(600)  # until it is killed
    return np.zeros((*source.sizes[index], 3), np.uint8), None
open_pixel_cache(source.file_in(folder / "cache", "scene"), source, read)
"""


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(make, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(parts(tmp_path)) == 1 and not list((tmp_path / "cache").glob("*.pixels"))
    cache, decoded, path = make()
    assert decoded == [0, 1, 2] and path.is_file() and not parts(tmp_path)
    np.testing.assert_array_equal(cache.gather(np.array([[0, 2, 4]]))[0][0], image_of(0)[2, 4])


def test_who_comes_second_waits(make, tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    build, num_builds = pixel_cache._build, []

    def slow_build(*args):
        num_builds.append(1)
        time.sleep(0.2)
        build(*args)

    monkeypatch.setattr(pixel_cache, "_build", slow_build)
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(make) for _ in range(2)]
        assert sorted(len(result.result()[1]) for result in results) == [0, 3]
    assert len(num_builds) == 1


def test_an_image_of_another_size_is_a_fault(make, monkeypatch):
    monkeypatch.setitem(globals(), "image_of", lambda *_: np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(BrokenImages, match=r"expected \(3, 5, 3\), found \(2, 2, 3\)"):
        make()
