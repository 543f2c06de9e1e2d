"""The section WGTS: quantised tensors by name, to bytes and back."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError, varint
from shacira_nerfstudio.codec.entropy.int_array import decode_array, encode_array
from shacira_nerfstudio.codec.scene import QuantizedTensor

MAX_WEIGHTS = 1 << 22
"""All weights of a file; a constant tensor costs no bytes, so a file's length cannot bound them."""

MAX_TENSORS = 4096
PER_TENSOR, PER_ROW, SAME_PER_ROW = 0, 1, 2
"""How steps are stored: one; one per row; one per row, but all equal and stored once."""


def encode_weights(weights: Mapping[str, QuantizedTensor], *, fast: bool | None = None) -> bytes:
    """Tensors in order of their names."""
    parts = [varint(len(weights))]
    for name in sorted(weights):
        tensor = weights[name]
        steps = tensor.steps.astype("<f4")
        mode = PER_TENSOR if len(steps) == 1 else PER_ROW
        if mode == PER_ROW and (steps == steps[0]).all():
            mode, steps = SAME_PER_ROW, steps[:1]
        shape = b"".join(varint(length) for length in tensor.values.shape)
        head = bytes([len(name)]) + name.encode() + bytes([tensor.values.ndim]) + shape
        parts += [head, bytes([mode]), steps.tobytes(), encode_array(tensor.values, fast=fast)]
    return b"".join(parts)


def decode_weights(payload: memoryview, *, fast: bool | None = None) -> dict[str, QuantizedTensor]:
    reader = ByteReader(payload, "WGTS")
    weights: dict[str, QuantizedTensor] = {}
    previous, left = "", MAX_WEIGHTS
    for _ in range(reader.varint("tensors", 0, MAX_TENSORS)):
        name = bytes(reader.take(reader.byte("length of a name", 1), "name")).decode("latin-1")
        if name <= previous:
            reader.fail(f"a name after {previous!r}", repr(name))
        shape = [reader.varint("length of an axis", 1) for _ in range(reader.byte("axes", 1, 3))]
        count = math.prod(shape)
        left -= count
        if left < 0:
            reader.fail(f"at most {MAX_WEIGHTS} weights", f"shape {shape} of {name!r}")
        mode = reader.byte("steps", PER_TENSOR, SAME_PER_ROW)
        if mode != PER_TENSOR and shape[0] == 1:
            reader.fail("one step for a tensor of one row", mode)
        steps = reader.array("<f4", shape[0] if mode == PER_ROW else 1, "steps")
        if mode == SAME_PER_ROW:
            steps = np.repeat(steps, shape[0])
        values = decode_array(reader, count, fast=fast).reshape(shape)
        try:
            weights[name] = QuantizedTensor(values, steps)
        except ValueError as error:
            raise SceneFormatError("WGTS", f"a valid tensor {name!r}", error) from None
        previous = name
    reader.finish()
    return weights
