"""What is installed works without the checkout: a wheel is built, unpacked, and used."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from synthetic_ball import make_ball

from shacira_nerfstudio.codec import save_scene

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "v1_tiny.shacira"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing but the content of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()  # setuptools leaves a folder `build` behind
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "results")
    shutil.copytree(ROOT / "shacira_nerfstudio", source / "shacira_nerfstudio", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


def test_every_file_of_the_package_is_in_it(installed):
    wanted = [
        path.relative_to(ROOT)
        for path in (ROOT / "shacira_nerfstudio").rglob("*")
        if path.is_file() and not {"__pycache__", "results"} & set(path.parts)
    ]
    assert [str(path) for path in wanted if not (installed / path).exists()] == []
    entries = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "shacira = shacira_nerfstudio.cli.main:main" in entries.read_text("utf-8")


def test_a_tiny_job_runs_from_it(installed, tmp_path):
    """In one process, for its start takes longest."""
    code = f"""
import pathlib, shacira_nerfstudio
from shacira_nerfstudio import backends
from shacira_nerfstudio.cli import demo, main
from shacira_nerfstudio.plugin.presets import find_preset, load_preset
home = pathlib.Path(shacira_nerfstudio.__file__).parent
assert home == pathlib.Path({str(installed)!r}) / "shacira_nerfstudio", home
for name in ("draft", "normal", "max", "ngp"):
    assert load_preset(find_preset(name))
assert load_preset(demo.PRESET)["max_num_iterations"] > 0
file = {str(GOLDEN)!r}
for command in ("info", "verify"):
    assert main.main([command, file, "--json"]) == 0
# What is compiled is cached by path and would be compiled anew: without that, then.
backends.get_backend = lambda name, device, get=backends.get_backend: get("reference", device)
assert main.main(["render", "ball.shacira", "--output-dir", "views", "--views", "1"]) == 0
assert main.main(["html", "ball.shacira", "-o", "ball.html"]) == 0
main.main(["--help"])
"""
    save_scene(tmp_path / "ball.shacira", make_ball())
    environment = {**os.environ, "PYTHONPATH": str(installed), "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"valid": true' in done.stdout and "demo-scene" in done.stdout
    assert (tmp_path / "views" / "00000.png").stat().st_size > 100
    assert (tmp_path / "ball.html").stat().st_size > 10_000
