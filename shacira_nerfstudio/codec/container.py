"""The container: a head, a table of contents and sections without holes, whatever they mean.

    head      magic "SHCR" | version u16 | flags u16 | length of contents u32 | their CRC-32 u32
    contents  per section: tag, 4 letters | offset u64 | length u64 | CRC-32 u32
    sections  one after the other; the last one ends with the file

An upper-case tag must be understood by a reader, a lower-case one may be skipped.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from shacira_nerfstudio.codec.wire import SceneFormatError

MAGIC = b"SHCR"
VERSION = 2
"""Of the files that are written; all from 1 on are read."""
HEAD = struct.Struct("<4sHHII")
ENTRY = struct.Struct("<4sQQI")
MAX_SECTIONS = 256


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
    offset = HEAD.size + ENTRY.size * len(sections)
    contents = b""
    for tag, payload in sections:
        if not is_tag(tag):
            raise ValueError(f"expected a tag of 4 letters of one case, got {tag!r}")
        contents += ENTRY.pack(tag.encode(), offset, len(payload), zlib.crc32(payload))
        offset += len(payload)
    head = HEAD.pack(MAGIC, version, 0, len(contents), zlib.crc32(contents))
    return b"".join([head, contents, *(payload for _, payload in sections)])


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
    entries = _read_contents(data)
    end = HEAD.size + ENTRY.size * len(entries)
    sections = []
    for tag, offset, length, crc in entries:
        if tag.isupper() and tag not in known:
            raise SceneFormatError("contents", "sections this version knows", repr(tag))
        if offset != end:
            raise SceneFormatError("contents", f"{tag} at offset {end}", offset)
        end = offset + length
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


def _read_contents(data: memoryview) -> list[tuple[str, int, int, int]]:
    if len(data) < HEAD.size:
        raise SceneFormatError("head", f"{HEAD.size} bytes", f"{len(data)} bytes")
    magic, version, flags, length, crc = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise SceneFormatError("head", f"magic {MAGIC!r}", repr(magic))
    if not 1 <= version <= VERSION:
        raise SceneFormatError("head", f"format version 1 to {VERSION}", version)
    if flags:
        raise SceneFormatError("head", "flags 0", flags)
    if length % ENTRY.size or not ENTRY.size <= length <= ENTRY.size * MAX_SECTIONS:
        raise SceneFormatError(
            "head", f"contents of 1 to {MAX_SECTIONS} entries", f"{length} bytes"
        )
    contents = data[HEAD.size : HEAD.size + length]
    if len(contents) < length:
        raise SceneFormatError("contents", f"{length} bytes", f"{len(contents)} bytes")
    if zlib.crc32(contents) != crc:
        raise SceneFormatError("contents", f"CRC-32 {crc:08x}", f"{zlib.crc32(contents):08x}")
    entries = []
    for raw, offset, size, section_crc in ENTRY.iter_unpack(contents):
        tag = raw.decode("latin-1")
        if not is_tag(tag):
            raise SceneFormatError("contents", "tags of 4 letters of one case", repr(raw))
        entries.append((tag, offset, size, section_crc))
    return entries


def is_tag(tag: str) -> bool:
    return len(tag) == 4 and tag.isascii() and tag.isalpha() and (tag.isupper() or tag.islower())
