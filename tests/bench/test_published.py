"""Published figures: each has a source, none is beyond what can be."""

from shacira_nerfstudio.bench.report.published import published, published_for


def test_every_row_says_where_it_was_read_and_what_it_counts():
    for entry in published():
        assert len(entry.source) > 20, entry
        assert entry.counted and entry.system and entry.scene


def test_figures_are_plausible_and_none_stands_twice():
    seen = set()
    for entry in published():
        assert entry.points
        assert (entry.system, entry.scene) not in seen
        seen.add((entry.system, entry.scene))
        sizes = [size for size, _ in entry.points]
        assert sizes == sorted(sizes) and sizes[0] > 10_000 and sizes[-1] < 60e6
        assert all(psnr is None or 20 < psnr < 45 for _, psnr in entry.points)


def test_units_are_those_of_the_sources():
    lego = {entry.system: entry for entry in published_for("lego")}
    assert lego["MaskDWT"].points[0] == (787_000, 34.93)
    assert lego["HAC++"].points[0] == (843_579, 34.33)
    assert lego["SHACIRA"].points[-1] == (1_220_000, None)
    cnc = next(entry for entry in published_for("ficus") if entry.system == "CNC")
    assert cnc.points[0][0] == round(0.444 * 2**20)


def test_a_mean_over_scenes_is_that_of_its_scenes():
    means = {entry.system: entry for entry in published() if "mean of 8" in entry.scene}
    for system in ("HAC", "HAC++"):
        scenes = [e for e in published() if e.system == system and "mean" not in e.scene]
        assert len(scenes) == 8
        for index, (size, psnr) in enumerate(means[system].points):
            assert abs(sum(e.points[index][0] for e in scenes) / 8 / size - 1) < 1e-3
            assert abs(sum(e.points[index][1] or 0 for e in scenes) / 8 - psnr) < 0.01
