"""The codec: whole files, its entropy coder beside others, and sizes beside general compressors.

`reference` here is the codec in plain numpy, which defines the bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from shacira_nerfstudio.bench.throughput.rivals import (
    MAX_CODED,
    RivalCoder,
    compressed_bytes,
    load_coder,
)
from shacira_nerfstudio.bench.throughput.timing import (
    Row,
    Side,
    Timed,
    WrongResultError,
    rate_row,
)
from shacira_nerfstudio.codec import PackedScene, decode_scene, describe, encode_scene
from shacira_nerfstudio.codec.entropy.rans import Decoder, Segment, choose_lanes, encode
from shacira_nerfstudio.codec.entropy.frequency_table import FIXED, FrequencyTable, TableSet

_NUMPY_REPEATS = 3
_CODEC = "numba"
_ONE = "one file format, one codec: nothing else reads or writes it"


def _side(run: Callable[[], Any], what: str, work: float) -> Side:
    return Side(run, what, torch_threads=1, threads=1, work=work)


def _seconds_in_numpy(run: Callable[[bool], Any]) -> float:
    """The best of a few runs without numba, which machines without it have to wait."""
    times = []
    for _ in range(_NUMPY_REPEATS):
        begin = time.perf_counter()
        run(False)
        times.append(time.perf_counter() - begin)
    return min(times)


def _held(what: str, equal: bool) -> dict[str, Any]:
    if not equal:
        raise WrongResultError(f"{what}: differs from the codec in plain numpy")
    return {what: {"because": "bytes and integers are equal, not close"}}


def scene_row(name: str, data: bytes, repeats: int) -> Row:
    """``encode_scene`` or ``decode_scene``: a whole file, models, contexts and checks included."""
    scene = decode_scene(data)
    runs = {
        "encode_scene": lambda fast: encode_scene(scene, fast=fast),
        "decode_scene": lambda fast: decode_scene(data, fast=fast),
    }
    run = runs[name]
    count = _num_coded(scene)

    def figures(timed: dict[str, Timed]) -> dict[str, Any]:
        seconds = timed["ours"].times.median
        return {
            "ours_s": seconds,
            "file_mb_per_s": len(data) / 1e6 / seconds,
            "numpy_s": _seconds_in_numpy(run),
        }

    return rate_row(
        name,
        "latents/s",
        _side(lambda: run(True), name, count),
        None,
        no_rival=_ONE,
        repeats=repeats,
        check=_held(name, run(True) == run(False)),
        sizes={
            "file_bytes": len(data),
            "num_latents": count,
            "num_entries": scene.grid.num_entries,
        },
        backend=_CODEC,
        more=figures,
    )


def _num_coded(scene: PackedScene) -> int:
    """Latents of all levels that the file has; those that nothing reaches cost time as well."""
    return scene.grid.offsets[scene.num_coded_levels] * scene.latent_dim


class _Stream:
    """Latents of a scene under one static table: what every coder can take."""

    def __init__(self, data: bytes) -> None:
        symbols = decode_scene(data).symbols
        # Fine levels are at the end and hold most of a file; zeros that no cell reaches are left
        # out as good as can be: rows that are zero throughout tell a coder nothing.
        rows = symbols[symbols.any(axis=1)]
        self.values = np.ascontiguousarray(rows[-MAX_CODED // rows.shape[1] :]).reshape(-1)
        low = int(self.values.min(initial=0))
        self.letters = (self.values - low).astype(np.int32)
        counts = np.bincount(self.letters)
        self.table = FrequencyTable.from_counts(counts, minimum=low)
        self.tables = TableSet([self.table])
        self.index = np.zeros(len(self.values), dtype=np.int32)
        begin = self.table.minimum - low
        cost = self.table.cost(counts[begin : begin + len(self.table.roots)])
        self.num_lanes = choose_lanes(cost >> FIXED, len(self.values))
        self.letters -= begin

    def encode(self, fast: bool = True) -> bytes:
        segment = Segment.from_symbols(self.values, self.index, self.tables, fast=fast)
        return encode([segment], num_lanes=self.num_lanes, fast=fast)

    def decode(self, data: bytes, fast: bool = True) -> np.ndarray:
        decoder = Decoder(data, num_lanes=self.num_lanes, fast=fast)
        values = decoder.take(self.index, self.tables)
        decoder.finish()
        return values

    def rival(self, name: str) -> RivalCoder | str:
        return load_coder(name, self.letters, self.table.freqs, self.table.precision)


def coder_row(what: str, rival: str, data: bytes, repeats: int) -> Row:
    """Symbols to bytes (``encode``) or back (``decode``) by our coder and by another.

    The same symbols under the same static table; contexts, which take most of our files' bytes
    away, are none of a coder's business.
    """
    stream = _Stream(data)
    ours = stream.encode()
    found = stream.decode(ours)
    check = _held("bytes", ours == stream.encode(fast=False))
    check |= _held("symbols", np.array_equal(found, stream.decode(ours, fast=False)))
    check |= _held("round trip", np.array_equal(found, stream.values))
    other = stream.rival(rival)
    theirs, side = None, None
    count = len(stream.values)
    if isinstance(other, RivalCoder):
        coded = other.encode()
        if not np.array_equal(other.decode(coded), stream.letters):
            raise RuntimeError(f"{rival}: expected to decode what it encoded, got others")
        runs = {"encode": other.encode, "decode": lambda: other.decode(coded)}
        theirs, side = len(coded), _side(runs[what], other.name, count)
    both = {"encode": stream.encode, "decode": lambda fast: stream.decode(ours, fast)}[what]

    def figures(timed: dict[str, Timed]) -> dict[str, Any]:
        sizes: dict[str, Any] = {
            "ours_bytes": len(ours),
            "rival_bytes": theirs,
            "numpy_symbols_per_s": count / _seconds_in_numpy(both),
        }
        for name, num_bytes in (("ours", len(ours)), ("rival", theirs)):
            if name in timed and num_bytes:
                sizes[f"{name}_mb_per_s"] = num_bytes / 1e6 / timed[name].times.median
        return sizes

    return rate_row(
        f"{what}_{rival}",
        "symbols/s",
        _side(lambda: both(True), f"rans.{what}", count),
        side,
        no_rival=other if isinstance(other, str) else "",
        repeats=repeats,
        check=check,
        sizes={
            "num_symbols": count,
            "num_letters": len(stream.table.roots),
            "bits_per_symbol": 8 * len(ours) / count,
            "num_lanes": stream.num_lanes,
        },
        backend=_CODEC,
        more=figures,
    )


def size_row(compressor: str, data: bytes) -> Row:
    """Bytes of the latents in our file against a general compressor on the same integers."""
    scene = decode_scene(data)
    facts = describe(data)
    parts, again = facts["bytes_by_part"], encode_scene(scene, version=facts["version"])
    ours = parts["latents"] + parts["tables"]
    symbols = scene.symbols
    small = np.abs(symbols.astype(np.int32)).max(initial=0) <= np.iinfo(np.int8).max
    plain = symbols.astype(np.int8 if small else np.int16).T.tobytes()  # channel after channel
    theirs = compressed_bytes(compressor, plain)
    rival = theirs if isinstance(theirs, int) else None
    return Row(
        name=f"size_{compressor}",
        unit="bytes",
        ours=ours,
        rival=rival,
        ratio=None if rival is None else rival / ours,
        ours_what="LATN sections: streams and tables",
        rival_what=f"{compressor} of the integers" if rival is not None else str(theirs),
        check=_held("round trip", again == data),
        sizes={"num_latents": symbols.size, "plain_bytes": len(plain), "file_bytes": len(data)},
        threads={"ours": 1, "rival": 1},
        backend=_CODEC,
    )
