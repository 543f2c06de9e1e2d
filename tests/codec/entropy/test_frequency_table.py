"""Frequency tables: exact sums, exact storage, close to the counts they were made from."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import counts, modest

from shacira_nerfstudio.codec.bitio import BitReader, BitWriter, SceneFormatError
from shacira_nerfstudio.codec.entropy.frequency_table import (
    FrequencyTable,
    TableSet,
    frequencies,
    frequency_costs,
    log2_fixed,
)


def stored(table, previous=None):
    writer = BitWriter()
    table.write(writer, previous)
    assert writer.num_bits == table.num_stored_bits(previous)
    return writer.to_bytes()


@modest(60)
@given(occurring=counts(), minimum=st.integers(-4095, 3000), precision=st.sampled_from([9, 14, 16]))
def test_sums_minimum_and_storage(occurring, minimum, precision):
    table = FrequencyTable.from_counts(occurring, minimum=minimum, precision=precision)
    first, last = np.flatnonzero(occurring)[[0, -1]]
    assert table.minimum == minimum + first
    assert len(table.sqrt_freqs) == last - first + 1
    assert int(table.freqs.sum()) == 1 << precision
    assert np.array_equal(table.freqs > 0, occurring[first : last + 1] > 0)
    reader = BitReader(stored(table), "test")
    assert FrequencyTable.read(reader, "test", precision) == table
    reader.finish()


@modest(60)
@given(
    occurring=counts(),
    others=counts(),
    minimum=st.integers(-4095, 3000),
    shift=st.integers(-300, 300),
)
def test_storage_relative_to_another_table(occurring, others, minimum, shift):
    first = min(max(minimum + shift, -4095), 3000)
    previous = FrequencyTable.from_counts(others, minimum=first)
    table = FrequencyTable.from_counts(occurring, minimum=minimum, previous=previous)
    reader = BitReader(stored(table, previous), "test")
    assert FrequencyTable.read(reader, "test", 14, previous) == table
    reader.finish()


def test_a_table_like_the_one_before_it_takes_few_bits():
    table = FrequencyTable(-4, (2, 2, 0, 3, 5, 12, 26, 9, 4, 2, 2))
    wider = FrequencyTable(-5, (2, 2, 2, 2, 4, 7, 14, 22, 11, 6, 3, 2))
    assert table.num_stored_bits(table) < 0.5 * table.num_stored_bits()
    assert wider.num_stored_bits(table) < 0.8 * wider.num_stored_bits()
    assert FrequencyTable(-3000, (1,) + (0,) * 6000 + (1,)).num_stored_bits(table) < 100


@modest(30)
@given(occurring=counts(max_symbols=60))
def test_tables_cost_little_more_than_their_counts(occurring):
    table = FrequencyTable.from_counts(occurring)
    inside = occurring[np.flatnonzero(occurring)[0] : np.flatnonzero(occurring)[-1] + 1]
    total = inside.sum()
    entropy = sum(c * math.log2(total / c) for c in inside[inside > 0].tolist())
    # 14 bits of precision cost up to 1 bit in 500 on rare symbols, a table some bits per symbol.
    bits = table.cost(inside) / 65536 + table.num_stored_bits()
    assert bits <= 1.004 * entropy + 0.002 * total + 16 + 14 * len(inside)


def test_many_rare_symbols_beside_a_common_one():
    occurring = np.ones(8191, dtype=np.int64)
    occurring[4000] = 10**9
    table = FrequencyTable.from_counts(occurring, minimum=-4095)
    assert table.freqs.min() >= 1
    assert table.freqs.sum() == 1 << 14


def test_frequencies_by_hand():
    # Weights 0, 9, 1 share 16384 - 3 slots; the largest takes what rounding leaves.
    assert frequencies(np.array([1, 4, 0, 2]), 14).tolist() == [1, 14744, 0, 1639]
    # Nothing but weights 0 means equal shares.
    assert frequencies(np.array([1, 1, 1]), 8).tolist() == [86, 85, 85]
    assert frequencies(np.array([9]), 8).tolist() == [256]


def test_logarithms_are_exact_floors():
    numbers = np.concatenate([np.arange(1, 3000), [2**40 + 1, 2**53 - 1]])
    expected = [math.floor(65536 * math.log2(n)) for n in numbers.tolist()]
    # Truncation after each of the 16 squarings can lose one unit of 2^-16.
    assert np.abs(log2_fixed(numbers) - expected).max() <= 1
    assert log2_fixed(1 << np.arange(30)).tolist() == [i << 16 for i in range(30)]
    assert frequency_costs(14)[[1, 1 << 14]].tolist() == [14 << 16, 0]


@modest(40)
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 6)), max_size=20))
def test_golomb_codes(numbers):
    writer = BitWriter()
    for value, order in numbers:
        writer.golomb(value, order)
        writer.signed(value - 2**31, order)
        writer.bits(value % 8, 3)
    reader = BitReader(writer.to_bytes(), "test")
    for value, order in numbers:
        assert reader.golomb(order) == value
        assert reader.signed(order) == value - 2**31
        assert reader.bits(3) == value % 8
    reader.finish()


def test_what_is_no_table():
    for arguments in (
        (0, ()),
        (0, (0, 1)),
        (0, (1, 0)),
        (0, (1025,)),
        (4095, (1, 1)),
        (-4096, (1,)),
    ):
        with pytest.raises(ValueError, match="expected"):
            FrequencyTable(*arguments)
    with pytest.raises(ValueError, match="precision"):
        FrequencyTable(0, (1,), precision=7)
    with pytest.raises(ValueError, match="occurs"):
        FrequencyTable.from_counts(np.zeros(3))
    with pytest.raises(ValueError, match="1 to 256 symbols"):
        FrequencyTable(0, (1,) * 300, precision=8)


@modest(60)
@given(
    st.binary(max_size=12),
    st.sampled_from([None, FrequencyTable(-4090, (3, 1)), FrequencyTable(-1, (1024, 0, 9))]),
)
def test_any_bits_are_a_table_or_an_error(data, previous):
    try:
        table = FrequencyTable.read(BitReader(data, "test"), "test", 14, previous)
    except SceneFormatError:
        return
    assert table.freqs.sum() == 1 << 14


def test_a_set_lays_tables_end_to_end():
    tables = TableSet([FrequencyTable(-1, (1, 3), 8), FrequencyTable(7, (2,), 8)])
    assert tables.first.tolist() == [0, 2, 3] and tables.minimums.tolist() == [-1, 7]
    assert tables.lookup.tolist() == [0] + [1] * 255 + [0] * 256
    assert tables.starts.tolist() == [0, 1, 0]
    assert tables.is_certain.tolist() == [False, True]
    with pytest.raises(ValueError, match="one precision"):
        TableSet([FrequencyTable(0, (1,), 8), FrequencyTable(0, (1,), 9)])
