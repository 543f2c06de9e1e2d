"""Every kernel of backend triton compiles for cards of several generations, without one: Turing
(RTX 20), Ampere (RTX 30, A100), Hopper (H100).

All variants that training uses. That they are right, test_triton_interpreter.py shows.
"""

import importlib.util
import os
from types import SimpleNamespace

import pytest
import torch

from shacira_nerfstudio.backends import available_backends, get_backend, selection

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels do not compile", allow_module_level=True)
triton = pytest.importorskip("triton", reason="pip install triton")
compiler = pytest.importorskip("triton.backends.compiler")
tl = pytest.importorskip("triton.language")
self_check = pytest.importorskip("shacira_nerfstudio.backends.triton.self_check")
kernels = {
    name: importlib.import_module(f"shacira_nerfstudio.backends.triton.{name}")
    for name in (
        *("networks.fused", "rays.composite", "rays.march", "rays.visible_samples"),
        *("table.adam", "table.interpolate", "table.noise", "table.rates", "table.touched_rows"),
    )
}

ARCHITECTURES = [75, 80, 90]
POINTERS = {  # all others are float32
    **dict.fromkeys(["info_ptr", "kept_info_ptr", "first_ptr", "next_ptr"], "*i64"),
    **dict.fromkeys(["counts_ptr", "count_ptr", "rays_ptr"], "*i64"),
    **dict.fromkeys(["levels_ptr", "offsets_ptr", "first_table_ptr"], "*i32"),
    **dict.fromkeys(["classes_ptr", "updates_ptr"], "*i16"),
    **dict.fromkeys(["occupancy_ptr", "touched_ptr", "strides_ptr"], "*u8"),
    **dict.fromkeys(["settings_ptr", "bounds_ptr"], "*fp64"),
}
FLOATS = {"max_depth", "share_1", "share_2", "eps", "lr", "shrink"}  # other numbers are int32

TABLE = {"FIELDS": 8, "BLOCK": 256}
RATED = {"RATE_BLOCK": 16, "BLOCK": 1024}
STEPS = {"first_ptr": None, "NEVER": 2**31 - 1, "STEPS": 64, "MAX_EXPONENT": 5}
COUNTS, WRITES = {"WRITES": False, "out_ptr": None}, {"WRITES": True}
AFFINE = {"AFFINE": True, "KNEE": False, "CAPPED": False, "limits_ptr": None, "strides_ptr": None}
CONTRACTED = {"AFFINE": False, "KNEE": True, "CAPPED": True}
PER_RAY = {"BLOCK": 32}
# Files are rendered in waves, from integers.
INTEGERS = {kind: {"MODE": "none", "table_ptr": kind} for kind in ("*i8", "*i16")}
NO_HIDDEN = {"w2_ptr": None, "b2_ptr": None}
SHORT = {"HIDDEN": 64, "PAD_HIDDEN": 64, "PAD_OUT": 16, "BLOCK": 64}
DENSITY = {**SHORT, **NO_HIDDEN, "A": 0, "IN": 16, "PAD_IN": 16, "OUT": 16, "SIGMOID": False}
DENSITY |= {"features_ptr": None, "rays_ptr": None}
COLOR = {**SHORT, "A": 16, "IN": 31, "PAD_IN": 32, "OUT": 3, "SIGMOID": True}
RENDERED = {"first_ptr": "*i64", "jitter_ptr": None, "strides_ptr": None, "limits_ptr": None}


def channels(count):
    return {"C": count, "PADDED_C": triton.next_power_of_2(count)}


VARIANTS = [
    *(
        ("table.interpolate", "_look_up_kernel", 8, {**TABLE, **channels(c), "D": d, "MODE": mode, **n})
        for d, c, mode, n in [
            (3, 1, "noise", {}),
            (3, 1, "round", {}),
            (3, 1, "none", {"count_ptr": None}),
            (3, 2, "noise", {}),
            (3, 4, "round", {}),
            (2, 1, "noise", {"count_ptr": None}),
        ]
    ),
    *(
        ("table.interpolate", "_table_gradient_kernel", 8, {**TABLE, **channels(c), "D": d, "stride_c": 1})
        for d, c in [(3, 1), (3, 2), (3, 4), (2, 1), (2, 2)]
    ),
    *(
        ("table.interpolate", "_look_up_kernel", 8, {**TABLE, **channels(c), "D": 3, **INTEGERS[kind]})
        for c, kind in [(1, "*i8"), (2, "*i8"), (1, "*i16")]
    ),
    *(
        ("rays.march", "_march_kernel", 1, {**STEPS, **shape, **task})
        for shape in (AFFINE, CONTRACTED, {**CONTRACTED, **RENDERED})
        for task in (COUNTS, WRITES)
    ),
    ("rays.composite", "_composite_kernel", 1, {**PER_RAY, **channels(3)}),
    ("rays.composite", "_composite_gradient_kernel", 1, {**PER_RAY, **channels(3)}),
    ("rays.composite", "_visible_kernel", 1, {**PER_RAY, "MAX_LOG": 15.0}),
    ("rays.visible_samples", "_keep_kernel", 2, {**PER_RAY, "FOUND": 21, "OUTPUTS": 16, "ROWS": 64}),
    ("table.rates", "_coded_kernel", 4, {**RATED, "C": 1}),
    ("table.rates", "_logistic_kernel", 4, {**RATED, "C": 1}),
    ("table.rates", "_add_kernel", 4, {**RATED, "C": 1}),
    ("table.rates", "_add_kernel", 4, {**RATED, "C": 2, "touched_ptr": None}),
    ("table.touched_rows", "_mark_kernel", 4, {"C": 1, "BYTES": 128}),
    ("table.adam", "_update_kernel", 4, {**channels(1), "MOST_UPDATES": 2**15 - 1, "ROWS": 1024}),
    ("table.adam", "_update_kernel", 4, {**channels(2), "MOST_UPDATES": 2**15 - 1, "ROWS": 512}),
    *(
        ("networks.fused", name, 4, {**network, **own, "TYPE": tl.bfloat16})
        for network in (COLOR, DENSITY)
        for name, own in (("_network_kernel", {}), ("_network_gradient_kernel", {"TOTAL": 9999}))
    ),
    *(("table.noise", "_quantize_kernel", 4, {"BLOCK": 1024, "MODE": m}) for m in ("table.noise", "round")),
]


def compiled(kernel, constants, architecture, **options):
    """The binary, with arguments of the types that they have in training."""

    types = {name: value for name, value in constants.items() if str(value).startswith("*")}
    constants = {name: value for name, value in constants.items() if name not in types}

    def type_of(name):
        if name in types:
            return types[name]
        if name in constants:
            return "constexpr"
        return POINTERS.get(name, "*fp32") if name.endswith("_ptr") else number_type(name)

    def number_type(name):
        return "fp32" if name in FLOATS else "i32"

    names = kernel.arg_names
    source = triton.compiler.ASTSource(
        kernel,
        {name: type_of(name) for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(names)
            if type_of(name).startswith("*")
        },
    )
    target = compiler.GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options=options).asm


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("module", kernels)
def test_compiles(module, architecture):
    for home, name, num_warps, constants in VARIANTS:
        if home == module:
            kernel = getattr(kernels[module], name)
            found = compiled(kernel, constants, architecture, num_warps=num_warps)
            assert len(found["cubin"]) > 1000, f"{name} {constants}"
            # An array in local memory, or what did not fit into registers, would be slow.
            assert ".local" not in found["ptx"], f"{name} {constants}"


def test_every_kernel_is_compiled():
    every = {
        (module, name)
        for module, content in kernels.items()
        for name in vars(content)
        if name.endswith("_kernel")
    }
    assert every == {variant[:2] for variant in VARIANTS}


def test_rows_are_read_and_added_at_once():
    """Four channels are one access, and Hopper adds them in one as well."""
    constants = {**TABLE, **channels(4), "D": 3}
    forward = {**constants, "MODE": "none", "count_ptr": None}
    ptx = compiled(kernels["table.interpolate"]._look_up_kernel, forward, 90, num_warps=8)["ptx"]
    assert ptx.count(".v4.b32") >= 8
    backward = {**constants, "stride_c": 1}
    ptx = compiled(kernels["table.interpolate"]._table_gradient_kernel, backward, 90, num_warps=8)["ptx"]
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
