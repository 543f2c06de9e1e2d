"""Head, contents and sections: layout, order, tags, damage."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest

from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError, varint
from shacira_nerfstudio.codec.container import pack_sections, unpack_sections

KNOWN = frozenset(["HEAD", "DATA"])
SECTIONS = [("HEAD", b"abc"), ("skip", b""), ("DATA", b"\0" * 5), ("DATA", b"x")]


def repacked(data, position, layout, value):
    """``data`` with one number of its contents replaced and their CRC made right again."""
    data = bytearray(data)
    assert position < 16 + struct.unpack_from("<I", data, 8)[0]
    struct.pack_into("<" + layout, data, position, value)
    length = struct.unpack_from("<I", data, 8)[0]
    struct.pack_into("<I", data, 12, zlib.crc32(data[16 : 16 + length]))
    return bytes(data)


def test_layout_byte_by_byte():
    contents = b"DATA\x02\x02" + struct.pack("<I", zlib.crc32(b"hi"))
    contents += b"\xc8\x01" + struct.pack("<I", zlib.crc32(b"!" * 200))
    contents += b"skip\x01\0\0\0\0\0"
    head = b"SHCR" + struct.pack("<HHII", 1, 0, len(contents), zlib.crc32(contents))
    sections = [("DATA", b"hi"), ("DATA", b"!" * 200), ("skip", b"")]
    assert pack_sections(sections) == head + contents + b"hi" + b"!" * 200


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


def test_too_many_sections():
    assert len(unpack_sections(pack_sections([("DATA", b"")] * 256), known=KNOWN)) == 256
    with pytest.raises(ValueError, match="1 to 256 sections"):
        pack_sections([("DATA", b"")] * 257)
    run = b"\x80\x01" + (b"\0" * 5) * 128
    contents = b"DATA" + run + b"HEAD" + run + b"DATA\x01" + b"\0" * 5
    head = b"SHCR" + struct.pack("<HHII", 1, 0, len(contents), zlib.crc32(contents))
    with pytest.raises(SceneFormatError, match="sections of a tag from 1 to 0"):
        unpack_sections(head + contents, known=KNOWN)


def test_unknown_tags():
    assert len(unpack_sections(pack_sections([("HEAD", b""), ("xyzw", b"")]), known=KNOWN)) == 2
    with pytest.raises(SceneFormatError, match="XYZW"):
        unpack_sections(pack_sections([("XYZW", b"")]), known=KNOWN)
    for tag in ("Data", "DAT", "D4TA", "DÄTA"):
        with pytest.raises(ValueError, match="tag"):
            pack_sections([(tag, b"")])


LIES = (
    (16, "4s", b"HEAd", "tags"),
    (20, "B", 0, "sections of a tag"),
    (20, "B", 200, "sections of a tag from 1 to 256"),
    (21, "B", 4, "CRC-32"),
    (21, "B", 2, "CRC-32"),
    (21, "H", 0x0083, "shortest"),
    (22, "I", 0, "CRC-32"),
    (26, "4s", b"HEAD", "different"),
    (40, "B", 3, "bytes of length of a section"),
    (41, "B", 77, "to end at"),
)
"""Position, layout and value of a number in the contents, and the message."""


@pytest.mark.parametrize("lie", LIES)
def test_lies_in_the_contents(lie):
    *change, message = lie
    with pytest.raises(SceneFormatError, match=message):
        unpack_sections(repacked(pack_sections(SECTIONS), *change), known=KNOWN)


def test_head():
    data = pack_sections(SECTIONS)
    for position, layout, value, message in (
        (0, "4s", b"SHCX", "magic"),
        (4, "H", 2, "version 1, found 2"),
        (4, "H", 0, "version 1, found 0"),
        (6, "H", 1, "flags"),
        (8, "I", 0, "1 to 4096 bytes"),
        (8, "I", 4097, "1 to 4096 bytes"),
        (8, "I", 4096, "contents: expected 4096 bytes"),
        (8, "I", 30, "CRC-32"),
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
