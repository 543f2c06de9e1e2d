"""One row per picture, method and setting, as JSON lines that a later run goes on from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shacira_nerfstudio.bench import environment
from shacira_nerfstudio.bench.pictures.metrics import figures
from shacira_nerfstudio.bench.pictures.plain_grid import trained_plain_grid
from shacira_nerfstudio.bench.pictures.rivals import RIVALS, encode
from shacira_nerfstudio.bench.pictures.summary import PLAIN
from shacira_nerfstudio.codec import decode_scene
from shacira_nerfstudio.output_files import write_file
from shacira_nerfstudio.pictures.compress import compress_pixels
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.files.image_files import READABLE, read_image
from shacira_nerfstudio.pictures.layout import PixelLayout
from shacira_nerfstudio.pictures.options import PictureOptions

Row = dict[str, Any]
Measure = Callable[[np.ndarray, PixelLayout], Row]


def run_images(
    folder: Path,
    output: Path,
    *,
    methods: Sequence[tuple[str, str, Measure]],
    limit: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measures what is not in ``output`` yet, and writes after every row.

    Args:
        folder: Of pictures of 8 bits, RGB.
        methods: Name, setting and function of each; see :func:`rivals` and :func:`ours`.
        limit: At most so many pictures; 0 means all.

    Returns:
        All rows of the file.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in READABLE)
    paths = paths[: limit or len(paths)]
    if not paths:
        raise ValueError(f"expected pictures in {folder}, found none")
    rows = done_rows(output)
    done = {row["key"] for row in rows}
    for path in paths:
        pixels, layout = read_image(path)
        if layout.bits != 8 or layout.channels != 3:
            raise ValueError(f"expected RGB of 8 bits, got {path}")
        for name, setting, measure in methods:
            key = f"{path.stem}/{name}/{setting}"
            if key in done:
                continue
            progress(key)
            found = measure(pixels, layout)
            quality = figures(pixels, found.pop("pixels"))
            bpp = 8 * found["bytes"] / layout.num_pixels
            row = {"key": key, "image": path.stem, "method": name, "setting": setting, "bpp": bpp}
            append_row(rows, {**row, **found, **quality}, output)
    return rows


def done_rows(path: Path) -> list[Row]:
    """Those of a file that may not be there yet."""
    return load_rows(path) if path.exists() else []


def append_row(rows: list[Row], row: Row, path: Path) -> None:
    """Adds a row, and where and when it was measured, and writes all of them."""
    where = {"commit": environment.commit(), "machine": environment.machine()}
    rows.append({**row, **where, "date": environment.date()})
    write_file(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def load_rows(path: Path) -> list[Row]:
    """Raises ValueError naming the line of what is no row."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.append({**row, "key": row["key"]})
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: line {number}: expected a row, found {error!r}") from None
    return rows


def rivals() -> Iterator[tuple[str, str, Measure]]:
    """Ordinary codecs that this machine has."""
    for rival in RIVALS:
        for setting in rival.settings if rival.is_there else ():
            value = next(v for k, v in setting.items() if k in ("quality", "quality_layers"))

            def measure(pixels: np.ndarray, _: PixelLayout, rival=rival, setting=setting) -> Row:
                return encode(rival, setting, pixels)

            yield rival.name, str(value), measure


def ours(name: str, setting: str, options: PictureOptions) -> tuple[str, str, Measure]:
    """Files of this package."""

    def measure(pixels: np.ndarray, layout: PixelLayout) -> Row:
        done = compress_pixels(pixels, layout, options)
        return {
            "bytes": len(done.data),
            "pixels": PixelDecoder(decode_scene(done.data)).pixels(),
            "train_seconds": done.train_seconds,
            "decode_seconds": done.decode_seconds,
            "steps": options.effort.num_steps,
        }

    return name, setting, measure


def plain_ngp(setting: str, options: PictureOptions) -> tuple[str, str, Measure]:
    """A plain Instant-NGP, whose file would be its parameters in half floats and nothing else."""

    def measure(pixels: np.ndarray, layout: PixelLayout) -> Row:
        begin = time.perf_counter()
        grid = trained_plain_grid(pixels, layout, options)
        trained = time.perf_counter()
        return {
            "bytes": grid.num_bytes,
            "pixels": grid.pixels(),
            "train_seconds": trained - begin,
            "decode_seconds": time.perf_counter() - trained,
            "steps": options.effort.num_steps,
        }

    return PLAIN, setting, measure
