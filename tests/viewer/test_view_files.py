"""Files that grow, are replaced, damaged or something else."""

import time

import pytest
from strategies import busy_scene
from synthetic_ball import make_ball
from view_client import LIMIT_S

from shacira_nerfstudio.codec import encode_scene, save_scene, truncate
from shacira_nerfstudio.codec.container import unpack_sections
from shacira_nerfstudio.codec.sections.table import KNOWN, LEVEL_TAG
from shacira_nerfstudio.viewer.live.scene_files import SceneFile, check_file, shown_name


@pytest.fixture(scope="module")
def data():
    return encode_scene(make_ball())


@pytest.fixture
def watched(tmp_path):
    """Starts to watch a file; what was seen of it is collected in ``.seen``."""
    files = []

    def watch(content):
        path = tmp_path / "scene.shacira"
        path.write_bytes(content)
        seen = []
        file = SceneFile(path, lambda f: seen.append((f.status, f.scene)))
        file.seen = seen
        files.append(file)
        file.start()
        file.show()
        return file

    yield watch
    for file in files:
        file.stop()


def wait_for(condition):
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def level_ends(data):
    sections = unpack_sections(data, known=KNOWN)
    return [s.offset + len(s.payload) for s in sections if s.tag == LEVEL_TAG]


def test_a_whole_file_is_shown(watched, data):
    file = watched(data)
    wait_for(lambda: file.status.is_complete)
    assert file.scene.num_levels == 3
    assert file.status.words() == f"{len(data):,} bytes, 3 levels"


def test_a_file_that_grows_is_shown_level_by_level(watched, data):
    ends = level_ends(data)
    file = watched(data[:5])
    wait_for(lambda: file.status.num_bytes == 5)
    assert file.scene is None and file.status.words() == "5 bytes"
    for level, end in enumerate(ends[:-1], 1):
        file.path.write_bytes(data[: end + 1])
        wait_for(lambda level=level: file.scene is not None and file.scene.num_levels == level)
        wait_for(lambda level=level: file.status.num_levels == level)
        assert not file.status.is_complete
        expected = f"{end + 1:,} of {len(data):,} bytes, {level} of 3 levels"
        assert file.status.words() == expected
    coarse = file.scene
    file.path.write_bytes(data)
    wait_for(lambda: file.status.is_complete)
    assert file.scene.num_levels == 3 and coarse.num_levels == 2
    assert not any(status.error for status, _ in file.seen)


def test_another_file_in_its_place_is_shown(watched, data):
    file = watched(data)
    wait_for(lambda: file.status.is_complete)
    first = file.scene
    save_scene(file.path, truncate(data, max_level=0))
    wait_for(lambda: file.scene is not first)
    wait_for(lambda: file.status.num_levels == 1 and file.status.is_complete)
    assert file.scene.num_levels == 1


def test_a_file_that_is_removed_stays_on_show(watched, data):
    file = watched(data)
    wait_for(lambda: file.status.is_complete)
    path, looks = file.path, []

    class Counted:
        def stat(self):
            looks.append(1)
            return path.stat()

    path.unlink()
    file.path = Counted()
    wait_for(lambda: len(looks) > 1)  # the first look has been dealt with
    assert file.scene is not None and not file.status.error


def test_damage_is_said_and_what_was_there_stays(watched, data):
    file = watched(data[: level_ends(data)[1]])
    wait_for(lambda: file.scene is not None and file.scene.num_levels == 2)
    damaged = bytearray(data)
    damaged[-1] ^= 1
    file.path.write_bytes(damaged)
    wait_for(lambda: file.status.error)
    assert "LATN" in file.status.words() and "damaged" in file.status.words()
    assert file.scene.num_levels == 2
    file.path.write_bytes(data)  # sent again
    wait_for(lambda: file.status.is_complete)
    assert file.scene.num_levels == 3


def test_files_are_checked_before_anything_starts(tmp_path, data):
    path = tmp_path / "scene.shacira"
    with pytest.raises(ValueError, match="found none"):
        check_file(path)
    for content in (b"", data[:9], data[:700], data):  # still growing, or whole
        path.write_bytes(content)
        check_file(path)
    damaged = bytearray(data)
    damaged[-1] ^= 1
    for content, reason in ((b"PK\x03\x04", "magic"), (bytes(damaged), "LATN")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"scene.shacira: {reason}|head.*{reason}"):
            check_file(path)


def test_a_picture_is_no_scene_with_views(tmp_path, data):
    del data
    golden = __import__("pathlib").Path(__file__).parents[1] / "golden" / "v1_tiny_image.shacira"
    with pytest.raises(ValueError, match="radiance_field"):
        check_file(golden)


def test_a_scene_without_networks_is_refused_in_words(watched):
    file = watched(encode_scene(busy_scene()))
    wait_for(lambda: file.status.error)
    assert "RNDR" in file.status.error and file.scene is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lego.shacira", "lego.shacira"), ("a_b.shacira", "a\\_b.shacira"), ("{x}<b>`", "·x··b··")],
)
def test_names_are_text_for_the_browser(tmp_path, name, expected):
    assert shown_name(tmp_path / name) == expected
