"""The coder's compiled twins against numpy: identical bytes, identical integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, seeds

from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.codec.compiled import load_kernels
from shacira_nerfstudio.codec.entropy.frequency_table import FrequencyTable, TableSet
from shacira_nerfstudio.codec.entropy.rans import Decoder, Segment, encode

pytest.importorskip("numba")

KERNELS = "shacira_nerfstudio.codec.entropy.rans_numba"


@modest(15)
@given(
    seed=seeds,
    num_lanes=st.sampled_from([1, 3, 64]),
    size=st.sampled_from([0, 1, 2, 63, 64, 65, 500]),
    precision=st.sampled_from([12, 16]),
)
def test_coder(seed, num_lanes, size, precision):
    rng = np.random.default_rng(seed)
    tables = TableSet(
        [FrequencyTable(-2, (3, 9, 200, 9, 1), precision), FrequencyTable(0, (1, 1), precision)]
    )
    index = rng.integers(0, 2, size).astype(np.int32)
    values = np.where(index == 0, rng.integers(-2, 3, size), rng.integers(0, 2, size))
    freqs = rng.integers(1, 1 << 16, size)
    segments = [
        Segment.from_symbols(values, index, tables),
        Segment.from_bits(values > 0, freqs, 16),
    ]
    slow = encode(segments, num_lanes=num_lanes, fast=False)
    assert encode(segments, num_lanes=num_lanes, fast=True) == slow
    for fast in (False, True) if size else ():
        decoder = Decoder(slow, num_lanes=num_lanes, fast=fast)
        assert np.array_equal(decoder.take(index, tables), values)
        assert np.array_equal(decoder.take_bits(freqs, 16), values > 0)
        decoder.finish()


@pytest.mark.parametrize("fast", [False, True])
def test_both_notice_that_words_run_out(fast):
    tables, index = TableSet([FrequencyTable(0, (1,) * 256)]), np.zeros(100, dtype=np.int32)
    values = np.arange(100)
    bits = Segment.from_bits(values > 50, np.full(100, 9), 16)
    data = encode([Segment.from_symbols(values, index, tables), bits], num_lanes=2, fast=fast)
    with pytest.raises(SceneFormatError, match="end of the stream"):
        Decoder(data[:80], num_lanes=2, fast=fast).take(index, tables)
    decoder = Decoder(data[:-20], num_lanes=2, fast=fast)
    decoder.take(index, tables)
    with pytest.raises(SceneFormatError, match="end of the stream"):
        decoder.take_bits(np.full(100, 9), 16)


def test_loaded_only_when_wanted():
    assert load_kernels(KERNELS, False) is None
    assert load_kernels(KERNELS, None) is load_kernels(KERNELS, True) is not None


@pytest.mark.parametrize("error", [ImportError, RuntimeError])
def test_without_numba_numpy_serves(monkeypatch, error):
    def fail(_):
        raise error("no numba here")

    monkeypatch.setattr("importlib.import_module", fail)
    assert load_kernels(KERNELS, None) is None
    with pytest.raises(error):
        load_kernels(KERNELS, True)
