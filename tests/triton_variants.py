"""Kernels of backend triton in all variants that training and rendering use, and how to compile
them without a card; whoever starts a kernel can be asked which of them it was."""

import importlib
import subprocess

import torch
import triton
import triton.language as tl
from triton.backends import compiler

MODULES = (
    *("networks.fused", "rays.composite", "rays.march", "rays.visible_samples"),
    *("table.adam", "table.interpolate", "table.noise", "table.rates", "table.touched_rows"),
)
kernels = {
    name: importlib.import_module(f"shacira_nerfstudio.backends.triton.{name}") for name in MODULES
}
ARCHITECTURES = {name: (75, 80, 90) for name in MODULES} | {"networks.fused": (80, 90)}
"""Turing (RTX 20), Ampere (RTX 30, A100), Hopper (H100); the fused networks ask for Ampere."""
POINTERS = {  # all others are float32
    **dict.fromkeys(["info_ptr", "kept_info_ptr", "first_ptr", "next_ptr"], "*i64"),
    **dict.fromkeys(["counts_ptr", "count_ptr", "rays_ptr"], "*i64"),
    **dict.fromkeys(["levels_ptr", "offsets_ptr", "first_table_ptr"], "*i32"),
    **dict.fromkeys(["classes_ptr", "updates_ptr"], "*i16"),
    **dict.fromkeys(["occupancy_ptr", "touched_ptr", "strides_ptr"], "*u8"),
    **dict.fromkeys(["settings_ptr", "bounds_ptr"], "*fp64"),
}
FLOATS = {"max_depth", "share_1", "share_2", "eps", "lr", "shrink"}  # other numbers are int32
STRUCTURE = {"D", "C", "PADDED_C", "MODE", "AFFINE", "KNEE", "WRITES", "SIGMOID", "TYPE"}
"""Constants that a kernel's text branches on; others are sizes."""
INTEGER_TABLES = {torch.int8: "*i8", torch.int16: "*i16"}

TABLE = {"FIELDS": 8, "BLOCK": 256}
RATED = {"RATE_BLOCK": 16, "BLOCK": 1024}
STEPS = {"NEVER": 2**31 - 1, "STEPS": 64, "MAX_EXPONENT": 5}
COUNTS, WRITES = {"WRITES": False, "out_ptr": None}, {"WRITES": True}
AFFINE, CONTRACTED = {"AFFINE": True, "KNEE": False}, {"AFFINE": False, "KNEE": True}
PER_RAY = {"BLOCK": 32}
SHORT = {"HIDDEN": 64, "PAD_HIDDEN": 64, "PAD_OUT": 16, "BLOCK": 64, "TYPE": tl.bfloat16}
ONE_HIDDEN = {"w2_ptr": None, "b2_ptr": None}
DENSITY = {**SHORT, **ONE_HIDDEN, "A": 0, "IN": 20, "PAD_IN": 32, "OUT": 16, "SIGMOID": False}
DENSITY |= {"features_ptr": None, "rays_ptr": None}
COLOR = {**SHORT, "A": 16, "IN": 31, "PAD_IN": 32, "OUT": 3, "SIGMOID": True}
FUSED_PARTS = {"scale_ptr": None, "TOTAL": 9999}


def channels(count):
    return {"C": count, "PADDED_C": triton.next_power_of_2(count)}


def of_networks():
    for network in (DENSITY, COLOR, COLOR | ONE_HIDDEN):
        yield "networks.fused", "_network_kernel", 4, network
        yield "networks.fused", "_network_gradient_kernel", 4, {**network, **FUSED_PARTS}


def of_tables():
    look_up, gradient = "_look_up_kernel", "_table_gradient_kernel"
    modes = [(3, c, mode) for c in (1, 2) for mode in ("none", "round", "noise")]
    for d, c, mode in [*modes, (3, 4, "round"), (2, 1, "noise"), (2, 2, "noise")]:
        constants = {**TABLE, **channels(c), "D": d, "MODE": mode}
        yield "table.interpolate", look_up, 8, constants
        if mode in ("noise", "round")[c == 4 :]:
            yield "table.interpolate", gradient, 8, {**TABLE, **channels(c), "D": d}
    for kind in INTEGER_TABLES.values():  # of files
        for c in (1, 2):
            constants = {**TABLE, **channels(c), "D": 3, "MODE": "none", "table_ptr": kind}
            yield "table.interpolate", look_up, 8, constants
    for c in (1, 2):
        yield "table.rates", "_coded_kernel", 4, {**RATED, "C": c}
        yield "table.rates", "_logistic_kernel", 4, {**RATED, "C": c}
        yield "table.rates", "_add_kernel", 4, {**RATED, "C": c}
        yield "table.rates", "_add_kernel", 4, {**RATED, "C": c, "touched_ptr": None}
        yield "table.touched_rows", "_mark_kernel", 4, {"C": c, "BYTES": 128}
        rows = {"MOST_UPDATES": 2**15 - 1, "ROWS": 1024 // c}
        yield "table.adam", "_update_kernel", 4, {**channels(c), **rows}
    for mode in ("noise", "round"):
        yield "table.noise", "_quantize_kernel", 4, {"BLOCK": 1024, "MODE": mode}


def of_rays():
    for shape in (AFFINE, CONTRACTED):
        for task in (COUNTS, WRITES):
            for strides in ({}, {"strides_ptr": None}):
                yield "rays.march", "_march_kernel", 1, {**STEPS, **shape, **task, **strides}
    yield "rays.composite", "_composite_kernel", 1, {**PER_RAY, **channels(3)}
    yield "rays.composite", "_composite_gradient_kernel", 1, {**PER_RAY, **channels(3)}
    yield "rays.composite", "_visible_kernel", 1, {**PER_RAY, "MAX_LOG": 15.0}
    sizes = {"FOUND": 25, "OUTPUTS": 16, "ROWS": 64}
    yield "rays.visible_samples", "_keep_kernel", 2, {**PER_RAY, **sizes}


VARIANTS = [*of_networks(), *of_tables(), *of_rays()]


def signature(name, constants):
    """What tells variants of a kernel apart."""
    kept = {k: v for k, v in constants.items() if v is None or k in (*STRUCTURE, "table_ptr")}
    return name, frozenset(kept.items())


SIGNATURES = {signature(name, constants) for _, name, _, constants in VARIANTS}


class Launches:
    """In place of :func:`launch`: runs nothing, and notes what would have run."""

    def __init__(self, monkeypatch):
        self.found = set()
        for module in kernels.values():
            monkeypatch.setattr(module, "launch", self)

    def __call__(self, kernel, programs, *arguments, **constants):
        values = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
        table = values.pop("table_ptr", None)
        if table is not None and table.dtype in INTEGER_TABLES:
            values["table_ptr"] = INTEGER_TABLES[table.dtype]
        for name in ("next_ptr", "counts_ptr"):  # no samples, and no ray goes on
            if name in values:
                values[name].fill_(-1 if name == "next_ptr" else 0)
        values = {name: value for name, value in values.items() if name in kernel.arg_names}
        self.found.add(signature(kernel.__name__, values))


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


def resources(cubin, folder):
    """Registers of a thread, and bytes of memory that it has of its own: what did not fit."""
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in text.splitlines() if "REG:" in line)
    found = dict(part.split(":") for part in line.split() if ":" in part)
    return int(found["REG"]), int(found["STACK"]) + int(found["LOCAL"])
