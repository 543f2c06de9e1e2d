"""Measures one trained run, in a process of its own: bytes of the file, quality of what it decodes
to.

    python -m shacira_nerfstudio.bench.rate_distortion --run config.yml --output figures.json \\
        [--export OUT/config.yml]

With an export, the file in its folder is decoded, encoded again and rendered. Without one the run
is the uncompressed baseline: its parameters are written as half floats, read back and rendered.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from shacira_nerfstudio.bench.codec_ablation import codec_ablation_bytes
from shacira_nerfstudio.bench.codec_audit import entropy_bytes
from shacira_nerfstudio.bench.fp16_baseline import pack_halves, unpack_halves
from shacira_nerfstudio.codec import decode_scene, describe, encode_scene
from shacira_nerfstudio.plugin.evaluate import measure_views, open_run

BASELINE_FILE = "parameters.fp16"


def measure_file(run: Path, export: Path) -> dict[str, Any]:
    """Figures of an exported file; ``bytes`` is its length.

    Seconds of decoding and encoding are those of a process in which the codec has run before: the
    first time also loads its kernels.
    """
    path = export.parent / "scene.shacira"
    data = path.read_bytes()
    decode_scene(data)
    begin = time.perf_counter()
    scene = decode_scene(data)
    decoded = time.perf_counter()
    again = encode_scene(scene)
    encoded = time.perf_counter()
    if again != data:
        raise ValueError(f"expected {path} to encode to itself, found other bytes")
    description = describe(data)
    opened = open_run(run, with_views=False)
    trained = opened.model.scene.field
    latents = trained.encoding.rounded().cpu().numpy()
    exported = open_run(export)
    if exported.model.file_scene != scene:
        raise ValueError(f"expected {export} to render {path}, found another scene in it")
    return {
        "bytes": path.stat().st_size,
        "bytes_by_part": description["bytes_by_part"],
        "table_bytes": description["table_bytes"],
        "bytes_by_level": description["bytes_by_level"],
        "num_nonzero_latents": description["num_nonzero_latents"],
        # Zeroth-order entropy over all levels, networks at 32 bits, and nothing else.
        "paper_accounting_bytes": round(entropy_bytes(latents)) + 4 * _num_weights(trained),
        "trained_steps": opened.step + 1,
        "rate_lambda_at_end": float(scene.meta["rate_lambda"]),
        "codec_ablation_bytes": codec_ablation_bytes(scene, data, latents),
        "encode_seconds": encoded - decoded,
        "decode_seconds": decoded - begin,
        **measure_views(exported.pipeline),
    }


def measure_baseline(run: Path, folder: Path) -> dict[str, Any]:
    """Figures of the uncompressed baseline; its file is left in the folder."""
    baseline = open_run(run)
    if baseline.model.config.networks.appearance_dim:
        raise ValueError("expected a baseline without appearance codes, which its file has not")
    parameters = dict(baseline.model.scene.field.named_parameters())
    # The density of latents is of no use without integers to code.
    used = {name: p for name, p in parameters.items() if "entropy_model" not in name}
    begin = time.perf_counter()
    data, by_name, compressor = pack_halves(
        {name: p.detach().cpu().numpy() for name, p in used.items()}
    )
    encoded = time.perf_counter()
    path = folder / BASELINE_FILE
    path.write_bytes(data)
    shapes = {name: tuple(p.shape) for name, p in used.items()}
    begin_decode = time.perf_counter()
    arrays = unpack_halves(path.read_bytes(), shapes, compressor)
    decoded = time.perf_counter()
    with torch.no_grad():
        for name, parameter in used.items():
            parameter.copy_(torch.from_numpy(arrays[name]))
    latent_bytes = sum(size for name, size in by_name.items() if name.endswith("latents"))
    return {
        "bytes": path.stat().st_size,
        "bytes_by_part": {"latents": latent_bytes, "weights": len(data) - latent_bytes},
        "compressor": compressor,
        "trained_steps": baseline.step + 1,
        "paper_accounting_bytes": 4 * sum(p.numel() for p in used.values()),
        "encode_seconds": encoded - begin,
        "decode_seconds": decoded - begin_decode,
        **measure_views(baseline.pipeline),
    }


def _num_weights(field: torch.nn.Module) -> int:
    """Numbers in the networks and the latent decoder as they were trained, nothing folded."""
    names = ("latent_decoder", "density_mlp", "color_mlp")
    return sum(
        p.numel()
        for name, p in field.named_parameters()
        if any(part in name.split(".") for part in names)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.export is None:
        figures = measure_baseline(options.run, options.output.parent)
    else:
        figures = measure_file(options.run, options.export)
    options.output.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
