"""Presets: a YAML file of dotted keys on top of the method's defaults, run by Nerfstudio's trainer.

A preset becomes flags of `ns-train shacira`, so the host checks names and types, and whatever
follows on the command line overrides it. Keys: ``model.*`` and ``datamanager.*`` stand for
``pipeline.model.*`` and ``pipeline.datamanager.*``, all others are the trainer's own
(``max_num_iterations``, ``optimizers.fields.optimizer.lr``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

_SCALARS = (bool, int, float, str)


class _StrictLoader(yaml.SafeLoader):
    """No tags, no duplicate keys: YAML keeps the last silently, which was SHACIRA's accident."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if key in mapping:
            raise ValueError(
                f"line {key_node.start_mark.line + 1}: expected each key once, found {key!r} again"
            )
        mapping[key] = loader.construct_object(value_node)
    return mapping


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load_preset(path: Path) -> dict[str, Any]:
    """Dotted keys to plain scalars.

    Raises:
        ValueError: anything else, a key twice, or a number that YAML reads as a string (``1e-3``).
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, _SCALARS):
            raise ValueError(f"{path}: expected a plain scalar for {key!r}, found {value!r}")
        if isinstance(value, str) and _looks_like_number(value):
            raise ValueError(
                f"{path}: expected a number for {key}, found the string {value!r}; YAML wants a "
                "decimal point, as in 1.0e-3"
            )
    return values


def _looks_like_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def preset_flags(values: dict[str, Any]) -> list[str]:
    """The same as flags of `ns-train shacira`."""
    flags = []
    for key, value in values.items():
        head = key.split(".", 1)[0]
        path = f"pipeline.{key}" if head in ("model", "datamanager") else key
        flags += [f"--{path.replace('_', '-')}", str(value)]
    return flags


def train(preset: Path, arguments: Sequence[str]) -> None:
    """Runs `ns-train shacira` with a preset.

    Args:
        arguments: Further flags, then a data parser with its flags, as after `ns-train shacira`.
    """
    import sys

    from nerfstudio.scripts.train import entrypoint

    sys.argv = ["ns-train", "shacira", *preset_flags(load_preset(preset)), *arguments]
    entrypoint()
