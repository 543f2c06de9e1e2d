"""Presets: a YAML file of dotted keys on top of the method's defaults, run by Nerfstudio's trainer.

A preset becomes flags of `ns-train shacira`, so the host checks names and types, and whatever
follows on the command line overrides it. Keys: ``model.*`` and ``datamanager.*`` stand for
``pipeline.model.*`` and ``pipeline.datamanager.*``, all others are the trainer's own
(``max_num_iterations``, ``optimizers.fields.optimizer.lr``).
"""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from shacira_nerfstudio.output_files import check_output_dir

PRESETS = Path(__file__).parents[1] / "presets"
"""Those that come with the package."""
QUALITY_FLAG = "--pipeline.model.quality"
_CHECKPOINT = re.compile(r"step-\d+\.ckpt")
_SCALARS = (bool, int, float, str)


class _StrictLoader(yaml.SafeLoader):
    """No tags, no duplicate keys: YAML keeps the last silently, which was SHACIRA's accident."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ValueError(f"line {line}: expected a name as key, found {key!r}")
        if key in mapping:
            raise ValueError(f"line {line}: expected each key once, found {key!r} again")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load_yaml(path: Path) -> dict[str, Any]:
    """A mapping of names, each once, to whatever plain YAML holds.

    Raises:
        ValueError: anything else: no mapping, a key twice, a tag, an anchor that is not there.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return values


def find_preset(name: Path | str, folder: Path = Path()) -> Path:
    """A preset's file: the one in a folder, else the package's preset of that name.

    Raises:
        FileNotFoundError: there is neither; the message lists what there is.
    """
    file, ours = folder / name, PRESETS / f"{name}.yaml"
    if file.is_file() or not ours.is_file():
        if not file.is_file():
            names = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
            raise FileNotFoundError(
                f"expected a preset of {names} or a YAML file, got {file}; draft, normal and max "
                f"are given as {QUALITY_FLAG}"
            )
        return file
    return ours


def load_preset(path: Path) -> dict[str, Any]:
    """Dotted keys to plain scalars.

    Raises:
        ValueError: anything else, a key twice, or a number that YAML reads as a string (``1e-3``).
    """
    return check_scalars(load_yaml(path), path)


def check_scalars(values: dict[str, Any], where: Path | str) -> dict[str, Any]:
    """The values, if all of them are plain scalars and no string is a misread number."""
    for key, value in values.items():
        if not isinstance(value, _SCALARS):
            raise ValueError(f"{where}: expected a plain scalar for {key!r}, found {value!r}")
        if isinstance(value, str) and _looks_like_number(value):
            raise ValueError(
                f"{where}: expected a number for {key}, found the string {value!r}; YAML wants a "
                "decimal point, as in 1.0e-3"
            )
    return values


def save_preset(path: Path, values: dict[str, Any]) -> None:
    """Writes a preset that :func:`load_preset` reads back."""
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def check_options(values: dict[str, Any], where: Path | str) -> None:
    """Raises ValueError unless the method has an option of that name and type for every key; one
    whose default is ``auto`` takes what it may become."""
    from shacira_nerfstudio.plugin.config import shacira_method

    for key, value in values.items():
        head = key.split(".", 1)[0]
        node: Any = shacira_method.config
        node = node.pipeline if head in ("model", "datamanager") else node
        owner = node
        try:
            for name in key.split("."):
                owner = node
                node = node[name] if isinstance(node, dict) else getattr(node, name)
        except (AttributeError, KeyError) as error:
            raise ValueError(f"{where}: expected an option of the method, found {key!r}") from error
        kinds = _kinds_of(owner, key.rpartition(".")[2], node)
        if node is not None and type(value) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(
                f"{where}: expected a value of type {names} for {key}, found {value!r}"
            )


def _kinds_of(owner: Any, name: str, default: Any) -> list[type]:
    """Types that an option takes."""
    if default != "auto":
        return [type(default)]
    hint = get_type_hints(type(owner))[name]
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = [str if get_origin(choice) is Literal else choice for choice in choices]
    return [kind for kind in kinds if kind in _SCALARS]


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


def train(preset: Path | None, arguments: Sequence[str]) -> None:
    """Runs `ns-train shacira`, with a preset if there is one.

    Args:
        preset: A file, or the name of one of the package's presets.
        arguments: Further flags, then a data parser with its flags, as after `ns-train shacira`;
            ``--quality`` may stand among them.
    """
    import sys

    flags = [] if preset is None else preset_flags(load_preset(find_preset(preset)))
    arguments = [re.sub(r"^--quality(?=$|=)", QUALITY_FLAG, argument) for argument in arguments]
    check_output_dir(_value_of("--output-dir", arguments) or "outputs")
    load_dir = _value_of("--load-dir", arguments)
    if load_dir is not None:
        check_load_dir(Path(load_dir))
    from nerfstudio.scripts.train import entrypoint

    sys.argv = ["ns-train", "shacira", *flags, *arguments]
    entrypoint()


def check_load_dir(folder: Path) -> None:
    """Raises FileNotFoundError for what is no folder of checkpoints, and names the one that was
    probably meant."""
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if found and all(_CHECKPOINT.fullmatch(name) for name in found):
        return
    near = [folder.parent, folder.parent.parent, *folder.glob("*/")]
    meant = [path for path in near if any(path.glob("step-*.ckpt"))]
    hint = f"; perhaps {meant[0]}" if meant else ""
    what = ", ".join(sorted(found)[:3]) or ("nothing" if folder.is_dir() else "no folder")
    raise FileNotFoundError(
        "expected a folder of checkpoints step-*.ckpt as --load-dir, usually "
        f"RUN/nerfstudio_models, found {what} at {folder}{hint}"
    )


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What follows a flag, or stands behind its =; of the last one."""
    value = None
    for index, argument in enumerate(arguments):
        name, _, behind = argument.partition("=")
        if name.replace("_", "-") == flag:
            value = behind or (arguments[index + 1] if index + 1 < len(arguments) else None)
    return value
