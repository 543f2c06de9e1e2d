"""Figures of the coding of a file: by hand, on a scene like trained ones, and as a command."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from shacira_nerfstudio.bench import codec_audit
from shacira_nerfstudio.bench.rival_coders import torchac_bytes
from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.codec import PackedScene, QuantizedTensor, decode_scene, encode_scene
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.grid import GridSpec

GOLDEN = Path(__file__).parents[1] / "golden" / "v1_tiny.shacira"


def synthetic_scene():
    """As training leaves them: a part of space occupied, coarse levels rich, fine ones mostly 0."""
    rng = np.random.default_rng(0)
    grid = GridSpec.create(num_levels=6, base_res=12, max_res=72, log2_hashmap_size=16)
    cells = np.zeros((16, 16, 16), dtype=bool)
    cells[2:13, 3:12, 4:12] = True
    symbols = np.zeros((grid.num_entries, 1), dtype=np.int16)
    for level in range(grid.num_levels):
        begin, end = grid.offsets[level : level + 2]
        reached = reached_entries(grid, level, cells)
        values = np.rint(rng.laplace(size=len(reached)) * 3 * 0.5**level)
        symbols[begin:end, 0] = np.where(reached, values, 0)
    weights = {"w": QuantizedTensor(np.ones((2, 2), np.int16), np.ones(1, np.float32))}
    return PackedScene("radiance_field", {}, grid, symbols, cells, weights)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "synthetic.shacira"
    path.write_bytes(encode_scene(synthetic_scene()))
    return path


@pytest.fixture(autouse=True, scope="module")
def _without_torchac():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchac", None)  # it compiles itself for half a minute
        yield


@pytest.fixture(scope="module")
def figures(file, _without_torchac):
    return codec_audit.audit(file.read_bytes())


def test_entropy_by_hand():
    symbols = np.array([[0, 5], [0, 5], [1, 5], [2, 5]], np.int16)
    assert codec_audit.entropy_bytes(symbols) == 4 * 1.5 / 8  # 1/2, 1/4, 1/4; one letter is free


def test_bytes_add_up(file, figures):
    content = sum(figures["sections"].get(tag, 0) for tag in ("OCCU", "WGTS", "cams"))
    coded = figures["stream_bytes"] + figures["table_bytes"]
    assert content + coded + figures["header_bytes"] == figures["bytes"] == file.stat().st_size
    levels = figures["levels"]
    for name in ("stream_bytes", "table_bytes", "cross_entropy_bytes", "static_bytes"):
        assert sum(level[name] for level in levels) == pytest.approx(figures[name])
    assert all(level["reached"] <= level["entries"] for level in levels)


def test_no_coder_goes_below_its_cross_entropy(figures):
    for level in figures["levels"]:
        assert level["stream_bytes"] >= level["cross_entropy_bytes"]
    assert 1 < figures["stream_to_cross_entropy"] <= 1.005


def test_classes_and_skipping_pay(figures):
    for level in figures["levels"]:
        assert level["reached_static_bytes"] <= level["static_bytes"]
    assert figures["static_bytes"] <= figures["pooled_bytes"]
    assert figures["saved_to_static"] >= 0.15
    assert figures["is_canonical"]


def test_rivals_code_the_same_integers(file, figures):
    assert figures["xz_ratio"] == figures["rivals"]["xz"] / file.stat().st_size > 1
    assert "torchac cannot be imported" in figures["rivals"]["torchac"]
    assert "torchac_ratio" not in figures


@pytest.mark.slow
def test_torchac_needs_the_pooled_entropy(monkeypatch, figures):
    monkeypatch.delitem(sys.modules, "torchac")
    planes = synthetic_scene().symbols.T
    found = torchac_bytes(planes)
    if isinstance(found, str):
        pytest.skip(found)
    assert found == pytest.approx(figures["pooled_bytes"], rel=2e-3)


def test_of_a_shortened_file_only_the_levels_that_are_there_count():
    from shacira_nerfstudio.codec import truncate

    data = truncate(GOLDEN.read_bytes(), max_level=1)
    scene = decode_scene(data)
    figures = codec_audit.audit(data)
    assert len(figures["levels"]) == 2
    coded = scene.symbols[: scene.grid.offsets[2]]
    assert figures["pooled_bytes"] == codec_audit.entropy_bytes(coded)


def test_bars_can_be_missed(figures):
    good = {bar.name: bar.limit for bar in codec_audit.BARS}
    assert codec_audit.missed_bars(good) == []
    for bar in codec_audit.BARS:
        worse = {**good, bar.name: bar.limit * (0.99 if bar.at_least else 1.01)}
        assert codec_audit.missed_bars(worse) == [bar.name]
        assert "MISSED" in codec_audit.bar_line(bar, worse)


def test_a_rival_that_is_missing_is_said_to_be():
    figures = {"rivals": {"torchac": "torchac cannot be built: no compiler"}}
    bar = next(bar for bar in codec_audit.BARS if bar.name == "torchac_ratio")
    assert "no compiler" in codec_audit.bar_line(bar, figures)
    assert codec_audit.missed_bars(figures) == []


def test_the_command(file, tmp_path, capsys):
    output = tmp_path / "audit.jsonl"
    options = ["bench", "codec", str(file), str(GOLDEN), "--output", str(output)]
    assert cli.main(options) == 1  # two kilobytes have headers of more than 2 %
    text = capsys.readouterr().out
    assert "stream_to_cross_entropy" in text and "MISSED" in text
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["file"] for row in rows] == [str(file), str(GOLDEN)]
    assert "tables_and_headers_share" in rows[1]["missed"]
    assert cli.main([*options, "--json"]) == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
