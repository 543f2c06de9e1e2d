"""The container: a head, a table of contents and sections without holes, whatever they mean.

    head      magic "SHCR" | version u16 | flags u16 | length of contents u32 | their CRC-32 u32
    contents  per run of sections of one tag: tag, 4 letters | their number, varint | for each of
              them: length, varint | CRC-32 u32
    sections  one after the other; the last one ends with the file

An upper-case tag must be understood by a reader, a lower-case one may be skipped. Before version 3
the contents were, per section: tag | offset u64 | length u64 | CRC-32 u32.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError, varint

MAGIC = b"SHCR"
VERSION = 3
"""Of the files that are written; all from 1 on are read."""
HEAD = struct.Struct("<4sHHII")
OLD_ENTRY = struct.Struct("<4sQQI")
"""Of the contents before version 3."""

MAX_SECTIONS = 256
MAX_LENGTH = (1 << 32) - 1
_MAX_CONTENTS = OLD_ENTRY.size * MAX_SECTIONS


@dataclass(frozen=True)
class Section:
    """One section of a file; ``payload`` is a view into it."""

    tag: str
    payload: memoryview
    offset: int = 0


def pack_sections(sections: Iterable[tuple[str, bytes]], *, version: int = VERSION) -> bytes:
    """Lays out head, table of contents and sections, in the given order."""
    if not 1 <= version <= VERSION:
        raise ValueError(f"expected format version 1 to {VERSION}, got {version}")
    sections = list(sections)
    if not 1 <= len(sections) <= MAX_SECTIONS:
        raise ValueError(f"expected 1 to {MAX_SECTIONS} sections, got {len(sections)}")
    for tag, payload in sections:
        if not is_tag(tag):
            raise ValueError(f"expected a tag of 4 letters of one case, got {tag!r}")
        if len(payload) > MAX_LENGTH:
            raise ValueError(f"expected sections of at most {MAX_LENGTH} bytes, got {len(payload)}")
    contents = _old_contents(sections) if version < 3 else _contents(sections)
    head = HEAD.pack(MAGIC, version, 0, len(contents), zlib.crc32(contents))
    return b"".join([head, contents, *(payload for _, payload in sections)])


def _contents(sections: Sequence[tuple[str, bytes]]) -> bytes:
    parts = []
    for tag, run in itertools.groupby(sections, key=lambda section: section[0]):
        payloads = [payload for _, payload in run]
        parts += [tag.encode(), varint(len(payloads))]
        for payload in payloads:
            parts += [varint(len(payload)), zlib.crc32(payload).to_bytes(4, "little")]
    return b"".join(parts)


def _old_contents(sections: Sequence[tuple[str, bytes]]) -> bytes:
    offset = HEAD.size + OLD_ENTRY.size * len(sections)
    contents = b""
    for tag, payload in sections:
        contents += OLD_ENTRY.pack(tag.encode(), offset, len(payload), zlib.crc32(payload))
        offset += len(payload)
    return contents


def unpack_sections(
    data: bytes | memoryview, *, allow_truncated: bool = False, known: frozenset[str] = frozenset()
) -> list[Section]:
    """Splits a file and checks head, table of contents, layout and every CRC.

    Args:
        allow_truncated: Accept a file that was cut off behind its table of contents; only its whole
        sections are
            returned.
        known: Tags the caller understands. Another one in upper case is refused.
    """
    data = memoryview(data).cast("B")
    entries, end = _read_contents(data)
    sections = []
    for tag, length, crc in entries:
        if tag.isupper() and tag not in known:
            raise SceneFormatError("contents", "sections this version knows", repr(tag))
        offset, end = end, end + length
        if end > len(data):
            if allow_truncated:
                return sections
            raise SceneFormatError(
                "contents", f"{tag} to end at byte {end}", f"a file of {len(data)} bytes"
            )
        payload = data[offset:end]
        if zlib.crc32(payload) != crc:
            raise SceneFormatError(tag, f"CRC-32 {crc:08x}", f"{zlib.crc32(payload):08x}")
        sections.append(Section(tag, payload, offset))
    if end != len(data):
        raise SceneFormatError("contents", f"a file of {end} bytes", f"{len(data)} bytes")
    return sections


def file_version(data: bytes | memoryview) -> int:
    """Format version of a file that :func:`unpack_sections` has accepted."""
    return HEAD.unpack_from(data)[1]


_Entry = tuple[str, int, int]
"""Tag, length and CRC-32 of a section."""


def _read_contents(data: memoryview) -> tuple[list[_Entry], int]:
    """Entries, and where the first section begins."""
    if len(data) < HEAD.size:
        raise SceneFormatError("head", f"{HEAD.size} bytes", f"{len(data)} bytes")
    magic, version, flags, length, crc = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise SceneFormatError("head", f"magic {MAGIC!r}", repr(magic))
    if not 1 <= version <= VERSION:
        raise SceneFormatError("head", f"format version 1 to {VERSION}", version)
    if flags:
        raise SceneFormatError("head", "flags 0", flags)
    if not 0 < length <= _MAX_CONTENTS or (version < 3 and length % OLD_ENTRY.size):
        raise SceneFormatError(
            "head", f"contents of 1 to {MAX_SECTIONS} entries", f"{length} bytes"
        )
    contents = data[HEAD.size : HEAD.size + length]
    if len(contents) < length:
        raise SceneFormatError("contents", f"{length} bytes", f"{len(contents)} bytes")
    if zlib.crc32(contents) != crc:
        raise SceneFormatError("contents", f"CRC-32 {crc:08x}", f"{zlib.crc32(contents):08x}")
    end = HEAD.size + length
    return _old_entries(contents, end) if version < 3 else _entries(contents), end


def _entries(contents: memoryview) -> list[_Entry]:
    reader = ByteReader(contents, "contents")
    entries: list[_Entry] = []
    while reader.num_left:
        tag = _tag(reader.take(4, "a tag"))
        if entries and entries[-1][0] == tag:
            reader.fail("runs of different tags", f"{tag} twice")
        for _ in range(reader.varint("sections of a tag", 1, MAX_SECTIONS - len(entries))):
            length = reader.varint("length of a section")
            entries.append((tag, length, *reader.unpack("I", "CRC-32")))
    return entries


def _old_entries(contents: memoryview, end: int) -> list[_Entry]:
    entries = []
    for raw, offset, length, crc in OLD_ENTRY.iter_unpack(contents):
        tag = _tag(raw)
        if offset != end:
            raise SceneFormatError("contents", f"{tag} at offset {end}", offset)
        end += length
        entries.append((tag, length, crc))
    return entries


def _tag(raw: bytes | memoryview) -> str:
    tag = bytes(raw).decode("latin-1")
    if not is_tag(tag):
        raise SceneFormatError("contents", "tags of 4 letters of one case", repr(bytes(raw)))
    return tag


def is_tag(tag: str) -> bool:
    return len(tag) == 4 and tag.isascii() and tag.isalpha() and (tag.isupper() or tag.islower())
