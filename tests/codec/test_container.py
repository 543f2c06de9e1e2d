"""Head, contents and sections: layout, order, tags, damage."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest

from shacira_nerfstudio.codec.container import pack_sections, unpack_sections
from shacira_nerfstudio.codec.wire import ByteReader, SceneFormatError, varint

KNOWN = frozenset(["HEAD", "DATA"])
SECTIONS = [("HEAD", b"abc"), ("skip", b""), ("DATA", b"\0" * 5), ("DATA", b"x")]


def repacked(data, position, layout, value):
    """``data`` with one number of its contents replaced and their CRC made right again."""
    data = bytearray(data)
    struct.pack_into("<" + layout, data, position, value)
    length = struct.unpack_from("<I", data, 8)[0]
    struct.pack_into("<I", data, 12, zlib.crc32(data[16 : 16 + length]))
    return bytes(data)


def test_layout_byte_by_byte():
    contents = b"DATA" + struct.pack("<QQI", 40, 2, zlib.crc32(b"hi"))
    expected = b"SHCR" + struct.pack("<HHII", 2, 0, 24, zlib.crc32(contents)) + contents + b"hi"
    assert pack_sections([("DATA", b"hi")]) == expected


@modest(20)
@given(
    st.lists(
        st.tuples(st.sampled_from(["HEAD", "DATA", "skip", "meta"]), st.binary(max_size=9)),
        min_size=1,
        max_size=6,
    )
)
def test_round_trip(sections):
    found = unpack_sections(pack_sections(sections), known=KNOWN)
    assert [(section.tag, bytes(section.payload)) for section in found] == sections


def test_every_flipped_bit_is_noticed():
    data = pack_sections(SECTIONS)
    for position in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            with pytest.raises(SceneFormatError):
                unpack_sections(broken, known=KNOWN)


def test_truncation():
    data = pack_sections(SECTIONS)
    for length in range(len(data)):
        with pytest.raises(SceneFormatError):
            unpack_sections(data[:length], known=KNOWN)
    start = len(data) - 9
    for length in range(start, len(data)):
        found = unpack_sections(data[:length], allow_truncated=True, known=KNOWN)
        assert len(found) == sum(length >= start + end for end in (3, 3, 8, 9))
    with pytest.raises(SceneFormatError, match="contents"):
        unpack_sections(data[: start - 1], allow_truncated=True, known=KNOWN)
    with pytest.raises(SceneFormatError, match="file of"):
        unpack_sections(data + b"\0", known=KNOWN)


def test_unknown_tags():
    assert len(unpack_sections(pack_sections([("HEAD", b""), ("xyzw", b"")]), known=KNOWN)) == 2
    with pytest.raises(SceneFormatError, match="XYZW"):
        unpack_sections(pack_sections([("XYZW", b"")]), known=KNOWN)
    for tag in ("Data", "DAT", "D4TA", "DÄTA"):
        with pytest.raises(ValueError, match="tag"):
            pack_sections([(tag, b"")])


def test_lies_in_the_contents():
    data = pack_sections(SECTIONS)
    for position, layout, value in (
        (16, "4s", b"HEAd"),
        (16, "4s", b"he\0d"),
        (20, "Q", 0),
        (20, "Q", 113),
        (28, "Q", 2),
        (28, "Q", 2**63),
        (28, "Q", 4),
        (36, "I", 0),
    ):
        with pytest.raises(SceneFormatError):
            unpack_sections(repacked(data, position, layout, value), known=KNOWN)


def test_head():
    data = pack_sections(SECTIONS)
    for position, layout, value, message in (
        (0, "4s", b"SHCX", "magic"),
        (4, "H", 3, "version 1 to 2, found 3"),
        (4, "H", 0, "version 1 to 2, found 0"),
        (6, "H", 1, "flags"),
        (8, "I", 25, "entries"),
        (8, "I", 0, "entries"),
        (8, "I", 24 * 257, "entries"),
        (8, "I", 24 * 200, "contents"),
    ):
        broken = bytearray(data)
        struct.pack_into("<" + layout, broken, position, value)
        with pytest.raises(SceneFormatError, match=message):
            unpack_sections(broken, known=KNOWN)


@modest(30)
@given(st.integers(0, 2**32 - 1))
def test_varints(value):
    reader = ByteReader(varint(value), "test")
    assert reader.varint("number") == value
    reader.finish()


def test_what_is_no_varint():
    for data in (b"", b"\x80", b"\x80\x00", b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x7f"):
        with pytest.raises(SceneFormatError):
            ByteReader(data, "test").varint("number")


def test_errors_name_section_expected_and_found():
    with pytest.raises(SceneFormatError, match="GRID: expected 4 bytes of levels, found 1") as info:
        ByteReader(b"x", "GRID").array("<u4", 1, "levels")
    assert (info.value.section, info.value.found) == ("GRID", "1 bytes")
