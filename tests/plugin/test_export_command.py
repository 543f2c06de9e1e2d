"""`ns-export shacira` is there, in every way the exporter can start, and harms nothing."""

import base64
import hashlib
import importlib.metadata
import os
import subprocess
import sys

import pytest

pytest.importorskip("nerfstudio")
pytestmark = pytest.mark.nerfstudio

STOCK = ["pointcloud", "tsdf", "poisson", "marching-cubes", "cameras", "gaussian-splat"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The exporter imports open3d, which is slow and needs system libraries; none of this does."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "open3d.py").write_text(
        "import sys, unittest.mock\nsys.modules[__name__] = unittest.mock.MagicMock()\n"
    )
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "COLUMNS": "120"}


def outcome(arguments, environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_python_m_lists_our_command_and_all_others(environment):
    done = outcome(["-m", "nerfstudio.scripts.exporter", "--help"], environment)
    assert done.returncode == 0, done.stderr
    for name in [*STOCK, "shacira"]:
        assert f"• {name} " in done.stdout


IN_PROCESS = '''
import contextlib, io, pathlib, runpy, sys, warnings
import tyro

STOCK, original = sys.argv[1:], tyro.cli
script = pathlib.Path(sys.executable).with_name("ns-export")


def run(*args, start=None):
    sys.argv = ["ns-export", *args]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            (start or sys.modules["nerfstudio.scripts.exporter"].entrypoint)()
            status = 0
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue() + err.getvalue()


def start():  # what the installed script does, if it is not there
    if script.exists():
        return runpy.run_path(str(script), run_name="__main__")
    from nerfstudio.scripts.exporter import entrypoint

    return entrypoint()


# Our entry point is loaded by the exporter's own imports.
status, text = run("--help", start=start)
assert status == 0, text
assert all(f"• {name} " in text for name in [*STOCK, "shacira"]), text

from shacira_nerfstudio.plugin import export_command

# The deferred case: the plugin is loaded, and somebody imports the exporter later.
del sys.modules["nerfstudio.scripts.exporter"]
export_command.extend_ns_export()
export_command.extend_ns_export()
waiting = [f for f in sys.meta_path if isinstance(f, export_command._AfterImport)]
assert len(waiting) == 1, waiting
import importlib

exporter = importlib.import_module("nerfstudio.scripts.exporter")
assert waiting[0] not in sys.meta_path
assert tyro.cli is original
assert isinstance(exporter.tyro, export_command._TyroProxy)
assert not isinstance(exporter.tyro._tyro, export_command._TyroProxy)  # added once
status, text = run("--help")
assert status == 0 and all(name in text for name in STOCK) and text.count("• shacira ") == 1, text
status, text = run("pointcloud", "--help")
assert status == 0 and "--num-points" in text and "--load-config" in text, text
status, text = run("shacira", "--help")
assert status == 0 and "--verify {True,False}" in text and "--max-cameras" in text, text
status, text = run("nonsense")
assert status not in (0, None), text

export_command.extend_ns_export()  # registered once more, by another door
status, text = run("--help")
assert text.count("• shacira ") == 1, text

# Another plugin that uses the same technique on top of ours.
from dataclasses import dataclass
from typing import Annotated


@dataclass
class Other:
    """Somebody else's."""


extra = Annotated[Other, tyro.conf.subcommand(name="other")]
ours = exporter.tyro
exporter.tyro = export_command._TyroProxy(ours, exporter, extra)
status, text = run("--help")
assert all(f"• {name} " in text for name in [*STOCK, "shacira", "other"]), text
exporter.tyro = ours


def broken(*args):
    raise RuntimeError("on purpose")


export_command.widen = broken
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    status, text = run("--help")
assert status == 0 and all(name in text for name in STOCK) and "shacira" not in text, text
caught = [str(one.message) for one in caught if "ns-export" in str(one.message)]
assert len(caught) == 1 and "on purpose" in caught[0], caught
'''


def test_script_deferred_twice_stacked_and_broken(environment):
    done = outcome(["-c", IN_PROCESS, *STOCK], environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_exporter_is_the_file_that_was_installed():
    (file,) = (
        file
        for file in importlib.metadata.files("nerfstudio") or []
        if str(file).endswith("nerfstudio/scripts/exporter.py")
    )
    digest = hashlib.sha256(file.read_binary()).digest()
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    if file.hash is None:
        pytest.skip("nerfstudio was installed without digests")
    assert file.hash.value == expected
