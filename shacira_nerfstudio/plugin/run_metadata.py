"""What a file says about how it was made: no paths, no dates, nothing about the machine."""

from __future__ import annotations

from typing import Any

from nerfstudio.configs.dataparser_configs import all_dataparsers
from nerfstudio.engine.trainer import TrainerConfig

from shacira_nerfstudio import __version__


def run_metadata(
    config: TrainerConfig,
    step: int,
    *,
    rate_lambda: float,
    num_train_images: int,
    num_steps: int | None = None,
) -> dict[str, str | int]:
    """Of a run after a step.

    Args:
        rate_lambda: Weight of the rate by then.
        num_steps: Of the whole run; by default what its configuration says.
    """
    pipeline: Any = config.pipeline
    model, parser = pipeline.model, pipeline.datamanager.dataparser
    names = [name for name, known in all_dataparsers.items() if type(known) is type(parser)]
    targets = {name: getattr(model, name) for name in ("target_size_kb", "target_psnr")}
    return {
        "tool": f"shacira_nerfstudio {__version__}",
        "method": str(config.method_name),
        "step": step,
        "max_num_iterations": num_steps or config.max_num_iterations,
        "rate_lambda": f"{rate_lambda:.4g}",
        **{name: f"{target:g}" for name, target in targets.items() if target},
        "quantizer": model.quantizer.mode,
        "dataparser": names[0] if names else type(parser).__name__,
        "num_train_images": num_train_images,
    }
