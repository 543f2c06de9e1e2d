"""The large synthetic field, small: its file holds what it should."""

import itertools
import json

import numpy as np

from shacira_nerfstudio.bench.large_field import main, synthetic_latents, synthetic_occupancy
from shacira_nerfstudio.grid import GridSpec


def test_a_field_is_exported_and_opened(tmp_path, capsys):
    sizes = ["--log2-hashmap-size", "9", "--num-levels", "4", "--max-res", "8192"]
    sizes += ["--occupancy-resolution", "16"]
    main(["--folder", str(tmp_path), *sizes])
    main(["--folder", str(tmp_path), "--stage", "open"])
    export, opened = map(json.loads, capsys.readouterr().out.splitlines())
    assert export["bytes"] == (tmp_path / "large.shacira").stat().st_size
    assert export["num_latents"] == opened["num_latents"] == 4 * 512
    assert 0.1 < export["nonzero_fraction"] < 0.9 and 0 < export["occupied_fraction"] < 1
    for figures, steps in ((export, ("pack", "encode", "decode", "check")), (opened, ("load",))):
        assert all(figures[f"{step}_cpu_s"] >= 0 for step in steps)
        assert figures["peak_rss_bytes"] > 1 << 20


def test_latents_look_like_trained_ones():
    grid = GridSpec.create(num_levels=6, max_res=512, log2_hashmap_size=12)
    latents = synthetic_latents(grid).numpy()
    shares = [np.mean(latents[a:b] != 0) for a, b in itertools.pairwise(grid.offsets)]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.8 and 0.02 < shares[-1] < 0.06
    assert (latents == np.rint(latents)).all() and abs(latents.mean()) < 0.2
    assert 0.001 < synthetic_occupancy(64).mean() < 0.2
