"""A loss that is no number ends a run where it happens: what is trained on it is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

_GPU_STEPS = 50
"""Steps between two looks on a GPU: each makes the host wait for it."""


class NotFiniteError(ArithmeticError):
    """Training left the numbers."""


class LossWatch:
    """Notes the losses of each step, and looks at them now and then."""

    def __init__(self) -> None:
        self._is_finite: dict[str, Tensor] = {}
        self._since = 0

    def note(self, losses: Mapping[str, Tensor]) -> None:
        """To be called in each step; nothing waits for a GPU."""
        for name, loss in losses.items():
            is_finite, before = loss.detach().isfinite(), self._is_finite.get(name)
            self._is_finite[name] = is_finite if before is None else is_finite & before

    def check(self, step: int, checkpoints: Path, *, saves: Iterable[Tensor] | None = None) -> None:
        """To be called after each step; looks every time on a CPU.

        Args:
            checkpoints: Where earlier ones lie.
            saves: What goes into a checkpoint after this step; None if there is none.

        Raises:
            NotFiniteError: a loss, or what is to be saved, is not finite. Nothing is saved.
        """
        flags = self._is_finite
        is_on_gpu = any(flag.device.type != "cpu" for flag in flags.values())
        if is_on_gpu and step % _GPU_STEPS and saves is None:
            return
        first, self._since, self._is_finite = self._since, step + 1, {}
        bad = [name for name, is_finite in flags.items() if not is_finite]
        if not bad and saves is not None:
            bad = ["weights"] if not all(bool(tensor.isfinite().all()) for tensor in saves) else []
        if bad:
            when = f"the steps from {first} to {step}" if is_on_gpu else f"step {step}"
            kept = sorted(checkpoints.glob("*.ckpt")) if checkpoints.is_dir() else []
            last = f"the last checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
            raise NotFiniteError(
                f"expected finite numbers in {when}, got a {' and a '.join(bad)} that is not; try "
                "smaller learning rates (--optimizers.fields.optimizer.lr, "
                "--optimizers.latents.optimizer.lr) or, if precision is bfloat16, "
                f"--pipeline.model.networks.precision float32; {last}"
            )
