"""Frames of the import machinery are found without a walk through all modules."""

import importlib
import inspect

import pytest

from shacira_nerfstudio.plugin.quick_start import FROZEN, remember_frozen_modules


def walk(*args):
    raise AssertionError("looks at the files of all modules")


@pytest.mark.parametrize("name", FROZEN[:2])
def test_inspect_knows_frozen_modules(monkeypatch, name):
    module = importlib.import_module(name)
    function = next(v for v in vars(module).values() if inspect.isfunction(v))
    file = function.__code__.co_filename
    assert file == f"<frozen {name}>"
    monkeypatch.delitem(inspect.modulesbyfile, file, raising=False)
    with monkeypatch.context() as patched:
        patched.setattr(inspect, "getabsfile", walk)
        with pytest.raises(AssertionError, match="all modules"):
            inspect.getmodule(function.__code__, file)
        remember_frozen_modules()
        assert inspect.getmodule(function.__code__, file) is module


@pytest.mark.nerfstudio
def test_the_host_is_told_before_it_asks():
    pytest.importorskip("nerfstudio")
    importlib.import_module("nerfstudio.configs.method_configs")
    assert all(f"<frozen {name}>" in inspect.modulesbyfile for name in FROZEN[:2])
