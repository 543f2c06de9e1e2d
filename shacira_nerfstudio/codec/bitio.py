"""The codec's ground: one error type, readers and writers of bytes and of bits.

Every reader here knows the section it reads and refuses to run past its end, so nothing above has
to check lengths again. All multi-byte numbers are little-endian; bits run from the most significant
of each byte.
"""

from __future__ import annotations

import struct

import numpy as np

MAX_EXPONENT = 32
"""Most zeros before an exponential Golomb code; more only occur in damaged files."""


class SceneFormatError(ValueError):
    """Bytes that are not a valid scene: which section, what was expected there, what was found."""

    def __init__(self, section: str, expected: str, found: object) -> None:
        super().__init__(f"{section}: expected {expected}, found {found}")
        self.section = section
        self.expected = expected
        self.found = str(found)


class ByteReader:
    """Reads numbers from the front of ``data``; running past the end is a SceneFormatError."""

    def __init__(self, data: bytes | memoryview, section: str) -> None:
        self.data = memoryview(data).cast("B")
        self.section = section
        self.position = 0

    @property
    def num_left(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int, what: str) -> memoryview:
        if count > self.num_left:
            self.fail(f"{count} bytes of {what}", f"{self.num_left} bytes")
        self.position += count
        return self.data[self.position - count : self.position]

    def unpack(self, layout: str, what: str) -> tuple:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout), what))

    def byte(self, what: str, low: int = 0, high: int = 255) -> int:
        return self.within(self.take(1, what)[0], what, low, high)

    def varint(self, what: str, low: int = 0, high: int = (1 << 32) - 1) -> int:
        """Unsigned integer in groups of 7 bits, least significant first; the shortest form only."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte(what)
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    self.fail(f"the shortest form of {what}", "a longer one")
                return self.within(value, what, low, high)
        return self.fail(f"{what} in at most 5 bytes", "more")

    def array(self, dtype: str, count: int, what: str) -> np.ndarray:
        """Copies ``count`` numbers; the length is checked before anything is allocated."""
        raw = self.take(count * np.dtype(dtype).itemsize, what)
        return np.frombuffer(raw, dtype=dtype).astype(np.dtype(dtype).newbyteorder("="))

    def within(self, value: int, what: str, low: int, high: int) -> int:
        if not low <= value <= high:
            self.fail(f"{what} from {low} to {high}", value)
        return value

    def finish(self) -> None:
        if self.num_left:
            self.fail("the end of the section", f"{self.num_left} more bytes")

    def fail(self, expected: str, found: object):
        raise SceneFormatError(self.section, expected, found)


def varint(value: int) -> bytes:
    """The bytes that :meth:`ByteReader.varint` reads."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class BitWriter:
    """Collects bits, first bit first; the last byte is filled with zeros."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.num_bits = 0

    def bits(self, value: int, width: int) -> None:
        if width:
            self._parts.append(format(value, f"0{width}b"))
            self.num_bits += width

    def golomb(self, value: int, order: int) -> None:
        """Exponential Golomb code: z zeros, then value + 2^order in z + order + 1 bits."""
        value += 1 << order
        self.bits(value, 2 * value.bit_length() - 1 - order)

    def signed(self, value: int, order: int) -> None:
        """Exponential Golomb code of 0, -1, 1, -2, 2, … numbered from 0."""
        self.golomb(2 * value if value >= 0 else -2 * value - 1, order)

    def to_bytes(self) -> bytes:
        text = "".join(self._parts)
        size = -(-len(text) // 8)
        return int(text.ljust(8 * size, "0"), 2).to_bytes(size, "big") if size else b""


class BitReader:
    """Reads what :class:`BitWriter` wrote."""

    def __init__(self, data: bytes | memoryview, section: str) -> None:
        # A string of digits: ``find`` then reads a run of zeros at the speed of C.
        self._text = format(int.from_bytes(data, "big"), f"0{8 * len(data)}b") if len(data) else ""
        self._position = 0
        self._section = section

    def bits(self, width: int) -> int:
        end = self._position + width
        if end > len(self._text):
            raise SceneFormatError(
                self._section, f"{width} bits of tables", "the end of the tables"
            )
        value = int(self._text[self._position : end], 2) if width else 0
        self._position = end
        return value

    def golomb(self, order: int) -> int:
        one = self._text.find("1", self._position)
        zeros = one - self._position
        if one < 0 or zeros > MAX_EXPONENT:
            raise SceneFormatError(self._section, "a Golomb code in the tables", "a run of zeros")
        self._position = one
        return self.bits(zeros + order + 1) - (1 << order)

    def signed(self, order: int) -> int:
        value = self.golomb(order)
        return value >> 1 if value % 2 == 0 else -(value + 1 >> 1)

    def finish(self) -> None:
        """Only the filling of the last byte may be left, and it must be zero."""
        rest = self._text[self._position :]
        if len(rest) > 7 or "1" in rest:
            raise SceneFormatError(self._section, "the end of the tables", f"{len(rest)} more bits")
