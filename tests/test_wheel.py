"""What is installed works without the checkout: a wheel is built, unpacked, and used."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

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


def python(installed, folder, *args):
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


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
import json, pathlib, shacira_nerfstudio
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
"""
    done = python(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert '"valid": true' in done.stdout


def test_it_renders_and_helps(installed, tmp_path):
    from synthetic_ball import make_ball

    from shacira_nerfstudio.codec import save_scene

    save_scene(tmp_path / "ball.shacira", make_ball())
    cli = ["-m", "shacira_nerfstudio.cli.main"]
    done = python(installed, tmp_path, *cli, "--help")
    assert done.returncode == 0 and "demo-scene" in done.stdout
    render = ["render", "ball.shacira", "--output-dir", "o", "--views", 1, "--json"]
    done = python(installed, tmp_path, *cli, *render)
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert (tmp_path / image).stat().st_size > 100
