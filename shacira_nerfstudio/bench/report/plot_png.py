"""Rate-distortion plots as PNG, drawn with matplotlib, which Nerfstudio brings along."""

from __future__ import annotations

from pathlib import Path

from shacira_nerfstudio.bench.report.plot_data import Plot, byte_text, byte_ticks

_STYLES = {
    "measured": {"linestyle": "-", "marker": "o", "linewidth": 2.0},
    "paper": {"linestyle": "--", "marker": ".", "linewidth": 1.0, "alpha": 0.6},
    "published": {"linestyle": ":", "marker": "s", "linewidth": 1.2, "markersize": 4},
}


def write_png(plot: Plot, path: Path) -> None:
    """Draws one plot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no display is looked for, no global state is left.
    figure = Figure(figsize=(8, 6), dpi=130, layout="constrained")
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_subplot()
    for series in plot.series:
        sizes, psnrs, _ = zip(*series.points, strict=True)
        axes.plot(sizes, psnrs, label=series.name, color=series.color, **_STYLES[series.kind])
    x_range, y_range = plot.ranges()
    axes.set_xscale("log")
    axes.set_xlim(*x_range)
    axes.set_ylim(*y_range)
    ticks = byte_ticks(*x_range)
    axes.set_xticks(ticks, [byte_text(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(color="#e5e7eb")
    axes.set_xlabel("size of the file")
    axes.set_ylabel("PSNR, dB")
    axes.set_title(plot.title)
    # Beside the axes: within them it would lie on some point of some plot.
    for columns in (3, 2, 1):
        legend = figure.legend(fontsize=8, loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent(renderer).width < 0.97 * figure.bbox.width:
            break
        legend.remove()
    # No date and no version in it: the same results give the same bytes.
    figure.savefig(path, metadata={"Software": None})
