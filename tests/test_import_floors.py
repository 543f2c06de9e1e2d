"""The house has floors: a module imports its own floor and those below it, never above; a
third-party package has one home; and no files import each other in a circle.

What counts as an import of a file: every ``import`` in it, those inside functions and below
``TYPE_CHECKING`` included, and every string that is the full name of a module of ours, which is how
backends and compiled twins are loaded. ``from package import name`` is an import of that package's
``__init__`` where ``name`` is no module, so a package that re-exports counts as one more file; that
Python also runs the ``__init__`` of each package above a module does not count, or every package
that re-exports were a circle.
"""

import ast
import json
import pathlib
import subprocess
import sys

import pytest

PACKAGE = "shacira_nerfstudio"
ROOT = pathlib.Path(__file__).parents[1] / PACKAGE
FLOOR = {  # the longest matching prefix wins; "" is the package itself
    **dict.fromkeys(
        [
            "grid",
            "output_files",
            "option_ranges",
            "progress",
            "codec.entropy",
            "codec.bitio",
            "codec.compiled",
        ],
        0,
    ),
    **dict.fromkeys(["", "codec", "scenes"], 1),
    "backends": 2,
    "model": 3,
    "compression": 4,
    **dict.fromkeys(["plugin", "pictures", "viewer"], 5),
    "bench": 6,
    "cli": 7,
}
# May not know each other in either direction.
STRANGERS = [
    *({"codec", "model"}, {"codec", "backends"}, {"scenes", "codec"}),
    *({"plugin", "pictures"}, {"plugin", "viewer"}, {"pictures", "viewer"}),
]
NUMBA = tuple(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for room in ("codec", "scenes")
    for path in sorted((ROOT / room).rglob("*_numba.py"))
)
TORCH_BENCHES = ("bench.throughput", "bench.rate_distortion", "bench.rival_coders")
TORCH_BENCHES += ("bench.pictures", "bench.large_field")
HOSTS = ("plugin", "pictures", "viewer")
HOME = {  # any other third-party package -> the only modules that may import it
    "numpy": ("",),
    "torch": ("backends", "model", "compression", *HOSTS, *TORCH_BENCHES),
    "jaxtyping": ("backends", "model", "compression", "viewer", "plugin.surface_outputs"),
    "torchmetrics": ("plugin.metrics",),
    "torchvision": ("plugin.metrics",),
    "matplotlib": ("bench.report.plot_png", "bench.pictures.page", "viewer.pictures"),
    "zstandard": ("bench.fp16_baseline", "bench.rival_coders"),
    "torchac": ("bench.rival_coders",),
    "nerfstudio": ("plugin", "bench.throughput.nerfstudio_side"),
    "numba": ("backends.cpu_numba", *NUMBA),
    "llvmlite": ("backends.cpu_numba",),
    "triton": ("backends.triton",),
    "viser": ("viewer",),
    "websockets": ("viewer.live.server",),
    "tyro": ("cli", "plugin.export_command", "plugin.evaluate_file"),
    "OpenEXR": ("scenes",),
    "PIL": ("scenes", "plugin", "viewer", "cli", "pictures", "bench.pictures"),
    "imageio_ffmpeg": (
        *("viewer.render_video", "pictures.files.video_files", "bench.pictures.videos"),
    ),
    "playwright": ("bench.viewers.browser",),
    "psutil": ("bench.viewers.limits",),
    "pytorch_msssim": ("bench.pictures.metrics",),
    "cv2": ("pictures.files.image_files",),
    "tifffile": ("pictures.files.image_files",),
    "rich": ("plugin", "bench.throughput", "bench.sweep.live_table", "cli.demo"),
    "ray": ("bench.sweep.ray_pool",),
    "yaml": ("plugin",),
}
FORBIDDEN = {"pickle"}
HEAVY = ("torch", "numba", "nerfstudio")
ABSENT = {  # importing the module, after those above it, must not load the packages
    **dict.fromkeys(["codec", "scenes.rtmv", "scenes.demo_scene", "cli.main"], HEAVY),
    **dict.fromkeys(["scenes.plaza.writer", "scenes.pixel_cache"], HEAVY),
    **dict.fromkeys(["bench.sweep.engine", "bench.sweep.worker"], HEAVY),
    **dict.fromkeys(["plugin.export_command", "viewer.view"], HEAVY),
    **dict.fromkeys(["pictures.decoder", "pictures.pillow_plugin"], HEAVY),
    **dict.fromkeys(["backends", "model.scene", "compression.pack"], HEAVY[1:]),
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(p): p.read_text(encoding="utf-8") for p in sorted(ROOT.rglob("*.py"))}


def within(name, rooms):
    """Which of these modules and packages a module is or lies in."""
    return [room for room in rooms if room in ("", name) or name.startswith(room + ".")]


def floor(name):
    rooms = within(name, FLOOR)
    longest = max(rooms, key=len)
    return FLOOR[longest] if longest or not name else None


def imports(sources):
    """By module: full names of what it imports, ours cut down to modules that there are."""
    modules = {f"{PACKAGE}.{name}" if name else PACKAGE for name in sources}
    found = {}
    for here, source in sources.items():
        names = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                prefix = "." * node.level + (node.module or "")
                names |= {f"{prefix}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Constant) and node.value in modules - {PACKAGE}:
                names.add(node.value)
        found[here] = {
            _module(name, modules) if within(name, [PACKAGE]) else name for name in names
        }
    return found


def _module(name, modules):
    while name not in modules:
        name = name.rpartition(".")[0]
    return name


def complaints(sources):
    """All that is wrong with the imports of a package, a sentence each."""
    found = []
    for here, names in imports(sources).items():
        if floor(here) is None:
            found.append(f"{here} has no floor")
            continue
        for name in sorted(names):
            top, _, rest = name.partition(".")
            if top == "":
                found.append(f"{here} imports {name}: absolute imports only")
            elif top == PACKAGE:
                found += _complaints_about(here, rest)
            elif top in FORBIDDEN:
                found.append(f"{here} may not import {top}")
            elif top in HOME and not within(here, HOME[top]):
                found.append(f"{here} may not import {top}")
            elif top not in HOME and top not in sys.stdlib_module_names:
                found.append(f"{here} imports {top}, which has no home")
    return found


def _complaints_about(here, there):
    above = floor(there) is not None and floor(there) > floor(here)
    rooms = {here.partition(".")[0], there.partition(".")[0]}
    return [
        *([f"{here} imports {there}, which is above it"] if above else []),
        *([f"{here} may not know {there}"] if rooms in STRANGERS else []),
    ]


def circles(sources):
    """Sets of files that import each other: strongly connected components, after Tarjan."""
    edges = {
        here: {name.partition(".")[2] for name in names if within(name, [PACKAGE])} - {here}
        for here, names in imports(sources).items()
    }
    index, low, stack, found = {}, {}, [], []

    def visit(here):
        index[here] = low[here] = len(index)
        stack.append(here)
        for there in edges[here]:
            if there not in index:
                visit(there)
            if there in stack:
                low[here] = min(low[here], low[there])
        if low[here] == index[here]:
            begin = stack.index(here)
            component = sorted(stack[begin:])
            del stack[begin:]
            if len(component) > 1:
                found.append(component)

    for here in edges:
        if here not in index:
            visit(here)
    return found


def test_floors_and_homes():
    assert complaints(SOURCES) == []


def test_no_circle():
    assert circles(SOURCES) == []


ABOVE = f"from {PACKAGE}.cli import main"
FLAWS = [
    ("codec.x", f"from {PACKAGE}.cli import main", "codec.x imports cli.main, which is above it"),
    ("grid", f"import {PACKAGE}.codec", "grid imports codec, which is above it"),
    ("codec.x", f"def f():\n    from {PACKAGE}.model import y", "codec.x may not know model.y"),
    ("viewer.x", f"from {PACKAGE}.plugin import z", "viewer.x may not know plugin.z"),
    ("codec.x", f"name = '{PACKAGE}.cli.main'", "codec.x imports cli.main, which is above it"),
    ("codec.x", "import torch", "codec.x may not import torch"),
    ("codec.x", "import numba", "codec.x may not import numba"),
    ("bench.x", "from nerfstudio.engine import trainer", "bench.x may not import nerfstudio"),
    ("cli.x", "import pickle", "cli.x may not import pickle"),
    ("cli.x", "import requests", "cli.x imports requests, which has no home"),
    ("cli.x", "from . import main", "cli.x imports ..main: absolute imports only"),
    ("attic.x", "", "attic.x has no floor"),
]
HOUSE = dict.fromkeys(["", "grid", "codec", "cli.main", "model.y", "plugin.z"], "")


@pytest.mark.parametrize(("module", "source", "complaint"), FLAWS)
def test_each_flaw_is_found(module, source, complaint):
    assert complaint in complaints({**HOUSE, module: source})
    assert complaints(HOUSE) == []


def test_circles_are_found():
    lazily = f"def f():\n    from {PACKAGE}.model.b import g"
    typing = f"if TYPE_CHECKING:\n    from {PACKAGE}.model import c"
    house = {"model.a": lazily, "model.b": typing, "model.c": f"import {PACKAGE}.model.a"}
    assert circles(house) == [["model.a", "model.b", "model.c"]]
    assert circles({**house, "model.c": ""}) == []
    # A package that re-exports a module which imports from the package; reached by name it is none.
    exports = {
        "model": f"from {PACKAGE}.model.a import f",
        "model.a": f"from {PACKAGE}.model import f",
    }
    assert circles(exports) == [["model", "model.a"]]
    assert circles({**exports, "model.a": "", "model.b": f"from {PACKAGE}.model.a import f"}) == []


@pytest.fixture(scope="module")
def known():
    return imports(SOURCES)


@pytest.mark.parametrize("package", HOME)
def test_permissions_are_used(known, package):
    for room in HOME[package]:
        targets = {name for here in known if within(here, [room]) for name in known[here]}
        if targets:  # not every room of the plan is built yet
            assert any(within(name, [package]) for name in targets), f"{room}: {package}"


def loaded_after(statements):
    """What of HEAVY is loaded after each statement, run one after the other in a new process."""
    code = ["import json, sys", "loaded = []"]
    for statement in statements:
        code += [statement, f"loaded.append([p for p in {HEAVY} if p in sys.modules])"]
    run = subprocess.run(
        [sys.executable, "-c", "\n".join([*code, "print(json.dumps(loaded))"])],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def loaded():
    found = loaded_after([f"import {PACKAGE}.{module}" for module in ABSENT])
    return dict(zip(ABSENT, found, strict=True))


@pytest.mark.parametrize("module", ABSENT)
def test_import_does_not_load(loaded, module):
    assert not set(loaded[module]) & set(ABSENT[module])


def test_the_isolation_test_can_fail(loaded):
    assert loaded["backends"] == ["torch"]


def test_a_file_is_read_without_torch():
    file = ROOT.parent / "tests" / "golden" / "v1_tiny.shacira"
    before, after = loaded_after([f"import {PACKAGE}", f"{PACKAGE}.load_scene({str(file)!r})"])
    assert before == []
    assert "torch" not in after and "nerfstudio" not in after
