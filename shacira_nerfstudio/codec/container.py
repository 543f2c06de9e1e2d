"""The container: a head, a table of contents and sections without holes, whatever they mean.

    head      magic "SHCR" | version u16 | flags u16 | length of contents u32 | their CRC-32 u32
    contents  per run of sections of one tag: tag, 4 ASCII letters | their number, varint | for each
              of them: length, varint | CRC-32 u32
    sections  one after the other; the last one ends with the file

An upper-case tag must be understood by a reader, a lower-case one may be skipped.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError, varint

MAGIC = b"SHCR"
VERSION = 1
HEAD = struct.Struct("<4sHHII")

MAX_SECTIONS = 256
MAX_LENGTH = (1 << 32) - 1
MAX_CONTENTS = 16 * MAX_SECTIONS


@dataclass(frozen=True)
class Section:
    """One section of a file; ``payload`` is a view into it."""

    tag: str
    payload: memoryview
    offset: int = 0


def pack_sections(sections: Iterable[tuple[str, bytes]]) -> bytes:
    """Lays out head, table of contents and sections, in the given order."""
    sections = list(sections)
    if not 1 <= len(sections) <= MAX_SECTIONS:
        raise ValueError(f"expected 1 to {MAX_SECTIONS} sections, got {len(sections)}")
    for tag, payload in sections:
        if not is_tag(tag):
            raise ValueError(f"expected a tag of 4 letters of one case, got {tag!r}")
        if len(payload) > MAX_LENGTH:
            raise ValueError(f"expected sections of at most {MAX_LENGTH} bytes, got {len(payload)}")
    parts = []
    for tag, run in itertools.groupby(sections, key=lambda section: section[0]):
        payloads = [payload for _, payload in run]
        parts += [tag.encode(), varint(len(payloads))]
        for payload in payloads:
            parts += [varint(len(payload)), zlib.crc32(payload).to_bytes(4, "little")]
    contents = b"".join(parts)
    head = HEAD.pack(MAGIC, VERSION, 0, len(contents), zlib.crc32(contents))
    return b"".join([head, contents, *(payload for _, payload in sections)])


def unpack_sections(
    data: bytes | memoryview, *, allow_truncated: bool = False, known: frozenset[str] = frozenset()
) -> list[Section]:
    """Splits a file and checks head, table of contents, layout and every CRC.

    Args:
        allow_truncated: Accept a file that was truncated behind its table of contents; only its
            whole sections are returned.
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


def declared_length(data: bytes | memoryview) -> int | None:
    """How long a file is by its table of contents, given its beginning; None if that is too short
    to say.

    Raises:
        SceneFormatError: no file of ours begins so.
    """
    data = memoryview(data).cast("B")
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise SceneFormatError("head", f"magic {MAGIC!r}", repr(bytes(data[: len(MAGIC)])))
    if len(data) < HEAD.size:
        return None
    length = HEAD.unpack_from(data)[3]
    if len(data) - HEAD.size < length <= MAX_CONTENTS:
        return None
    entries, begin = _read_contents(data)
    return begin + sum(length for _, length, _ in entries)


def _read_contents(data: memoryview) -> tuple[list[tuple[str, int, int]], int]:
    """Tag, length and CRC-32 of each section, and where the first one begins."""
    if len(data) < HEAD.size:
        raise SceneFormatError("head", f"{HEAD.size} bytes", f"{len(data)} bytes")
    magic, version, flags, length, crc = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise SceneFormatError("head", f"magic {MAGIC!r}", repr(magic))
    if version != VERSION:
        raise SceneFormatError("head", f"format version {VERSION}", version)
    if flags:
        raise SceneFormatError("head", "flags 0", flags)
    if not 1 <= length <= MAX_CONTENTS:
        raise SceneFormatError("head", f"contents of 1 to {MAX_CONTENTS} bytes", length)
    contents = data[HEAD.size : HEAD.size + length]
    if len(contents) < length:
        raise SceneFormatError("contents", f"{length} bytes", f"{len(contents)} bytes")
    if zlib.crc32(contents) != crc:
        raise SceneFormatError("contents", f"CRC-32 {crc:08x}", f"{zlib.crc32(contents):08x}")
    reader = ByteReader(contents, "contents")
    entries: list[tuple[str, int, int]] = []
    while reader.num_left:
        tag = bytes(reader.take(4, "a tag")).decode("latin-1")
        if not is_tag(tag):
            reader.fail("tags of 4 letters of one case", repr(tag))
        if entries and entries[-1][0] == tag:
            reader.fail("runs of different tags", f"{tag} twice")
        for _ in range(reader.varint("sections of a tag", 1, MAX_SECTIONS - len(entries))):
            size = reader.varint("length of a section")
            entries.append((tag, size, *reader.unpack("I", "CRC-32")))
    return entries, HEAD.size + length


def is_tag(tag: str) -> bool:
    return len(tag) == 4 and tag.isascii() and tag.isalpha() and (tag.isupper() or tag.islower())
