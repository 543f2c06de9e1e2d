"""The fuzz target without a fuzzer: it accepts good files, gets behind checksums, can fail."""

import fuzz_decode
import numpy as np
import pytest

from shacira_nerfstudio import codec
from shacira_nerfstudio.codec import SceneFormatError, decode_scene

pytest.importorskip("numba")
SEEDS = fuzz_decode.seeds()


def test_seeds_pass():
    for seed in SEEDS:
        assert fuzz_decode.repaired(seed) == seed
        fuzz_decode.check(seed)


def test_damage_passes_and_gets_behind_the_checksums():
    rng = np.random.default_rng(0)
    reasons = set()
    for _ in range(40):
        data = bytearray(SEEDS[-1])
        for position in rng.integers(0, len(data), 3).tolist():
            data[position] ^= 1 << int(rng.integers(8))
        fuzz_decode.check(bytes(data))
        try:
            decode_scene(fuzz_decode.repaired(bytes(data)))
        except SceneFormatError as error:
            reasons.add(error.section)
    assert len(reasons - {"head", "contents"}) > 3
    for length in (0, 7, 16, 39, 40, 100):
        fuzz_decode.check(SEEDS[0][:length])


@pytest.mark.parametrize("wrong", [KeyError("x"), MemoryError(), fuzz_decode.Broken("x")])
def test_it_can_fail(monkeypatch, wrong):
    def decode(data, **_):
        raise wrong

    monkeypatch.setattr(codec, "decode_scene", decode)
    with pytest.raises(type(wrong)):
        fuzz_decode.check(SEEDS[0])


def test_different_answers_fail(monkeypatch):
    def decode(data, *, fast, **options):
        if fast:
            raise SceneFormatError("file", "numpy", "numba")
        return decode_scene(data, fast=False, **options)

    monkeypatch.setattr(codec, "decode_scene", decode)
    with pytest.raises(fuzz_decode.Broken, match="one answer"):
        fuzz_decode.check(SEEDS[0])
