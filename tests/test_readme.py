"""What the README tells people to type exists."""

import dataclasses
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))


def test_commands_exist():
    from shacira_nerfstudio.cli.main import COMMANDS

    named = set(re.findall(r"^shacira ([a-z-]+)", BLOCKS, re.MULTILINE))
    assert {"info", "verify", "import"} <= named <= set(COMMANDS)


def test_files_exist():
    named = set(re.findall(r"(?:configs|shacira_nerfstudio|tests)/[\w/.-]+\.\w+", TEXT))
    assert "configs/ngp.yaml" in named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.nerfstudio
def test_options_exist():
    from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig

    options = {field.name.replace("_", "-") for field in dataclasses.fields(ShaciraModelConfig)}
    named = set(re.findall(r"--pipeline\.model\.([a-z0-9-]+)", TEXT))
    assert {"rate-lambda", "quantizer"} <= named <= options
