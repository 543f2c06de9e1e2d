"""The occupancy's compiled twins against numpy: identical bytes, identical cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, occupancies

from shacira_nerfstudio.codec.sections.occupancy import decode_occupancy, encode_occupancy

pytest.importorskip("numba")


@modest(15)
@given(occupancy=st.sampled_from([2, 3]).flatmap(occupancies))
def test_occupancy(occupancy):
    if occupancy is None:
        return
    slow = encode_occupancy(occupancy, fast=False)
    assert encode_occupancy(occupancy, fast=True) == slow
    for fast in (False, True):
        found = decode_occupancy(memoryview(slow), occupancy.ndim, fast=fast)
        assert np.array_equal(found, occupancy)
