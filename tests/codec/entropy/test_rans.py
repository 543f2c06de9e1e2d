"""The coder: what goes in comes out, the bytes are fixed, the length is what the tables promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, seeds

from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.codec.entropy.frequency_table import FrequencyTable, TableSet
from shacira_nerfstudio.codec.entropy.rans import Decoder, Segment, choose_lanes, encode

MESSAGE = np.array([0, 2, -1, 0, 1, 2, 0, -1, 2])
TABLE = FrequencyTable(-1, (11, 91, 11, 5), precision=14)
GOLDEN = bytes.fromhex("88fa3800efff5401d5b6a0bf")


def table_of(values, precision=14):
    low = int(values.min())
    return FrequencyTable.from_counts(np.bincount(values - low), minimum=low, precision=precision)


def round_trip(segments, num_lanes, fast=False):
    data = encode(
        [Segment.from_symbols(*segment) for segment in segments], num_lanes=num_lanes, fast=fast
    )
    decoder = Decoder(data, num_lanes=num_lanes, fast=fast)
    for values, index, tables in segments:
        assert np.array_equal(decoder.take(index, tables), values)
    decoder.finish()
    return data


def laplace(rng, sigma, size, limit=2000):
    return np.clip(np.round(rng.laplace(size=size) * sigma), -limit, limit).astype(np.int64)


def test_nine_symbols_give_these_bytes():
    assert TABLE.freqs.tolist() == [197, 15958, 197, 32]
    tables, index = TableSet([TABLE]), np.zeros(9, dtype=np.int32)
    data = encode([Segment.from_symbols(MESSAGE, index, tables)], num_lanes=2, fast=False)
    assert data == GOLDEN
    decoder = Decoder(GOLDEN, num_lanes=2, fast=False)
    assert decoder.take(index, tables).tolist() == MESSAGE.tolist()
    decoder.finish()


@pytest.mark.parametrize("num_symbols", [1, 2, 3, 256, 4096])
@pytest.mark.parametrize("num_lanes", [1, 5])
def test_every_length_around_the_lanes(num_symbols, num_lanes):
    rng = np.random.default_rng(num_symbols)
    for size in (0, 1, num_lanes - 1, num_lanes, num_lanes + 1, 3 * num_lanes + 2):
        values = rng.integers(0, num_symbols, size) - num_symbols // 2
        table = FrequencyTable(-(num_symbols // 2), (1,) * num_symbols)
        round_trip([(values, np.zeros(size, dtype=np.int32), TableSet([table]))], num_lanes)


@modest(20)
@given(
    seed=seeds,
    sigma=st.sampled_from([0.001, 0.1, 1.0, 10.0]),
    size=st.sampled_from([1, 7, 1000]),
    num_lanes=st.sampled_from([1, 2, 17, 64]),
    precision=st.sampled_from([11, 14, 16]),
)
def test_symbols_of_many_tables_in_two_segments(seed, sigma, size, num_lanes, precision):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 3, size).astype(np.int32)
    values = laplace(rng, sigma * (1 + index), size, limit=40)
    tables = TableSet([table_of(np.append(values[index == i], 0), precision) for i in range(3)])
    half = size // 2
    round_trip(
        [(values[:half], index[:half], tables), (values[half:], index[half:], tables)], num_lanes
    )


@modest(15)
@given(seed=seeds, chance=st.sampled_from([0.0, 0.001, 0.5, 1.0]), size=st.integers(0, 300))
def test_bits_with_a_probability_each(seed, chance, size):
    rng = np.random.default_rng(seed)
    bits, freqs = rng.random(size) < chance, rng.integers(1, 1 << 16, size)
    data = encode([Segment.from_bits(bits, freqs, 16)], num_lanes=3, fast=False)
    decoder = Decoder(data, num_lanes=3, fast=False)
    if size:
        assert np.array_equal(decoder.take_bits(freqs, 16), bits)
    decoder.finish()


def test_certain_symbols_cost_nothing():
    values = np.full(1000, 5)
    segment = (values, np.zeros(1000, dtype=np.int32), TableSet([FrequencyTable(5, (1,))]))
    assert round_trip([segment], 1) == b""


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_the_length_is_what_the_table_promises(sigma):
    values = laplace(np.random.default_rng(1), sigma, 100_000)
    table = table_of(values)
    counts = np.bincount(values - table.minimum)
    ideal = table.cost(counts) / 65536
    num_lanes = choose_lanes(round(ideal), len(values))
    index = np.zeros(len(values), dtype=np.int32)
    data = round_trip([(values, index, TableSet([table]))], num_lanes)
    states = 4 * num_lanes
    # States hold 16 bits each that are not overhead, hence the lower bound of 0.
    assert -8 * states <= 8 * (len(data) - states) - ideal <= 0.01 * ideal + 16
    assert num_lanes == 1 or states <= 0.01 * len(data) or num_lanes <= 16


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_as_short_as_constriction(sigma):
    constriction = pytest.importorskip("constriction")
    values = laplace(np.random.default_rng(2), sigma, 100_000)
    table = table_of(values)
    index = np.zeros(len(values), dtype=np.int32)
    data = round_trip([(values, index, TableSet([table]))], 128)
    model = constriction.stream.model.Categorical(
        table.freqs.astype(np.float64) / (1 << 14), perfect=False
    )
    oracle = constriction.stream.stack.AnsCoder()
    oracle.encode_reverse((values - table.minimum).astype(np.int32), model)
    assert 8 * (len(data) - 4 * 128) <= 1.001 * oracle.num_bits()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("sqrt_freqs", "strangers"), [((1, 0, 1), (-1, 1, 3)), ((1, 1), (-1, 2, 1 << 40, -(1 << 40)))]
)
def test_a_symbol_without_a_slot_is_refused(sqrt_freqs, strangers, fast):
    if fast:
        pytest.importorskip("numba")
    tables, index = TableSet([FrequencyTable(0, sqrt_freqs)]), np.zeros(3, dtype=np.int32)
    for stranger in strangers:
        with pytest.raises(ValueError, match="occur in their table"):
            Segment.from_symbols(np.array([0, stranger, 0]), index, tables, fast=fast)


def test_a_stream_must_end_where_its_encoder_began():
    values = laplace(np.random.default_rng(3), 1.0, 500)
    tables, index = TableSet([table_of(values)]), np.zeros(500, dtype=np.int32)
    data = round_trip([(values, index, tables)], 4)
    for broken in (data + b"\0\0", data[:-2], data[:-1], data[:15], b"\0" * 16 + data[16:]):
        with pytest.raises(SceneFormatError):
            decoder = Decoder(broken, num_lanes=4, fast=False)
            decoder.take(index, tables)
            decoder.finish()
    with pytest.raises(SceneFormatError, match="no stream"):
        Decoder(b"", num_lanes=4, fast=False).take(index, tables)


def test_most_flips_are_noticed_without_any_checksum():
    values = laplace(np.random.default_rng(4), 1.0, 600)
    tables, index = TableSet([table_of(values)]), np.zeros(600, dtype=np.int32)
    data = bytearray(round_trip([(values, index, tables)], 4))
    missed = 0
    for position in range(0, len(data), 7):
        data[position] ^= 16
        try:
            decoder = Decoder(bytes(data), num_lanes=4, fast=False)
            decoder.take(index, tables)
            decoder.finish()
            missed += 1
        except SceneFormatError:
            pass
        data[position] ^= 16
    assert missed == 0
