"""What the README tells people to type exists, and its Python runs."""

import dataclasses
import re
from pathlib import Path

import pytest
from synthetic_ball import make_ball

from shacira_nerfstudio.codec import save_scene

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
PYTHON = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_commands_exist():
    from shacira_nerfstudio.cli.main import COMMANDS

    named = set(re.findall(r"^shacira ([a-z-]+)", BLOCKS, re.MULTILINE))
    assert {"info", "verify", "import"} <= named <= set(COMMANDS)


def test_files_exist():
    named = set(re.findall(r"(?:configs|shacira_nerfstudio|tests)/[\w/.-]+\.\w+", TEXT))
    assert "configs/ngp.yaml" in named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_scene("scene.shacira", make_ball())
    names = {}
    for block in PYTHON:
        exec(block, names)
    assert names["image"].shape == (267, 400, 3)
    assert 0 <= names["image"].min() < names["image"].max() <= 1


@pytest.mark.nerfstudio
def test_options_exist():
    from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig

    def options(config, prefix=""):
        for field in dataclasses.fields(config):
            name, value = prefix + field.name.replace("_", "-"), getattr(config, field.name)
            yield from options(value, f"{name}.") if dataclasses.is_dataclass(value) else [name]

    named = set(re.findall(r"--pipeline\.model\.([a-z0-9.-]*[a-z0-9])", TEXT))
    assert {"rate-lambda", "quantizer.mode"} <= named <= set(options(ShaciraModelConfig()))
