"""`ns-export shacira` is there, in every way the exporter can start, and harms nothing."""

import base64
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("nerfstudio")
pytestmark = pytest.mark.nerfstudio

STOCK = ["pointcloud", "tsdf", "poisson", "marching-cubes", "cameras", "gaussian-splat"]


IN_A_FRESH_PROCESS = '''
import contextlib, importlib, io, json, pathlib, runpy, sys, unittest.mock, warnings
import tyro

STOCK, original = sys.argv[1:], tyro.cli
script = pathlib.Path(sys.executable).with_name("ns-export")
# The exporter imports it, which is slow and needs system libraries; none of this does.
sys.modules["open3d"] = unittest.mock.MagicMock()


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


def start_of_module():  # what `python -m` does
    runpy.run_module("nerfstudio.scripts.exporter", run_name="__main__", alter_sys=True)


def start_of_script():  # what the installed script does, if it is not there
    if script.exists():
        return runpy.run_path(str(script), run_name="__main__")
    from nerfstudio.scripts.exporter import entrypoint

    return entrypoint()


def start_of_data_managers():
    importlib.import_module("nerfstudio.data.datamanagers.base_datamanager")
    from nerfstudio.configs.dataparser_configs import all_dataparsers

    print(*all_dataparsers)


# One process for all of them, for it is other packages that take long to load; of the host and of
# us nothing is there when each starts.
starts = {}
for start in (start_of_data_managers, start_of_module, start_of_script):
    for name in list(sys.modules):
        if name.partition(".")[0] in ("nerfstudio", "shacira_nerfstudio"):
            del sys.modules[name]
    starts[start.__name__] = run("--help", start=start)
    for finder in [f for f in sys.meta_path if type(f).__name__ == "_AfterImport"]:
        assert start is not start_of_script, "our entry point is loaded by the exporter's imports"
        sys.meta_path.remove(finder)
print(json.dumps(starts), flush=True)

from shacira_nerfstudio.plugin import export_command

# The deferred case: the plugin is loaded, and somebody imports the exporter later.
del sys.modules["nerfstudio.scripts.exporter"]
export_command.extend_ns_export()
export_command.extend_ns_export()
waiting = [f for f in sys.meta_path if isinstance(f, export_command._AfterImport)]
assert len(waiting) == 1, waiting

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


@pytest.fixture(scope="module")
def process():
    """A process that saw everything, and ended."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "COLUMNS": "120"}
    parser = "rtmv-check=shacira_nerfstudio.plugin.rtmv_dataparser:rtmv_dataparser"
    environment["NERFSTUDIO_DATAPARSER_CONFIGS"] = parser
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, *STOCK]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("start", ["start_of_module", "start_of_script"])
def test_our_command_and_all_others_are_listed(process, start):
    assert process.stdout, process.stderr
    status, text = json.loads(process.stdout)[start]
    assert status == 0, text
    for name in [*STOCK, "shacira"]:
        assert f"• {name} " in text


def test_data_parsers_register_in_the_half_imported_host(process):
    """They load in the middle of Nerfstudio's own imports."""
    assert process.stdout, process.stderr
    status, text = json.loads(process.stdout)["start_of_data_managers"]
    assert status == 0 and {"rtmv-data", "rtmv-check"} <= set(text.split()), text


def test_deferred_twice_stacked_and_broken(process):
    assert process.returncode == 0, process.stdout + process.stderr


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
