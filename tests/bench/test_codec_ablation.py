"""The same integers in other files: which of them is smaller, and that they are real."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from strategies import busy_scene

from shacira_nerfstudio.bench import codec_ablation
from shacira_nerfstudio.bench.report import tables
from shacira_nerfstudio.bench.report.rows import ablations, load_rows
from shacira_nerfstudio.codec import QuantizedTensor, decode_scene, describe, encode_scene

ROWS = Path(__file__).with_name("synthetic_rows.jsonl")


@pytest.fixture(scope="module")
def scene():
    weights = {"w": QuantizedTensor(np.ones((30, 40), np.int16), np.ones(1, np.float32))}
    return dataclasses.replace(busy_scene(), weights=weights)


def test_contexts_and_skipping_are_worth_bytes(scene):
    data = encode_scene(scene)
    # Training leaves something where nothing looks, too.
    rng = np.random.default_rng(1)
    noise = np.round(rng.laplace(size=scene.symbols.shape)).astype(np.int16)
    latents = np.where(scene.symbols == 0, noise, scene.symbols)
    sizes = codec_ablation.codec_ablation_bytes(scene, data, latents)
    assert len(data) < sizes[codec_ablation.NO_CONTEXTS] < sizes[codec_ablation.NEITHER]
    assert len(data) < sizes[codec_ablation.NO_SKIPPING] <= sizes[codec_ablation.NEITHER]
    assert sizes[codec_ablation.FLOAT_WEIGHTS] > len(data) + 4000


def test_a_file_without_contexts_has_one_table_per_channel_and_decodes(scene):
    plain = encode_scene(scene, use_contexts=False)
    assert decode_scene(plain) == scene
    without, with_contexts = describe(plain), describe(encode_scene(scene))
    assert without["table_bytes"] < with_contexts["table_bytes"]
    assert without["digest"] == with_contexts["digest"]


def test_the_ablation_table_shows_those_of_the_base():
    rows = load_rows([ROWS])
    base = next(row for row in ablations(rows) if row["rate_lambda"] == 0.002)
    base["codec_ablation_bytes"] = {codec_ablation.NO_CONTEXTS: 250_000}
    table = tables.ablation_table(ablations(rows))
    (line,) = [line for line in table.splitlines() if codec_ablation.NO_CONTEXTS in line]
    assert tables.BASE_RECODED in line and "| 250,000 | +0.00 | +25.0 % |" in line
