"""Matrix products of tiles with factors in bfloat16 and sums in float32.

A tile holds TILE samples, channel after channel: element (c, i) is ``[c * TILE + i]``. AVX512-BF16
has an instruction (``vdpbf16ps``) that multiplies 32 pairs of bfloat16 numbers and adds the
products by twos to 16 float32 sums: twice the work of a float32 instruction. Elsewhere the same is
done in float32 arithmetic, which is no faster than float32 factors, but lets any machine test what
follows from it. Numbers stand in pairs, as int32, the first of a pair in the low half; which two
make a pair is each function's to say.

numba has no vectors: the innermost blocks are written in LLVM's own language, with all that is
added up again and again in registers.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from shacira_nerfstudio.backends.cpu_numba.compilation import FAST

TILE = 128
"""Samples per tile: what a product reads again and again fits a first-level cache, and sums over a
tile are long enough to pay for their last, horizontal step."""
_FEATURES = llvm.get_host_cpu_features()
HAS_BFLOAT16 = bool(_FEATURES.get("avx512bf16", False))
"""Whether this processor multiplies bfloat16 numbers faster than float32 ones."""

# So many sums that they fill half of the registers, and a factor is used several times.
_LANES = 16 if _FEATURES.get("avx512f", False) else 8
_ROWS, _VECTORS = 4, 4 if _LANES == 16 else 2
_COLUMNS = _LANES // _ROWS
_SPAN = _VECTORS * _LANES
_U = np.uint64
_TILE, _HALF_TILE = np.uint64(TILE), np.uint64(TILE // 2)
_ROUND, _ONE, _SIXTEEN = np.uint32(0x7FFF), np.uint32(1), np.uint32(16)
_HIGH = np.uint32(0xFFFF0000)


class _BFloat(ir.Type):
    """llvmlite has no name for it."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_I32, _F32 = ir.IntType(32), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_I32, _LANES), ir.VectorType(_F32, _LANES)


def _dot(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """total + the two products of each pair."""
    if HAS_BFLOAT16:
        pairs = ir.VectorType(_BFloat(), 2 * _LANES)
        kind = ir.FunctionType(_FLOATS, [_FLOATS, pairs, pairs])
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [total, *(builder.bitcast(v, pairs) for v in (a, b))])
    sixteen, high = (ir.Constant(_INTS, [n] * _LANES) for n in (16, -65536))
    low = [builder.bitcast(builder.shl(v, sixteen), _FLOATS) for v in (a, b)]
    upper = [builder.bitcast(builder.and_(v, high), _FLOATS) for v in (a, b)]
    for factors in (low, upper):
        product = builder.fmul(*factors, flags=("fast",))
        total = builder.fadd(total, product, flags=("fast",))
    return total


def _arrays(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """Where the data of the arrays among the arguments begin."""
    return [
        context.make_array(kind)(context, builder, argument).data
        for kind, argument in zip(signature.args, arguments, strict=True)
        if isinstance(kind, types.Array)
    ]


def _load(builder: Any, data: Any, index: Any, kind: Any) -> Any:
    at = builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
    return builder.load(at, align=4)


def _store(builder: Any, value: Any, data: Any, index: Any) -> None:
    at = builder.bitcast(builder.gep(data, [index]), value.type.as_pointer())
    builder.store(value, at, align=4)


def _indices(lanes: Any) -> Any:
    lanes = list(lanes)
    return ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)


def _everywhere(builder: Any, value: Any) -> Any:
    """A vector of one number."""
    one = builder.insert_element(ir.Constant(_INTS, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, one, _indices([0] * _LANES))


def _sums(builder: Any, vectors: list[Any]) -> Any:
    """Element i is the sum of the i-th of as many vectors as they have lanes. Neighbouring lanes
    are added, of two vectors at a time, whose sums are the halves of a new one."""
    masks = [_indices(range(odd, 2 * _LANES, 2)) for odd in (0, 1)]
    while len(vectors) > 1:
        vectors = [
            builder.fadd(*(builder.shuffle_vector(a, b, mask) for mask in masks))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


@intrinsic
def _block(typingctx, weights, at, stride, count, x, first, y, row):
    """Rows row : row + _ROWS of y, samples first : first + _SPAN: adds products of ``count`` pairs
    each. ``weights[at + r * stride + k]`` belongs to row ``row + r``."""
    signature = types.void(weights, at, stride, count, x, first, y, row)

    def generate(context, builder, signature, arguments):
        w, source, out = _arrays(context, builder, signature, arguments)
        at, stride, count, first, row = (arguments[i] for i in (1, 2, 3, 5, 7))

        def const(value):
            return ir.Constant(at.type, value)

        def places(line):
            begin = builder.add(builder.mul(line, const(TILE)), first)
            return [builder.add(begin, const(v * _LANES)) for v in range(_VECTORS)]

        targets, sums = [], []
        for r in range(_ROWS):
            targets += places(builder.add(row, const(r)))
        for target in targets:
            # The compiler makes registers of these.
            sums.append(cgutils.alloca_once(builder, _FLOATS))
            builder.store(_load(builder, out, target, _FLOATS), sums[-1])
        with cgutils.for_range(builder, count) as loop:
            columns = [_load(builder, source, place, _INTS) for place in places(loop.index)]
            for r in range(_ROWS):
                index = builder.add(builder.add(at, builder.mul(stride, const(r))), loop.index)
                factor = _everywhere(builder, builder.load(builder.gep(w, [index])))
                for v, column in enumerate(columns):
                    total = sums[r * _VECTORS + v]
                    builder.store(_dot(builder, builder.load(total), column, factor), total)
        for target, total in zip(targets, sums, strict=True):
            _store(builder, builder.load(total), out, target)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _outer(typingctx, d, x, row, column, grads, at, stride):
    """Adds sums over a tile's samples of ``d[row + r] x[column + c]`` to
    ``grads[at + r * stride + c]``; r below _ROWS, c below _COLUMNS."""
    signature = types.void(d, x, row, column, grads, at, stride)

    def generate(context, builder, signature, arguments):
        left, right, out = _arrays(context, builder, signature, arguments)
        row, column, at, stride = (arguments[i] for i in (2, 3, 5, 6))
        length = TILE // 2

        def const(value):
            return ir.Constant(at.type, value)

        def lines(data, begin, count, step):
            for r in range(count):
                line = builder.mul(builder.add(begin, const(r)), const(length))
                yield _load(builder, data, builder.add(line, const(step * _LANES)), _INTS)

        sums = [ir.Constant(_FLOATS, [0.0] * _LANES)] * (_ROWS * _COLUMNS)
        for step in range(length // _LANES):
            a = list(lines(left, row, _ROWS, step))
            b = list(lines(right, column, _COLUMNS, step))
            factors = [(u, v) for u in a for v in b]
            sums = [_dot(builder, total, u, v) for total, (u, v) in zip(sums, factors, strict=True)]
        total = _sums(builder, sums)
        part = ir.VectorType(_F32, _COLUMNS)
        for r in range(_ROWS):
            mask = _indices(range(r * _COLUMNS, (r + 1) * _COLUMNS))
            place = builder.add(at, builder.mul(stride, const(r)))
            before = _load(builder, out, place, part)
            after = builder.fadd(before, builder.shuffle_vector(total, total, mask))
            _store(builder, after, out, place)
        return context.get_dummy_value()

    return signature, generate


def bfloat16_pairs(values: np.ndarray) -> np.ndarray:
    """float32 [2 N] rounded to bfloat16, pairs of neighbours, int32 [N]."""
    bits = values.view(np.uint32)
    rounded = (bits + (_ROUND + ((bits >> _SIXTEEN) & _ONE))) >> _SIXTEEN
    return rounded.astype("<u2").view(np.int32)


@numba.njit(inline="always")
def _pair(first, second):
    """Bits of two floats, rounded to bfloat16: to nearest, ties to even."""
    first += _ROUND + ((first >> _SIXTEEN) & _ONE)
    second += _ROUND + ((second >> _SIXTEEN) & _ONE)
    return (first >> _SIXTEEN) | (second & _HIGH)


@numba.njit(**FAST)
def pair_channels(x, count, pairs):
    """Pairs of channels 2 p and 2 p + 1 of a tile, at ``pairs[p * TILE + i]``; count even."""
    bits, out = x.view(np.uint32), pairs.view(np.uint32)
    for p in range(count // 2):
        first, second, at = _U(2 * p * TILE), _U((2 * p + 1) * TILE), _U(p * TILE)
        for i in range(_TILE):
            out[at + i] = _pair(bits[first + i], bits[second + i])


@numba.njit(**FAST)
def pair_samples(x, count, pairs):
    """Pairs of samples i and i + TILE / 2 of each channel, at ``pairs[c * TILE / 2 + i]``."""
    bits, out = x.view(np.uint32), pairs.view(np.uint32)
    for c in range(count):
        first, second = _U(c * TILE), _U(c * TILE + TILE // 2)
        at = _U(c * (TILE // 2))
        for i in range(_HALF_TILE):
            out[at + i] = _pair(bits[first + i], bits[second + i])


@numba.njit(**FAST)
def multiply(weights, at, rows, columns, x, y):
    """y[j] += sum_k weight[j, k] x[k].

    Args:
        weights: From :func:`bfloat16_pairs`; the matrix [rows, columns], both multiples of 4,
            begins at ``weights[at]``.
        x: From :func:`pair_channels`.
        y: A tile.
    """
    pairs = columns // 2
    for j in range(0, rows, _ROWS):
        for first in range(0, TILE, _SPAN):
            _block(weights, at + j * pairs, pairs, pairs, x, first, y, j)  # pyright: ignore


@numba.njit(**FAST)
def add_outer(d, x, rows, columns, grads, at):
    """Adds d x^T, summed over a tile's samples, to ``grads`` [rows, columns] from ``at`` on.

    Args:
        d, x: From :func:`pair_samples`.
    """
    for j in range(0, rows, _ROWS):
        for k in range(0, columns, _COLUMNS):
            _outer(d, x, j, k, grads, at + j * columns + k, columns)  # pyright: ignore
