"""`ns-export shacira`: how a sub-command gets into a closed command.

Nerfstudio's exporter knows its sub-commands from one union and has no registry. But its imports
load this plugin, so our code runs while that module already has ``tyro`` and not yet ``Commands``:
the name ``tyro`` inside that one module is bound to a proxy whose ``cli`` widens the union. tyro
itself is not patched and no file is written; without the plugin nothing is left behind.

Nerfstudio is never imported at the top: the exporter is half imported when this module loads, and
`shacira export --help` stays light.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import tyro

from shacira_nerfstudio.plugin.export_options import ExportOptions

TARGET = "nerfstudio.scripts.exporter"


@dataclass
class ExportShacira(ExportOptions):
    """Export a trained scene as one small .shacira file, with a folder that the ns-* commands
    open."""

    def main(self) -> None:
        """Exports and prints where the bytes went."""
        from shacira_nerfstudio.plugin.export_folder import export_run, print_report

        print_report(export_run(self), as_json=self.json)


def _take_apart(commands: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """Members and marks; ``FlagConversionOff[Union[A, B]]`` is ``Annotated[Union[A, B], mark]``."""
    union, *marks = get_args(commands) if get_origin(commands) is Annotated else (commands,)
    is_union = get_origin(union) in (Union, types.UnionType)
    return get_args(union) if is_union else (union,), marks


def widen(commands: Any, extra: Any) -> Any:
    """The union with one more member, under the same marks."""
    members, marks = _take_apart(commands)
    wide = Union[(*members, *(() if extra in members else (extra,)))]
    return Annotated[(wide, *marks)] if marks else wide


class _TyroProxy(types.ModuleType):
    """Forwards every attribute to tyro, except ``cli``."""

    def __init__(self, original: Any, module: types.ModuleType, extra: Any) -> None:
        super().__init__("tyro", original.__doc__)
        self.__dict__.update(_tyro=original, _module=module, _extra=extra)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_tyro"], name)

    def cli(self, f: Any, *args: Any, **kwargs: Any) -> Any:
        """``tyro.cli``, with our command beside the stock ones if they are what is asked for."""
        try:
            # Recognised by its members: another plugin's proxy may have widened it already.
            stock, asked = _take_apart(self._module.Commands)[0], _take_apart(f)[0]
            if all(member in asked for member in stock):
                f = widen(f, self._extra)
        except Exception as error:  # a stock sub-command must never suffer
            warnings.warn(f"ns-export could not be extended: {error!r}", stacklevel=2)
        return self._tyro.cli(f, *args, **kwargs)


def _rebind(module: types.ModuleType, extra: Any) -> bool:
    """Puts the proxy into a module; False if the module has no tyro yet."""
    name = module.__dict__.get("tyro")
    if hasattr(name, "cli") and not isinstance(name, _TyroProxy):  # loaded twice adds once
        module.__dict__["tyro"] = _TyroProxy(name, module, extra)
    return hasattr(name, "cli")


class _AfterImport(importlib.abc.MetaPathFinder):
    """Waits for whoever imports the exporter later in this process; works once."""

    def __init__(self, extra: Any) -> None:
        self.extra = extra

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_rebind(module: types.ModuleType) -> None:
            execute(module)
            _rebind(module, self.extra)

        spec.loader.exec_module = execute_and_rebind
        return spec


def _is_exporter(main: types.ModuleType | None) -> bool:
    """Whether the running program is the exporter: `python -m`, or `python .../exporter.py`."""
    if getattr(getattr(main, "__spec__", None), "name", None) == TARGET:
        return True
    file = getattr(main, "__file__", None) or "."
    return Path(file).parts[-3:] == ("nerfstudio", "scripts", "exporter.py")


def extend_ns_export() -> None:
    """Adds `shacira` to `ns-export`, now or when it is imported. Callers guard it: failing to
    extend must not break other commands."""
    extra = Annotated[ExportShacira, tyro.conf.subcommand(name="shacira")]
    main = sys.modules.get("__main__")
    candidates = [sys.modules.get(TARGET), main if _is_exporter(main) else None]
    if any([_rebind(module, extra) for module in candidates if module is not None]):
        return
    is_waiting = any(isinstance(finder, _AfterImport) for finder in sys.meta_path)
    if TARGET not in sys.modules and not is_waiting:
        sys.meta_path.insert(0, _AfterImport(extra))
