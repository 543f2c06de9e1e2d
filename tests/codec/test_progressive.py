"""Level by level gives what decoding the whole file gives, in whatever pieces its bytes come."""

import pytest
from strategies import busy_scene

from shacira_nerfstudio.codec import SceneFormatError, decode_scene, encode_scene, truncate
from shacira_nerfstudio.codec.container import declared_length, unpack_sections
from shacira_nerfstudio.codec.progressive import ProgressiveDecoder
from shacira_nerfstudio.codec.sections.table import KNOWN, LEVEL_TAG


@pytest.fixture(scope="module")
def data():
    return encode_scene(busy_scene())


def level_ends(data):
    """Byte behind each level."""
    sections = unpack_sections(data, known=KNOWN)
    return [s.offset + len(s.payload) for s in sections if s.tag == LEVEL_TAG]


def test_each_level_is_the_scene_of_the_prefix(data):
    decoder = ProgressiveDecoder()
    scenes = list(decoder.feed(data))
    assert decoder.is_complete
    assert scenes == [decode_scene(data[:end], allow_truncated=True) for end in level_ends(data)]
    assert scenes[-1] == decode_scene(data) and scenes[-1].num_levels_present is None


@pytest.mark.parametrize("piece", [None, 997])
def test_bytes_may_come_in_pieces(data, piece):
    """Of so many bytes each; or the moments just around the end of each level."""
    ends, decoder = level_ends(data), ProgressiveDecoder()
    begin = unpack_sections(data, known=KNOWN)[0].offset
    if piece is None:
        marks = {end + shift for end in ends for shift in (-1, 0, 1)} - {len(data) + 1}
    else:
        marks = {*range(begin, len(data), piece), len(data)}
    total = 0
    for size in sorted(marks):
        total += sum(1 for _ in decoder.feed(data[:size]))
        assert total == sum(end <= size for end in ends)
        assert decoder.is_complete == (size == len(data))
    assert list(decoder.feed(data)) == []  # nothing new


def test_a_shortened_file_is_complete_with_its_own_levels(data):
    decoder = ProgressiveDecoder()
    *_, last = decoder.feed(truncate(data, max_level=2))
    assert decoder.is_complete and last.num_levels_present == 3


def test_what_was_yielded_does_not_change(data):
    scenes = ProgressiveDecoder().feed(data)
    first = next(scenes)
    before = first.symbols.copy()
    assert len(list(scenes)) == 4
    assert (first.symbols == before).all()


def test_damage_is_named(data):
    last = level_ends(data)[-2] + 3
    damaged = bytearray(data)
    damaged[last] ^= 1
    with pytest.raises(SceneFormatError, match="LATN"):
        list(ProgressiveDecoder().feed(damaged))
    # Bytes that have not come yet are no damage.
    assert len(list(ProgressiveDecoder().feed(damaged[:last]))) == 4


@pytest.mark.parametrize(("size", "expected"), [(0, None), (3, None), (16, None), (20, None)])
def test_the_length_is_known_with_the_table_of_contents(data, size, expected):
    assert declared_length(data[:size]) is expected
    assert declared_length(data) == len(data)


@pytest.mark.parametrize("start", [b"P", b"SHC_", b"SHCRY"])
def test_other_files_are_refused_as_soon_as_that_is_clear(data, start):
    other = start + data[len(start) :] if start.startswith(b"SHCR") else start
    with pytest.raises(SceneFormatError, match="head"):
        declared_length(other)
