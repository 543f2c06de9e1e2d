"""A backend is what was asked for, or an error that says why not; only `auto` may choose."""

import logging
import sys

import pytest

from shacira_nerfstudio.backends import Backend, available_backends, get_backend, selection


@pytest.fixture
def without(monkeypatch):
    """Makes packages fail to import, as on a machine that lacks them."""

    def block(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        for name in ("cpu_numba",):
            module = f"shacira_nerfstudio.backends.{name}"
            if module not in names:
                monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.setattr(selection, "_announced", set())
    return block


def test_backends_are_subclasses(backend):
    assert isinstance(backend, Backend)


def test_a_named_backend_is_taken_at_its_word():
    for name in ("reference", "cpu_numba"):
        assert get_backend(name).name == name


def test_auto_takes_numba_on_a_cpu_and_says_so_once(without, caplog):
    without()
    with caplog.at_level(logging.INFO):
        assert get_backend("auto", "cpu").name == "cpu_numba"
        assert get_backend("auto", "cpu").name == "cpu_numba"
    assert [r.message for r in caplog.records] == ["shacira backend on cpu: cpu_numba"]


def test_auto_falls_back_and_says_why(without, caplog):
    without("shacira_nerfstudio.backends.cpu_numba")
    assert get_backend("auto", "cpu").name == "reference"
    assert "cpu: reference (backend cpu_numba cannot be imported" in caplog.text


@pytest.mark.parametrize("device", ["cuda", "mps", "meta"])
def test_auto_on_a_device_that_no_other_backend_knows(device):
    assert get_backend("auto", device).name == "reference"


def test_named_backends_are_never_replaced(without):
    without("shacira_nerfstudio.backends.cpu_numba")
    with pytest.raises(RuntimeError, match=r"cannot be imported: .+; it needs `pip install numba`"):
        get_backend("cpu_numba", "cpu")


def test_a_backend_refuses_a_device_that_is_not_its_own():
    with pytest.raises(RuntimeError, match="cpu_numba runs on the CPU, not on cuda"):
        get_backend("cpu_numba", "cuda")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="auto, reference, cpu_numba, triton, got 'numba'"):
        get_backend("numba")


def test_available_backends_gives_reasons(without):
    assert available_backends("cpu") == {
        "reference": None,
        "cpu_numba": None,
        "triton": "backend triton runs on CUDA devices, not on cpu",
    }
    assert available_backends("cuda")["cpu_numba"] == (
        "backend cpu_numba runs on the CPU, not on cuda"
    )
    without("shacira_nerfstudio.backends.cpu_numba")
    assert available_backends("cpu")["cpu_numba"].startswith("backend cpu_numba cannot be imported")


def test_a_package_that_cannot_keep_compiled_code_says_what_to_set(monkeypatch):
    def no_locator(*args, **options):
        raise RuntimeError("cannot cache function 'f': no locator available for file 'x'")

    for name in [name for name in sys.modules if "cpu_numba" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("numba.njit", no_locator)
    with pytest.raises(RuntimeError, match=r"no locator available .*: set NUMBA_CACHE_DIR"):
        get_backend("cpu_numba")
