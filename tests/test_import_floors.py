"""The house has floors: a module may import its own floor and those below it, never above."""

import ast
import json
import pathlib
import subprocess
import sys

import pytest

PACKAGE = "shacira_nerfstudio"
ROOT = pathlib.Path(__file__).parents[1] / PACKAGE
FLOOR = {  # longest matching prefix wins
    "grid": 0,
    **dict.fromkeys(
        [
            *("codec.wire", "codec.tables", "codec.rans", "codec.kernels_numba"),
            *("codec.contexts", "codec.walks", "codec.container"),
        ],
        0,
    ),
    **dict.fromkeys(["codec", "rtmv", "demo_scene"], 1),
    "backends": 2,
    "model": 3,
    **dict.fromkeys(["pack", "rate_tables", "weight_choice"], 4),
    **dict.fromkeys(["plugin", "view"], 5),
    **dict.fromkeys(["bench", "sweep", "cli", "cli_tools", "cli_bench_rd"], 6),
}
ANYWHERE = {"numpy"}
BENCHES = ("bench.throughput", "bench.rate_distortion")
HOME = {  # any other third-party package -> the only modules that may import it
    "torch": ("backends", "model", "pack", "weight_choice", "plugin", "view", *BENCHES),
    "jaxtyping": ("backends", "model"),
    "torchmetrics": ("plugin.metrics",),
    "torchvision": ("plugin.metrics",),
    "matplotlib": ("bench.plot_png",),
    "zstandard": ("bench.plain_file", "bench.throughput"),
    "nerfstudio": ("plugin",),
    "numba": ("backends.cpu_numba", "codec.kernels_numba"),
    "llvmlite": ("backends.cpu_numba.bfloat16_kernels", "backends.cpu_numba.prefetch"),
    "viser": ("view",),
    "tyro": ("cli", "cli_tools", "cli_bench_rd", "plugin.export_command"),
    "OpenEXR": ("rtmv", "demo_scene"),
    "PIL": ("rtmv", "plugin", "bench", "cli_tools"),
    "rich": ("plugin", "bench"),
    "yaml": ("plugin",),
    "ray": ("sweep",),
    "constriction": ("bench.throughput",),
    "torchac": ("bench.throughput",),
}
FORBIDDEN = {"pickle"}
# May not know each other in either direction.
STRANGERS = [{"codec", "model"}, {"codec", "backends"}, {"plugin", "view"}]
ABSENT = {  # importing the module, after those above it, must not load the packages
    "codec": ("torch", "numba", "nerfstudio"),
    "rtmv": ("torch", "numba", "nerfstudio"),
    "demo_scene": ("torch", "numba", "nerfstudio"),
    "cli": ("torch", "numba", "nerfstudio"),
    "bench.sweep": ("torch", "numba", "nerfstudio"),
    "plugin.export_command": ("torch", "numba", "nerfstudio"),
    "backends": ("numba", "nerfstudio"),
    "model.pinhole": ("numba", "nerfstudio"),
    "pack": ("numba", "nerfstudio"),
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def within(name, rooms):
    return [room for room in rooms if name == room or name.startswith(room + ".")]


def floor(name):
    return FLOOR[max(within(name, FLOOR), key=len)] if within(name, FLOOR) else None


def imports(path):
    """Every imported module name, function-local imports included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("here", MODULES)
def test_imports_point_down(here):
    assert here == "" or floor(here) is not None, f"{here} has no floor"
    for target in imports(MODULES[here]):
        top, _, rest = target.partition(".")
        assert top not in FORBIDDEN, f"{here} may not import {top}"
        if top == PACKAGE and floor(rest) is not None:
            ceiling = floor(here) if here else 1
            assert floor(rest) <= ceiling, (
                f"{here} (floor {ceiling}) imports {rest} (floor {floor(rest)})"
            )
            rooms = {here.split(".")[0], rest.split(".")[0]}
            assert rooms not in STRANGERS, f"{here} may not know {rest}"
        elif top in HOME:
            assert within(here, HOME[top]), f"{here} may not import {top}"
        else:
            is_known = top in {PACKAGE, *ANYWHERE, *sys.stdlib_module_names}
            assert is_known, f"{here} imports {top}, which has no home"


@pytest.mark.parametrize("package", HOME)
def test_permissions_are_used(package):
    for room in HOME[package]:
        modules = [name for name in MODULES if within(name, [room])]
        if modules:  # not every room of the plan is built yet
            targets = [t for name in modules for t in imports(MODULES[name])]
            assert any(within(t, [package]) for t in targets), f"{room} does not import {package}"


@pytest.fixture(scope="module")
def loaded():
    """What is loaded after each module of ABSENT, imported one after the other."""
    code = f"""
import importlib, json, sys
packages = {sorted({p for packages in ABSENT.values() for p in packages})}
loaded = {{}}
for module in {list(ABSENT)}:
    importlib.import_module("{PACKAGE}." + module)
    loaded[module] = [p for p in packages if p in sys.modules]
print(json.dumps(loaded))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("module", ABSENT)
def test_import_does_not_load(loaded, module):
    assert not set(loaded[module]) & set(ABSENT[module])


def test_the_isolation_test_can_fail(loaded):
    assert loaded["backends"] == ["torch"]
