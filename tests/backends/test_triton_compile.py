"""Every kernel of backend triton compiles for cards of several generations, without one.

All variants that training and rendering use. That they are right, test_triton_interpreter.py shows.
"""

import importlib
import importlib.util
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from shacira_nerfstudio.backends import (
    AdamState,
    FieldArrays,
    MarchSettings,
    NetworkWeights,
    SparseRowGradient,
    TableQuantizer,
    available_backends,
    get_backend,
    selection,
)
from shacira_nerfstudio.grid import GridSpec

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels do not compile", allow_module_level=True)
triton = pytest.importorskip("triton", reason="pip install triton")
pytest.importorskip("triton.backends.compiler")
from triton_variants import (  # noqa: E402
    ARCHITECTURES,
    MODULES,
    SIGNATURES,
    TABLE,
    VARIANTS,
    Launches,
    channels,
    compiled,
    kernels,
    resources,
)

self_check = importlib.import_module("shacira_nerfstudio.backends.triton.self_check")
backend_module = importlib.import_module("shacira_nerfstudio.backends.triton.backend")

MOST_REGISTERS = {"networks.fused": 255, "rays.march": 208, "rays.visible_samples": 160}
"""Of a thread, where 96 is not enough. A processor of any of these cards has 65,536: of kernels
that a warp runs alone 9 fit at 208."""
MOST_SPILLED = {"_network_gradient_kernel": 640, "_march_kernel": 16}
"""Bytes of a thread that do not fit into registers, where there may be any: the sums of the fused
networks, which makes them an option that a card has to prove, and two numbers of a march."""


@pytest.mark.parametrize(
    ("module", "architecture"),
    [(module, architecture) for module in MODULES for architecture in ARCHITECTURES[module]],
)
def test_compiles(module, architecture, tmp_path):
    for home, name, num_warps, constants in VARIANTS:
        if home == module:
            kernel = getattr(kernels[module], name)
            found = compiled(kernel, constants, architecture, num_warps=num_warps)
            # What does not fit into registers goes to memory and back.
            registers, spilled = resources(found["cubin"], tmp_path)
            assert spilled <= MOST_SPILLED.get(name, 0), f"{name} {constants}"
            assert registers <= MOST_REGISTERS.get(module, 96), f"{name} {constants}"


def test_every_kernel_is_compiled():
    every = {
        (module, name)
        for module, content in kernels.items()
        for name in vars(content)
        if name.endswith("_kernel")
    }
    assert every == {variant[:2] for variant in VARIANTS}


BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
MARCHES = [
    MarchSettings("affine", BOX, near=0.05, far=30.0, step_size=0.1),
    MarchSettings("contracted", BOX, near=0.05, far=1000.0, step_size=0.1, knee=2.0),
]


def run_everything(backend, settings, num_channels, num_layers):
    """What training and rendering ask of a backend, with kernels that do nothing: no sample."""
    grid = GridSpec(3, ((4, 4, 4), (16, 16, 16)), (64, 512))
    table = torch.randn(grid.num_entries, num_channels, requires_grad=True)

    def layers(*sizes):
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        return tuple((torch.randn(b, a, requires_grad=True), torch.randn(b)) for a, b in pairs)

    weights = NetworkWeights(
        layers(2 * num_channels, 16, 4), layers(5, *[16] * (num_layers - 1), 3)
    )
    field = FieldArrays(table.detach(), grid, weights)
    rays, cells = (torch.zeros(2, 3), torch.ones(2, 3)), torch.ones(4, 4, 4, dtype=torch.bool)
    rated = torch.rand(2, 5), torch.zeros(table.shape, dtype=torch.int16), torch.zeros(2).int()
    gradient = SparseRowGradient.zeros(*table.shape)
    adam = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-15, "weight_decay": 0.0}
    state = AdamState(torch.zeros(len(table), 2, num_channels), torch.zeros(len(table)).short())
    for mode in ("none", "round", "noise"):
        for strides in (None, torch.zeros(4, 4, 4, dtype=torch.uint8)):
            now = replace(field, quantizer=TableQuantizer(mode, 5))
            found = backend.sample_training_rays(
                *rays, cells, settings, now, early_stop=1e-3, jitter=torch.rand(2),
                log2_strides=strides,
            )  # fmt: skip
            reads = {"quantizer": now.quantizer, "gradient": gradient}
            latents = backend.interpolate(found.positions, table, grid, **reads)
            shaded = found.density_outputs, torch.ones(2, 2), found.ray_indices, weights
            shaded = backend.shade(latents, *shaded)
            spans = found.t_starts, found.t_ends, found.packed_info
            bits = backend.coded_bits(table, *rated, grid, gradient=gradient)
            bits = bits + backend.logistic_bits(
                table, *torch.ones(2, 2, num_channels), grid, seed=5, gradient=gradient
            )
            (backend.composite(*shaded, *spans)[0].sum() + bits).backward()
            backend.update_rows(table.detach(), gradient, state, **adam)
            backend.quantize(table, now.quantizer)
    for kind in (torch.int8, torch.int16, torch.float32):
        for limits in (None, torch.ones(2, 2)):
            now = replace(field, table=field.table.to(kind))
            options = {"early_stop": 1e-3, "min_weight": 0.0, "limits": limits}
            backend.render(*rays, cells, settings, now, torch.ones(2, 2), **options)


@pytest.mark.parametrize("settings", MARCHES, ids=lambda settings: settings.contraction)
def test_what_training_and_rendering_use_is_compiled(settings, monkeypatch):
    """Whatever runs here runs compiled above; what the trainer itself runs,
    test_steps_without_waiting.py holds against the same list."""
    launches = Launches(monkeypatch)
    plain = backend_module.TritonBackend(torch.device("cpu"), precision="bfloat16")
    for backend in (plain, plain.with_fused_networks()):
        for num_channels in (1, 2):
            for num_layers in (2, 3):
                run_everything(backend, settings, num_channels, num_layers)
    assert len(launches.found) > 25
    assert launches.found <= SIGNATURES, launches.found - SIGNATURES


def test_a_variant_that_is_not_compiled_is_noticed(monkeypatch):
    launches = Launches(monkeypatch)
    grid = GridSpec(2, ((4, 4),), (16,))
    backend = backend_module.TritonBackend(torch.device("cpu"))
    backend.interpolate(torch.rand(3, 2), torch.randn(16, 5), grid)
    assert len(launches.found) == 1 and not launches.found <= SIGNATURES


def test_rows_are_read_and_added_at_once():
    """Four channels are one access, and Hopper adds them in one as well."""
    constants = {**TABLE, **channels(4), "D": 3}
    home = kernels["table.interpolate"]
    forward = {**constants, "MODE": "none"}
    ptx = compiled(home._look_up_kernel, forward, 90, num_warps=8)["ptx"]
    assert ptx.count(".v4.b32") >= 8
    ptx = compiled(home._table_gradient_kernel, constants, 90, num_warps=8)["ptx"]
    assert ptx.count(".add.v4.f32") == 8
    assert "relaxed" in ptx
    assert "acq_rel" not in ptx


def test_old_versions_are_named(monkeypatch):
    monkeypatch.setattr(triton, "__version__", "2.1.0")
    with pytest.raises(RuntimeError, match=r"needs triton 3\.3, which comes with PyTorch 2\.7"):
        get_backend("triton", "cuda")


def test_absence_is_named(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "triton" else find_spec(name, *a),
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="pip install triton"):
        get_backend("triton", "cuda")


def test_auto_takes_it_where_it_is_right(monkeypatch, caplog):
    """Without a card: what `auto` does with one, and with none."""
    chosen = get_backend("auto", "cuda")
    assert chosen.name == ("triton" if torch.cuda.is_available() else "reference")
    monkeypatch.setattr(selection, "_load", lambda name, device: SimpleNamespace(name=name))
    found = []
    for wrong in (False, True):
        monkeypatch.setattr(selection, "_announced", set())
        selection._check.cache_clear()
        monkeypatch.setattr(
            self_check, "check", lambda *_, wrong=wrong: wrong and _fail("wrong on this card")
        )
        found.append(get_backend("auto", "cuda").name)
    selection._check.cache_clear()
    assert found == ["triton", "reference"]
    assert "cuda: triton" in caplog.text
    assert "cuda: reference (wrong on this card)" in caplog.text


def _fail(reason):
    raise RuntimeError(reason)


def test_auto_says_what_to_install(monkeypatch, caplog):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "triton" else find_spec(name, *a),
    )
    monkeypatch.setattr(selection, "_announced", set())
    assert get_backend("auto", "cuda").name == "reference"
    (line,) = [record.message for record in caplog.records]
    assert "cuda: reference (backend triton needs" in line and "pip install triton" in line


def test_it_is_for_cuda():
    assert "CUDA" in (available_backends("cpu")["triton"] or "")
    with pytest.raises(RuntimeError, match="runs on CUDA devices, not on cpu"):
        get_backend("triton", "cpu")
    assert get_backend("auto", "cpu").name != "triton"
