"""Each network as one kernel forward and one backward: what lies between layers never leaves the
registers, and what rays share is gathered on the way.

Numbers are those of :mod:`short_numbers`: factors are short, sums float32; what a layer hands to
the next one is rounded. The last layer's gradients are rounded as well, and biases are not. The
backward pass computes what is between layers anew. Its programs are few and take block after block,
so that the gradients of weights are summed in registers and written once.

An option, not the default: whether it pays is for a card to say.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shacira_nerfstudio.backends.triton.launch import launch
from shacira_nerfstudio.backends.triton.networks.short_numbers import Short, gradient_scale
from shacira_nerfstudio.backends.types import Layer, NetworkWeights

BLOCK = 64
"""Samples that a program takes at once."""
NUM_WARPS = 4
PROGRAMS_PER_PROCESSOR = 2
"""Of the backward pass."""
_LEAST, _MOST = 16, 128
"""Sides of a matrix that tensor cores multiply, and that registers hold."""
_TYPES = {"bfloat16": tl.bfloat16, "float16": tl.float16}


@triton.jit
def _matrix(ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAD_R: tl.constexpr,
            PAD_C: tl.constexpr, TYPE: tl.constexpr):  # fmt: skip
    """Weights of a layer [out, in], float32 in memory, with zeros around them."""
    row, column = tl.arange(0, PAD_R)[:, None], tl.arange(0, PAD_C)[None, :]
    mask = (row < ROWS) & (column < COLUMNS)
    return tl.load(ptr + row * COLUMNS + column, mask, 0.0).to(TYPE)


@triton.jit
def _bias(ptr, ROWS: tl.constexpr, PAD_R: tl.constexpr):
    row = tl.arange(0, PAD_R)
    return tl.load(ptr + row, row < ROWS, 0.0)[None, :]


@triton.jit
def _inputs(
    values_ptr, stride_s, stride_f, features_ptr, rays_ptr, sample, mask, A: tl.constexpr,
    IN: tl.constexpr, PAD_IN: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Of a block of samples: A numbers of the ray of each, then its own."""
    column = tl.arange(0, PAD_IN)[None, :]
    at = sample.to(tl.int64)[:, None] * stride_s + (column - A).to(tl.int64) * stride_f
    own = mask[:, None] & (column >= A) & (column < IN)
    x = tl.load(values_ptr + at, own, 0.0).to(tl.float32)
    if A > 0:
        ray = tl.load(rays_ptr + sample, mask, 0)
        of_ray = mask[:, None] & (column < A)
        x += tl.load(features_ptr + ray[:, None] * A + column, of_ray, 0.0)
    return x.to(TYPE)


@triton.jit
def _hidden(x, weight, bias, TYPE: tl.constexpr):
    return tl.maximum(tl.dot(x, tl.trans(weight)) + bias, 0.0).to(TYPE)


@triton.jit
def _outputs(h, weight, bias, SIGMOID: tl.constexpr):
    out = tl.dot(h, tl.trans(weight)) + bias
    return tl.sigmoid(out) if SIGMOID else out


@triton.jit(do_not_specialize=["num_samples", "stride_s", "stride_f"])
def _network_kernel(
    values_ptr, features_ptr, rays_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, out_ptr,
    num_samples, stride_s, stride_f, A: tl.constexpr, IN: tl.constexpr, HIDDEN: tl.constexpr,
    OUT: tl.constexpr, PAD_IN: tl.constexpr, PAD_HIDDEN: tl.constexpr, PAD_OUT: tl.constexpr,
    SIGMOID: tl.constexpr, TYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = sample < num_samples
    x = _inputs(
        values_ptr, stride_s, stride_f, features_ptr, rays_ptr, sample, mask, A, IN, PAD_IN, TYPE
    )  # fmt: skip
    weight = _matrix(w1_ptr, HIDDEN, IN, PAD_HIDDEN, PAD_IN, TYPE)
    h = _hidden(x, weight, _bias(b1_ptr, HIDDEN, PAD_HIDDEN), TYPE)
    if w2_ptr is not None:
        weight = _matrix(w2_ptr, HIDDEN, HIDDEN, PAD_HIDDEN, PAD_HIDDEN, TYPE)
        h = _hidden(h, weight, _bias(b2_ptr, HIDDEN, PAD_HIDDEN), TYPE)
    weight = _matrix(w3_ptr, OUT, HIDDEN, PAD_OUT, PAD_HIDDEN, TYPE)
    out = _outputs(h, weight, _bias(b3_ptr, OUT, PAD_OUT), SIGMOID)
    column = tl.arange(0, PAD_OUT)[None, :]
    at = sample.to(tl.int64)[:, None] * OUT + column
    tl.store(out_ptr + at, out, mask[:, None] & (column < OUT))


@triton.jit
def _store_matrix(ptr, value, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAD_R: tl.constexpr,
                  PAD_C: tl.constexpr):  # fmt: skip
    row, column = tl.arange(0, PAD_R)[:, None], tl.arange(0, PAD_C)[None, :]
    tl.store(ptr + row * COLUMNS + column, value, (row < ROWS) & (column < COLUMNS))


@triton.jit
def _store_bias(ptr, value, ROWS: tl.constexpr, PAD_R: tl.constexpr):
    row = tl.arange(0, PAD_R)
    tl.store(ptr + row, value, row < ROWS)


@triton.jit(do_not_specialize=["num_samples", "stride_s", "stride_f"])
def _network_gradient_kernel(
    values_ptr, features_ptr, rays_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr,
    upstream_ptr, scale_ptr, grad_ptr, parts_ptr, num_samples, stride_s, stride_f,
    A: tl.constexpr, IN: tl.constexpr, HIDDEN: tl.constexpr, OUT: tl.constexpr,
    PAD_IN: tl.constexpr, PAD_HIDDEN: tl.constexpr, PAD_OUT: tl.constexpr, SIGMOID: tl.constexpr,
    TYPE: tl.constexpr, TOTAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    scale = tl.full((), 1.0, tl.float32)
    if scale_ptr is not None:
        scale = tl.load(scale_ptr)
    w1 = _matrix(w1_ptr, HIDDEN, IN, PAD_HIDDEN, PAD_IN, TYPE)
    w3 = _matrix(w3_ptr, OUT, HIDDEN, PAD_OUT, PAD_HIDDEN, TYPE)
    b1, b3 = _bias(b1_ptr, HIDDEN, PAD_HIDDEN), _bias(b3_ptr, OUT, PAD_OUT)
    d_w1 = tl.zeros((PAD_HIDDEN, PAD_IN), tl.float32)
    d_w3 = tl.zeros((PAD_OUT, PAD_HIDDEN), tl.float32)
    d_b1, d_b3 = tl.zeros((PAD_HIDDEN,), tl.float32), tl.zeros((PAD_OUT,), tl.float32)
    if w2_ptr is not None:
        w2 = _matrix(w2_ptr, HIDDEN, HIDDEN, PAD_HIDDEN, PAD_HIDDEN, TYPE)
        b2 = _bias(b2_ptr, HIDDEN, PAD_HIDDEN)
        d_w2 = tl.zeros((PAD_HIDDEN, PAD_HIDDEN), tl.float32)
        d_b2 = tl.zeros((PAD_HIDDEN,), tl.float32)
    input_column, column = tl.arange(0, PAD_IN)[None, :], tl.arange(0, PAD_OUT)[None, :]
    for begin in range(tl.program_id(0) * BLOCK, num_samples, tl.num_programs(0) * BLOCK):
        sample = begin + tl.arange(0, BLOCK)
        mask = sample < num_samples
        x = _inputs(
            values_ptr, stride_s, stride_f, features_ptr, rays_ptr, sample, mask, A, IN, PAD_IN,
            TYPE,
        )  # fmt: skip
        h1 = _hidden(x, w1, b1, TYPE)
        last = h1
        if w2_ptr is not None:
            last = _hidden(h1, w2, b2, TYPE)
        at = sample.to(tl.int64)[:, None] * OUT + column
        g = tl.load(upstream_ptr + at, mask[:, None] & (column < OUT), 0.0) * scale
        if SIGMOID:
            out = _outputs(last, w3, b3, SIGMOID)
            g *= out * (1 - out)
        d_b3 += tl.sum(g, 0)
        g = g.to(TYPE)
        d_w3 += tl.dot(tl.trans(g), last)
        g = tl.where(last > 0, tl.dot(g, w3), 0.0)
        if w2_ptr is not None:
            d_b2 += tl.sum(g, 0)  # pyright: ignore[reportOperatorIssue, reportPossiblyUnbound]
            g = g.to(TYPE)
            d_w2 += tl.dot(tl.trans(g), h1)
            g = tl.where(h1 > 0, tl.dot(g, w2), 0.0)
        d_b1 += tl.sum(g, 0)
        g = g.to(TYPE)
        d_w1 += tl.dot(tl.trans(g), x)
        # Feature by feature, as look-ups read it.
        at = input_column.to(tl.int64) * num_samples + sample[:, None]
        inside = mask[:, None] & (input_column < IN)
        tl.store(grad_ptr + at, tl.dot(g, w1) / scale, inside)
    parts_ptr += tl.program_id(0).to(tl.int64) * TOTAL
    _store_matrix(parts_ptr, d_w1 / scale, HIDDEN, IN, PAD_HIDDEN, PAD_IN)
    parts_ptr += HIDDEN * IN
    _store_bias(parts_ptr, d_b1 / scale, HIDDEN, PAD_HIDDEN)
    parts_ptr += HIDDEN
    if w2_ptr is not None:
        _store_matrix(parts_ptr, d_w2 / scale, HIDDEN, HIDDEN, PAD_HIDDEN, PAD_HIDDEN)
        parts_ptr += HIDDEN * HIDDEN
        _store_bias(parts_ptr, d_b2 / scale, HIDDEN, PAD_HIDDEN)
        parts_ptr += HIDDEN
    _store_matrix(parts_ptr, d_w3 / scale, OUT, HIDDEN, PAD_OUT, PAD_HIDDEN)
    parts_ptr += OUT * HIDDEN
    _store_bias(parts_ptr, d_b3 / scale, OUT, PAD_OUT)


def has_tensor_cores(device: torch.device) -> bool:
    """Whether Triton multiplies matrices on the card's tensor cores, which it does from Ampere on.
    Without them a block does not fit into registers."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def _padded(size: int) -> int:
    return max(_LEAST, triton.next_power_of_2(size))


def _shape(layers: tuple[Layer, ...]) -> dict[str, int]:
    """What kernels are compiled for.

    Raises:
        ValueError: layers are too many, too wide or of several widths.
    """
    sizes = [layers[0][0].shape[1], *(len(weight) for weight, _ in layers)]
    is_even = len(layers) in (2, 3) and len(set(sizes[1:-1])) == 1
    if not is_even or max(sizes) > _MOST:
        raise ValueError(
            f"expected fused networks of 1 or 2 equal hidden layers and at most {_MOST} numbers "
            f"between layers, got {sizes}"
        )
    names = {"IN": sizes[0], "HIDDEN": sizes[1], "OUT": sizes[-1]}
    return names | {f"PAD_{name}": _padded(size) for name, size in names.items()}


def _pointers(parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """Weights and biases of three layers, the second of which may be missing."""
    return parameters if len(parameters) == 6 else (*parameters[:2], None, None, *parameters[2:])


def _num_programs(num_samples: int, device: torch.device) -> int:
    """Of the backward pass."""
    processors = 1
    if device.type == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    return min(triton.cdiv(num_samples, BLOCK), PROGRAMS_PER_PROCESSOR * processors)


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, features: Tensor | None, rays: Tensor | None,
        constants: dict[str, Any], precision: Short, *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        out = torch.empty(len(values), constants["OUT"], device=values.device)
        launch(
            _network_kernel, (triton.cdiv(len(values), BLOCK),), values, features, rays,
            *_pointers(parameters), out, len(values), *values.stride(), **constants,
            TYPE=_TYPES[precision], BLOCK=BLOCK, num_warps=NUM_WARPS,
        )  # fmt: skip
        ctx.save_for_backward(values, features, rays, *parameters)
        ctx.constants, ctx.precision = constants, precision
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        values, features, rays, *parameters = ctx.saved_tensors
        sizes = [parameter.numel() for parameter in parameters]
        programs = _num_programs(len(values), values.device)
        grad = values.new_empty(ctx.constants["IN"], len(values))
        parts = values.new_empty(programs, sum(sizes))
        scale = gradient_scale(upstream) if ctx.precision == "float16" else None
        launch(
            _network_gradient_kernel, (programs,), values, features, rays,
            *_pointers(tuple(parameters)), upstream.contiguous(), scale, grad, parts,
            len(values), *values.stride(), **ctx.constants, TYPE=_TYPES[ctx.precision],
            TOTAL=sum(sizes), BLOCK=BLOCK, num_warps=NUM_WARPS,
        )  # fmt: skip
        own = ctx.constants["A"]
        of_features = None
        if features is not None and ctx.needs_input_grad[1]:
            of_features = torch.zeros_like(features).index_add_(0, rays, grad[:own].t())
        shapes = zip(parts.sum(0).split(sizes), parameters, strict=True)
        of_parameters = (part.view_as(parameter) for part, parameter in shapes)
        return grad[own:].t(), of_features, None, None, None, *of_parameters


def _apply(
    values: Tensor,
    features: Tensor | None,
    rays: Tensor | None,
    layers: tuple[Layer, ...],
    precision: Short,
    *,
    ends_in_sigmoid: bool,
) -> Tensor:
    constants = _shape(layers)
    constants |= {"A": 0 if features is None else features.shape[1], "SIGMOID": ends_in_sigmoid}
    parameters = (part.contiguous() for layer in layers for part in layer)
    features = None if features is None else features.contiguous()
    return _Network.apply(values, features, rays, constants, precision, *parameters)


def density_network(latents: Tensor, weights: NetworkWeights, precision: Short) -> Tensor:
    """As :func:`short_numbers.density_network`."""
    values = latents.flatten(1)
    return _apply(values, None, None, weights.density, precision, ends_in_sigmoid=False)


def color_network(
    geometry: Tensor,
    ray_features: Tensor,
    ray_indices: Tensor,
    weights: NetworkWeights,
    precision: Short,
) -> Tensor:
    """As :func:`short_numbers.color_network` of what rays share, followed by geometry."""
    inputs = geometry, ray_features, ray_indices
    return _apply(*inputs, weights.color, precision, ends_in_sigmoid=True)
