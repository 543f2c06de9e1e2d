"""How good a file's coding is: where its bytes go, beside what other ways need for the same
integers.

Everything is counted on the file itself: its integers are decoded, its tables are the stored ones,
and the rivals' bytes are made. Notation of what is compared, for the symbols of all levels present:

    cross-entropy   Σ -log2(f / 2^p) of the coded symbols under the tables stored in the file
    static          zeroth-order entropy of each (level, channel) over all its entries
    pooled          zeroth-order entropy of each channel over all entries of all levels, which is
                    how the paper counts

Both entropies come without the bytes of any table, and over the very integers of the file, in which
entries that nothing reaches are 0 already: both are in the others' favour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shacira_nerfstudio.bench.rival_coders import COMPRESSORS, compressed_bytes, torchac_bytes
from shacira_nerfstudio.codec import encode_scene
from shacira_nerfstudio.codec.latents.level_contexts import CodingContext
from shacira_nerfstudio.codec.latents.level_section import cross_entropy
from shacira_nerfstudio.codec.scene_file import FileContent, read_file
from shacira_nerfstudio.codec.sections.table import LEVEL_TAG

_NO_HEADERS = (LEVEL_TAG, "OCCU", "WGTS", "cams")
"""Sections that are content; every other byte of a file is table or header."""


@dataclass(frozen=True)
class Bar:
    """What a figure of a trained scene should be."""

    name: str
    limit: float
    at_least: bool = False

    def holds(self, figure: float) -> bool:
        return figure >= self.limit if self.at_least else figure <= self.limit


BARS = (
    Bar("stream_to_cross_entropy", 1.005),
    Bar("tables_and_headers_share", 0.02),
    Bar("saved_to_static", 0.15, at_least=True),
    Bar("saved_to_pooled", 0.30, at_least=True),
    Bar("xz_ratio", 1.0, at_least=True),
    Bar("zstd_ratio", 1.0, at_least=True),
    Bar("torchac_ratio", 1.0, at_least=True),
    Bar("occupancy_bytes", 10_000),
    Bar("weights_bytes", 25_000),
)


def audit(data: bytes) -> dict[str, Any]:
    """Figures of a file, ready for JSON.

    The ``…_ratio`` of a rival is its bytes for the integers alone by the bytes of our whole file;
    it is missing, with a reason in ``rivals``, if the rival is not installed.
    """
    content = read_file(data)
    sections = {s.tag: len(s.payload) for s in content.sections if s.tag != LEVEL_TAG}
    levels = _levels(content)
    streams = sum(level["stream_bytes"] for level in levels)
    tables = sum(level["table_bytes"] for level in levels)
    ideal = sum(level["cross_entropy_bytes"] for level in levels)
    symbols = content.scene.symbols[: content.scene.grid.offsets[len(levels)]]
    static = sum(level["static_bytes"] for level in levels)
    pooled = entropy_bytes(symbols)
    headers = len(data) - streams - tables - sum(sections.get(tag, 0) for tag in _NO_HEADERS)
    rivals = _rivals(symbols)
    return {
        "bytes": len(data),
        "is_canonical": encode_scene(content.scene) == data,
        "sections": sections,
        "stream_bytes": streams,
        "table_bytes": tables,
        "header_bytes": headers,
        "cross_entropy_bytes": ideal,
        "static_bytes": static,
        "pooled_bytes": pooled,
        "rivals": rivals,
        "levels": levels,
        "stream_to_cross_entropy": streams / max(ideal, 1),
        "tables_and_headers_share": (tables + headers) / len(data),
        "saved_to_static": 1 - (streams + tables) / max(static, 1),
        "saved_to_pooled": 1 - (streams + tables) / max(pooled, 1),
        "occupancy_bytes": sections.get("OCCU", 0),
        "weights_bytes": sections["WGTS"],
        **{
            f"{name}_ratio": count / len(data)
            for name, count in rivals.items()
            if isinstance(count, int)
        },
    }


def missed_bars(figures: dict[str, Any]) -> list[str]:
    """Names of the bars that a file does not reach; those without a figure are not counted."""
    return [bar.name for bar in BARS if bar.name in figures and not bar.holds(figures[bar.name])]


def entropy_bytes(symbols: np.ndarray) -> float:
    """Zeroth-order entropy of integers [E, d], each channel by itself."""
    bits = 0.0
    for channel in symbols.T:
        counts = np.unique(channel, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / channel.size)).sum())
    return bits / 8


def _levels(content: FileContent) -> list[dict[str, Any]]:
    scene, result, coarser = content.scene, [], None
    payloads = [section.payload for section in content.sections if section.tag == LEVEL_TAG]
    contexts = CodingContext(scene.grid, scene.occupancy, scene.latent_dim)
    for level, (payload, parts) in enumerate(zip(payloads, content.levels, strict=True)):
        symbols = scene.level_symbols(level)
        coding = contexts.level(level, coarser)
        coded = symbols if coding.entries is None else symbols[coding.entries]
        coarser = symbols
        result.append(
            {
                "resolution": list(scene.grid.resolutions[level]),
                "entries": len(symbols),
                "reached": len(coded),
                "stream_bytes": parts.stream_bytes,
                "table_bytes": parts.table_bytes,
                "cross_entropy_bytes": cross_entropy(payload, coding, coded) / 8,
                "static_bytes": entropy_bytes(symbols),
                "reached_static_bytes": entropy_bytes(coded),
            }
        )
    return result


def _rivals(symbols: np.ndarray) -> dict[str, int | str]:
    """Bytes of other coders for integers [E, d], or why they cannot be had."""
    is_small = np.abs(symbols.astype(np.int32)).max(initial=0) <= np.iinfo(np.int8).max
    planes = symbols.astype(np.int8 if is_small else np.int16).T
    general = {name: compressed_bytes(name, planes.tobytes()) for name in COMPRESSORS}
    return {**general, "torchac": torchac_bytes(planes)}


def audit_text(name: str, figures: dict[str, Any]) -> str:
    """What a person reads."""
    lines = [f"{name}: {figures['bytes']:,} bytes"]
    lines += [f"  {bar_line(bar, figures)}" for bar in BARS]
    lines.append("  level resolution  entries  reached   stream  tables  x-entropy    static")
    for number, level in enumerate(figures["levels"]):
        axes = level["resolution"]
        resolution = "x".join(map(str, axes if len(set(axes)) > 1 else axes[:1]))
        lines.append(
            f"  {number:>5}{resolution:>11}{level['entries']:>9,}{level['reached']:>9,}"
            f"{level['stream_bytes']:>9,}{level['table_bytes']:>8,}"
            f"{level['cross_entropy_bytes']:>11,.0f}{level['static_bytes']:>10,.0f}"
        )
    return "\n".join(lines)


def bar_line(bar: Bar, figures: dict[str, Any]) -> str:
    if bar.name not in figures:
        return f"{bar.name:<26}not measured: {figures['rivals'][bar.name.partition('_')[0]]}"
    figure, relation = figures[bar.name], "at least" if bar.at_least else "at most"
    verdict = "holds" if bar.holds(figure) else "MISSED"
    digits = ",.0f" if bar.limit > 100 else ".4f"
    return f"{bar.name:<26}{figure:>12{digits}}  {relation} {bar.limit:g}: {verdict}"
