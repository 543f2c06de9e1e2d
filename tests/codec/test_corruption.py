"""Hostile and damaged files: a SceneFormatError and nothing else, before memory is taken."""

import dataclasses
import tracemalloc

import make
import numpy as np
import pytest

from shacira_nerfstudio.codec import (
    PackedScene,
    QuantizedTensor,
    SceneFormatError,
    decode_scene,
    encode_scene,
)
from shacira_nerfstudio.codec.bitio import BitWriter, varint
from shacira_nerfstudio.codec.container import pack_sections, unpack_sections
from shacira_nerfstudio.codec.entropy.frequency_table import FrequencyTable
from shacira_nerfstudio.codec.entropy.int_array import encode_array
from shacira_nerfstudio.codec.latents.context_model import ContextModel
from shacira_nerfstudio.codec.sections.grid_and_rendering import encode_grid
from shacira_nerfstudio.codec.sections.head import canonical_json, symbols_digest
from shacira_nerfstudio.codec.sections.table import KNOWN
from shacira_nerfstudio.grid import GridSpec

TINY = make.tiny_scene()
DATA = (make.FOLDER / f"{make.NAME}.shacira").read_bytes()  # of TINY, see test_golden.py
PARTS = [(section.tag, bytes(section.payload)) for section in unpack_sections(DATA, known=KNOWN)]


def replaced(**payloads):
    """The tiny file with sections replaced (None leaves them out), CRCs made right."""
    parts = [(tag, payloads.get(tag, payload)) for tag, payload in PARTS]
    return pack_sections([(tag, payload) for tag, payload in parts if payload is not None])


def part(wanted):
    return next(payload for tag, payload in PARTS if tag == wanted)


def refused(data, message=None, **options):
    with pytest.raises(SceneFormatError, match=message):
        decode_scene(data, **options)


def test_every_flipped_byte():
    for position in range(len(DATA)):
        broken = bytearray(DATA)
        broken[position] ^= 1 + position % 255
        refused(broken)


def test_every_length():
    for length in range(len(DATA)):
        refused(DATA[:length])
    refused(DATA + b"\0")


def test_every_length_where_truncation_is_allowed():
    first = DATA.index(part("LATN")) + len(part("LATN"))
    for length in range(0, first, 13):
        refused(DATA[:length], allow_truncated=True)
    for length in range(first, len(DATA), 97):
        assert decode_scene(DATA[:length], allow_truncated=True).num_levels_present


@pytest.mark.parametrize("tag", sorted({tag for tag, _ in PARTS}))
def test_flipped_bytes_behind_a_right_crc(tag):
    """A forger makes CRCs right; what then decodes must still be a scene."""
    rng = np.random.default_rng(len(tag))
    payload = part(tag)
    for position in rng.permutation(len(payload))[:24].tolist():
        broken = bytearray(payload)
        broken[position] ^= 1 << int(rng.integers(8))
        try:
            scene = decode_scene(replaced(**{tag: bytes(broken)}))
        except SceneFormatError:
            continue
        assert tag not in ("GRID", "LATN")
        assert scene != TINY


@pytest.mark.parametrize("tag", sorted({tag for tag, _ in PARTS}))
def test_shortened_and_lengthened_sections(tag):
    payload = part(tag)
    for length in {0, 1, len(payload) // 2, len(payload) - 1}:
        refused(replaced(**{tag: payload[:length]}))
    refused(replaced(**{tag: payload + b"\0"}))


def test_random_bytes_in_sections():
    rng = np.random.default_rng(5)
    for _ in range(60):
        tag = ("GRID", "RNDR", "OCCU", "WGTS", "cams", "LATN")[int(rng.integers(6))]
        refused(replaced(**{tag: rng.bytes(int(rng.integers(1, 300)))}))


def test_missing_repeated_and_misplaced_sections():
    for tag in ("HEAD", "GRID", "WGTS"):
        refused(replaced(**{tag: None}), "section")
    refused(replaced(LATN=None), "LATN: expected 5 levels, found 0")
    refused(pack_sections(PARTS[:-1]), "LATN: expected 5 levels, found 4")
    refused(pack_sections([*PARTS, PARTS[-1]]), "LATN: expected 5 levels, found 6")
    refused(pack_sections([*PARTS, PARTS[1]]), "expected sections")
    refused(pack_sections([PARTS[1], PARTS[0], *PARTS[2:]]), "expected sections")
    refused(replaced(OCCU=None))


NOT_CANONICAL = (
    lambda text: b"{" + b" " + text[1:],
    lambda text: text.replace(b'"width":8', b'"width":8.0'),
    lambda text: text.replace(b'"width":8', b'"width":8,"width":8'),
    lambda text: text.replace(b'"width":8', b'"width":NaN'),
    lambda text: text.replace(b'"width":8', b'"width":' + b"9" * 5000),
    lambda text: text.replace(b'"width":8', b'"width":' + b"[" * 60_000),
    lambda text: b"[]",
    lambda text: b"\xff",
    lambda text: b" " * 100_000,
)


@pytest.mark.parametrize("change", NOT_CANONICAL)
def test_json_that_is_not_canonical(change):
    head = part("HEAD")
    refused(replaced(HEAD=head[:34] + change(head[34:])), "HEAD|file")


def test_meta_of_other_values():
    refused(replaced(meta=b'{"a":[1]}'))
    refused(replaced(meta=b'{"a":{"b":1}}'))
    refused(replaced(meta=b'{"a":true}'))


def test_other_heads():
    head = part("HEAD")
    refused(replaced(HEAD=b"\1" + head[1:]), "kind")
    refused(replaced(HEAD=b"\3" + head[1:]), "kind")
    assert decode_scene(replaced(HEAD=b"\2" + head[1:])).kind == "video"
    refused(replaced(HEAD=head[:1] + b"\6" + head[2:]), "1 to 5 levels present")
    refused(replaced(HEAD=head[:1] + b"\0" + head[2:]), "levels present from 1 to 64")
    refused(replaced(HEAD=head[:1] + b"\4" + head[2:]), "LATN: expected 4 levels")
    refused(replaced(HEAD=head[:20] + b"\0" + head[21:]), "digest")


def peak_of_refusal(data, message, **options):
    """Most bytes that Python held while it refused ``data``."""
    tracemalloc.start()
    try:
        refused(data, message, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def grid_bytes(levels, latent_dim=2):
    """GRID of levels of a table size and a resolution, one for all axes or one for each."""
    resolutions, sizes = zip(*levels, strict=True)
    axes = tuple((n,) * 3 if isinstance(n, int) else n for n in resolutions)
    return encode_grid(GridSpec(3, axes, sizes), latent_dim)


def head_for(levels, latent_dim=2):
    """HEAD of a field of zeros, with a right digest where there are not too many of them."""
    count = sum(size for _, size in levels)
    zeros = np.zeros((count if count <= 1 << 24 else 0, latent_dim), dtype=np.int16)
    digest = symbols_digest(zeros)
    return bytes([0, len(levels)]) + bytes.fromhex(digest) + canonical_json({})


@pytest.mark.parametrize(
    ("levels", "latent_dim", "message"),
    [
        ([(1 << 20, 1 << 28)] * 5, 16, "max_entries="),
        ([(2048, 1 << 23)] * 5, 2, "symbols in a file of"),
        ([(64, 8), (65, 8), (66, 8), (67, 8), (2048, 1 << 22)], 1, "entries in a level"),
        ([((2, 2, 1 << 16), 1 << 18)] * 5, 1, "at most 131072 slabs in a file of"),
    ],
)
def test_huge_grids_take_no_memory(levels, latent_dim, message):
    data = replaced(GRID=grid_bytes(levels, latent_dim), HEAD=head_for(levels, latent_dim))
    assert peak_of_refusal(data, message) < 1 << 20


def test_the_cap_on_entries_can_be_raised():
    refused(DATA, "max_entries", max_entries=100)
    assert decode_scene(DATA, max_entries=make.tiny_scene().grid.num_entries)


def test_huge_counts_take_no_memory():
    for shape in ([2000], [1 << 31], [0, 4096, 4096, 1], [0, 1, 1, 4097]):
        payload = b"".join(map(varint, shape)) + part("OCCU")[1:]
        assert peak_of_refusal(replaced(OCCU=payload), "cells") < 1 << 20
    for payload in (varint(1 << 31) + b"\0" * 40, varint(4096) + b"\x01a\x01" + varint(1 << 22)):
        assert peak_of_refusal(replaced(WGTS=payload), "WGTS") < 1 << 20
    assert peak_of_refusal(replaced(cams=varint(1 << 16) + b"\x00" * 99), "cams") < 1 << 20
    stream = part("LATN")[:1] + varint(1024) + varint((1 << 32) - 1)
    assert peak_of_refusal(replaced(LATN=stream + b"\0" * 99), "LATN") < 1 << 20


def forged(levels, latent_dim, level, occupancy=None):
    """A field of zeros whose levels all have the same bytes, as an attacker would write it."""
    nothing = np.zeros((8, latent_dim), dtype=np.int16)
    small = PackedScene("radiance_field", {}, GridSpec(3, ((2,) * 3,), (8,)), nothing, occupancy)
    sections = unpack_sections(encode_scene(small), known=KNOWN)
    parts = {section.tag: bytes(section.payload) for section in sections}
    parts |= {"HEAD": head_for(levels, latent_dim), "GRID": grid_bytes(levels, latent_dim)}
    own = parts.pop("LATN")
    return pack_sections([*parts.items(), *[("LATN", level or own)] * len(levels)])


def many_tables(num_channels, *, num_symbols):
    """A level with 15 wide tables per channel that nothing uses; the class that occurs is all 0."""
    writer = BitWriter()
    for _ in range(num_channels):
        writer.bits(0, 1)
        ContextModel(thresholds=tuple(range(1, 16))).write(writer)
        unused = FrequencyTable(-4095, (1,) + (0,) * (num_symbols - 2) + (1,))
        previous = None
        for table in (FrequencyTable(0, (1,)), *[unused] * 15):
            writer.bits(1, 1)
            table.write(writer, previous)
            previous = table
    bits = writer.to_bytes()
    return bytes([14]) + varint(1) + varint(len(bits)) + bits


def rod():
    """Occupied cells that make every slab of a fine level count."""
    occupancy = np.zeros((128,) * 3, dtype=bool)
    occupancy[:, :14, :14] = True
    return occupancy


def needle():
    """As many wavefronts as an occupancy grid may have, in the longest one."""
    return np.ones((1, 512, 4096), dtype=bool)


HOSTILE = {
    "long thin levels": lambda: forged([((2, 2, 1 << 16), 1 << 18)] * 2, 1, None, needle()),
    "flat levels": lambda: forged([((2, 511, 511), 1 << 20), ((2, 9000, 9000), 1 << 20)], 8, None),
    "many fine levels": lambda: forged([(511, 1 << 18)] * 63, 1, None, rod()),
    "large fine levels": lambda: forged([(511, 1 << 20)] * 15, 1, None, rod()),
    "many channels": lambda: forged([(2048, 1 << 19)] * 2, 16, None),
    "many tables": lambda: forged([(2, 8)] * 7, 16, many_tables(16, num_symbols=600)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_20_kilobytes_take_at_most_200_megabytes(name):
    data = HOSTILE[name]()
    assert len(data) <= 20_000
    tracemalloc.start()
    decode_scene(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1e5 < peak < 200e6


def test_large_alphabets_are_not_to_be_had_for_nothing():
    data = forged([(2, 8)] * 7, 16, many_tables(16, num_symbols=8191))
    assert peak_of_refusal(data, "LATN 0: expected at most 2[0-9]{5} symbols in tables") < 1 << 26


def test_a_small_file_cannot_take_much_memory():
    """As many symbols as are allowed for free, in as few and as cheap levels as possible."""
    nothing = np.zeros((8, 16), dtype=np.int16)
    weights = {"w": QuantizedTensor(np.zeros(1 << 20, dtype=np.int16), np.ones(1, dtype="f4"))}
    grid = GridSpec(3, ((2048,) * 3,), (8,))
    small = PackedScene("radiance_field", {}, grid, nothing, None, weights)
    parts = dict(
        (s.tag, bytes(s.payload)) for s in unpack_sections(encode_scene(small), known=KNOWN)
    )
    level, levels = parts.pop("LATN"), [(2048, 1 << 19)] * 2
    parts |= {"HEAD": head_for(levels, 16), "GRID": grid_bytes(levels, 16)}
    data = pack_sections([*parts.items(), ("LATN", level), ("LATN", level)])
    assert len(data) < 1000
    tracemalloc.start()
    decode_scene(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


# What a rendering or a camera cannot be: where its floats stand in a section, and another value.
BAD_NUMBERS = {
    "a step that never ends": ("RNDR", 2 + 4 * 8, "<f4", 1e-9, "march steps per ray"),
    "a step below all bounds": ("RNDR", 2 + 4 * 8, "<f4", 1e-30, "step_size"),
    "a knee below all bounds": ("RNDR", 2 + 4 * 9, "<f4", 1e-30, "knee"),
    "a knee beyond all bounds": ("RNDR", 2 + 4 * 9, "<f4", 1e30, "knee"),
    "a far plane beyond all bounds": ("RNDR", 2 + 4 * 7, "<f4", 1e30, "far"),
    "a near plane behind the camera": ("RNDR", 2 + 4 * 6, "<f4", -1, "near"),
    "a near plane that is no number": ("RNDR", 2 + 4 * 6, "<f4", np.nan, "near"),
    "a box beyond all bounds": ("RNDR", 2 + 4 * 3, "<f4", 1e30, "box"),
    "a focal length of 0": ("cams", 2, "<f4", 0, "fx, fy"),
    "a negative focal length": ("cams", 6, "<f4", -50, "fx, fy"),
    "a focal length that is no number": ("cams", 2, "<f4", np.nan, "intrinsics"),
    "a centre far away": ("cams", 10, "<f4", 1e30, "cx, cy"),
    "a picture without pixels": ("cams", 18, "<u4", 0, "pixels"),
    "a picture of 100,000 columns": ("cams", 18, "<u4", 100_000, "pixels"),
    "a position beyond all bounds": ("cams", 27, "u1", 80, "positions"),
}


@pytest.mark.parametrize("what", BAD_NUMBERS)
def test_numbers_that_would_crash_or_hang_a_renderer(what):
    tag, offset, dtype, value, message = BAD_NUMBERS[what]
    payload = bytearray(part(tag))
    number = np.array(value, dtype).tobytes()
    payload[offset : offset + len(number)] = number
    refused(replaced(**{tag: bytes(payload)}), f"{tag}: .*{message}")


@pytest.mark.parametrize("shape", [(60_000, 60_000), (0, 0)])
def test_pictures_of_impossible_sizes(shape):
    payload = bytearray(part("cams"))
    payload[18:26] = np.array(shape, "<u4").tobytes()
    refused(replaced(cams=bytes(payload)), f"cams: .* got .{shape[0]}, {shape[1]}. in camera 0")


def as_planes(poses):
    """The section of the tiny cameras with other poses, as bytes of floats."""
    planes = np.ascontiguousarray(poses.reshape(2, 12).T.astype("<f4")).view(np.uint8)
    arrays = planes.reshape(-1, 4).T.astype(np.int64)
    return part("cams")[:26] + b"\0" + b"".join(encode_array(array) for array in arrays)


@pytest.mark.parametrize("what", ["mirrored", "flat", "zero", "nan"])
def test_poses_that_are_no_rotation(what):
    poses = TINY.cameras.camera_to_worlds.copy()
    if what == "mirrored":
        poses[1, :, :3] *= -1
    elif what == "flat":
        poses[1, :, 2] = poses[1, :, 0]
    else:
        poses[1, :, :3] = 0 if what == "zero" else np.nan
    found = "finite camera_to_worlds" if what == "nan" else "a rotation, got .* in camera 1"
    with pytest.raises(ValueError, match=found):
        dataclasses.replace(TINY.cameras, camera_to_worlds=poses)
    refused(replaced(cams=as_planes(poses)), f"cams: .*{found}")
