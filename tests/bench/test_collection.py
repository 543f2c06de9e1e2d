"""Means over scenes: of the same scenes in every line."""

import json
from pathlib import Path

from shacira_nerfstudio.bench.report.collection import collection_text

ROW = json.loads(Path(__file__).with_name("synthetic_rows.jsonl").read_text("utf-8").split("\n")[0])


def row(scene, quality, psnr, size, *, seed=1, steps=100):
    own = {"scene": scene, "seed": seed, "steps": steps, "psnr": psnr, "ssim": psnr / 100}
    same = {"method": "shacira", "preset": "p", "ablation": None, "downscale": 1.0}
    settings = {"settings": {"model.quality": quality}, "rate_lambda": 1e-3, "bytes": size}
    return {**ROW, **same, **own, **settings}


def lines(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n")[2:4]]


def test_a_scene_counts_once_whatever_its_seeds_and_steps():
    rows = [
        *(row("a", "draft", 20, 100), row("a", "draft", 22, 200, seed=2)),
        row("b", "draft", 31, 350, steps=999),
        *(row("a", "normal", 25, 400), row("b", "normal", 35, 600)),
    ]
    text = collection_text(rows, ["a", "b"])
    assert lines(text) == [
        ["shacira, quality draft", "2", "26.00", "0.2600", "250", *lines(text)[0][5:]],
        ["shacira, quality normal", "2", "30.00", "0.3000", "500", *lines(text)[1][5:]],
    ]
    assert "without" not in text


def test_lines_are_about_the_scenes_that_all_have():
    rows = [row("a", "draft", 20, 100), row("b", "draft", 30, 300), row("a", "normal", 25, 400)]
    text = collection_text(rows, ["a", "b", "c"])
    assert [line[1:3] for line in lines(text)] == [["1", "20.00"], ["1", "25.00"]]
    assert "Means over 1 of 3 scenes; without b, c (of b some lines have results)." in text
    text = collection_text([rows[1], rows[2]], ["a", "b"])
    assert [line[2] for line in lines(text)] == ["30.00", "25.00"]
    assert "each line is about its own" in text
    assert collection_text([], ["a"]) == "No results."
