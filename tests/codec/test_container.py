"""Head, contents and sections: layout, order, tags, damage."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest

from shacira_nerfstudio.codec.container import pack_sections, unpack_sections
from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError, varint

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
    head = b"SHCR" + struct.pack("<HHII", 3, 0, len(contents), zlib.crc32(contents))
    sections = [("DATA", b"hi"), ("DATA", b"!" * 200), ("skip", b"")]
    assert pack_sections(sections) == head + contents + b"hi" + b"!" * 200


@pytest.mark.parametrize("version", [1, 2])
def test_the_older_layout_byte_by_byte(version):
    contents = b"DATA" + struct.pack("<QQI", 40, 2, zlib.crc32(b"hi"))
    head = b"SHCR" + struct.pack("<HHII", version, 0, 24, zlib.crc32(contents))
    assert pack_sections([("DATA", b"hi")], version=version) == head + contents + b"hi"


@pytest.mark.parametrize("version", [2, 3])
@modest(20)
@given(
    st.lists(
        st.tuples(st.sampled_from(["HEAD", "DATA", "skip", "meta"]), st.binary(max_size=9)),
        min_size=1,
        max_size=6,
    )
)
def test_round_trip(version, sections):
    found = unpack_sections(pack_sections(sections, version=version), known=KNOWN)
    assert [(section.tag, bytes(section.payload)) for section in found] == sections


@pytest.mark.parametrize("version", [2, 3])
def test_every_flipped_bit_is_noticed(version):
    data = pack_sections(SECTIONS, version=version)
    for position in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            with pytest.raises(SceneFormatError):
                unpack_sections(broken, known=KNOWN)


@pytest.mark.parametrize("version", [2, 3])
def test_truncation(version):
    data = pack_sections(SECTIONS, version=version)
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
    head = b"SHCR" + struct.pack("<HHII", 3, 0, len(contents), zlib.crc32(contents))
    with pytest.raises(SceneFormatError, match="sections of a tag from 1 to 0"):
        unpack_sections(head + contents, known=KNOWN)


def test_unknown_tags():
    assert len(unpack_sections(pack_sections([("HEAD", b""), ("xyzw", b"")]), known=KNOWN)) == 2
    with pytest.raises(SceneFormatError, match="XYZW"):
        unpack_sections(pack_sections([("XYZW", b"")]), known=KNOWN)
    for tag in ("Data", "DAT", "D4TA", "DÄTA"):
        with pytest.raises(ValueError, match="tag"):
            pack_sections([(tag, b"")])


LIES = {
    3: (
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
    ),
    2: (
        (16, "4s", b"HEAd", "tags"),
        (16, "4s", b"he\0d", "tags"),
        (20, "Q", 0, "at offset"),
        (20, "Q", 113, "at offset"),
        (28, "Q", 2, "at offset"),
        (28, "Q", 2**63, "at offset"),
        (28, "Q", 4, "at offset"),
        (36, "I", 0, "CRC-32"),
    ),
}
"""By format version: position, layout and value of a number in the contents, and what is said."""


@pytest.mark.parametrize(
    ("version", "lie"), [(version, lie) for version, lies in LIES.items() for lie in lies]
)
def test_lies_in_the_contents(version, lie):
    *change, message = lie
    data = repacked(pack_sections(SECTIONS, version=version), *change)
    with pytest.raises(SceneFormatError, match=message):
        unpack_sections(data, known=KNOWN)


def test_head():
    data = pack_sections(SECTIONS)
    for position, layout, value, message in (
        (0, "4s", b"SHCX", "magic"),
        (4, "H", 4, "version 1 to 3, found 4"),
        (4, "H", 0, "version 1 to 3, found 0"),
        (4, "H", 2, "entries"),
        (6, "H", 1, "flags"),
        (8, "I", 0, "entries"),
        (8, "I", 24 * 257, "entries"),
        (8, "I", 24 * 200, "contents"),
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
