"""WGTS: tensors in order of their names, three forms of steps, limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, tensors

from shacira_nerfstudio.codec import QuantizedTensor, SceneFormatError
from shacira_nerfstudio.codec.bitio import varint
from shacira_nerfstudio.codec.sections.weights import decode_weights, encode_weights

names = st.from_regex("[a-z0-9_.]{1,9}", fullmatch=True)
ONE = b"\x01a\x01\x01\x00\x00\x00\x80\x3f\x00\xff\x1f\x00"
"""A tensor of a single 0 with the step 1."""


@modest(30)
@given(weights=st.dictionaries(names, tensors(), max_size=4))
def test_round_trip(weights):
    payload = encode_weights(weights)
    found = decode_weights(memoryview(payload))
    assert found == weights
    assert list(found) == sorted(weights)
    assert encode_weights(dict(reversed(weights.items())), fast=False) == payload


def test_equal_steps_are_stored_once():
    values = np.ones((4, 2), dtype=np.int16)
    lengths = [
        len(encode_weights({"w": QuantizedTensor(values, np.array(steps, dtype=np.float32))}))
        for steps in ([0.5], [0.5] * 4, [0.5, 0.5, 0.5, 1])
    ]
    assert lengths == [lengths[0], lengths[0], lengths[0] + 12]


def test_what_are_no_weights():
    assert decode_weights(memoryview(b"\x01" + ONE))["a"].values.tolist() == [0]
    million = varint(1 << 20)
    for payload, message in (
        (b"\x02" + 2 * ONE, "after"),
        (b"\x01\x01a\x03" + 3 * million + ONE[4:], "at most 4194304 weights"),
        (b"\x01\x01a\x01\x01\x01" + ONE[5:], "tensor of one row"),
        (b"\x01" + ONE[:4] + b"\x03" + ONE[5:], "steps"),
        (b"\x01" + ONE[:5] + b"\0\0\0\0" + ONE[9:], "valid tensor"),
        (b"\x01" + ONE + b"\0", "end of the section"),
        (varint(4097) + ONE, "tensors from 0 to 4096"),
    ):
        with pytest.raises(SceneFormatError, match=message):
            decode_weights(memoryview(payload))
