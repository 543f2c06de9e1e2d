"""Adam for a table of which each step touches few rows, and for small networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from shacira_nerfstudio.backends import AdamState, SparseRowGradient
from shacira_nerfstudio.backends.sparse_rows import update_rows


class SparseRowAdam(torch.optim.Optimizer):
    """Adam in each row's own time.

    A step updates the rows that have a gradient and no other: for each of them it is exactly Adam
    (Kingma and Ba, ICLR 2015, Algorithm 1) over the steps that touched the row, with moments and
    bias corrections that count these steps alone. Rows that a step does not touch keep their values
    and their moments. (Adam itself would move them on by their momentum, and would take the steps
    between for gradients of 0, which makes rarely touched rows jump once they are touched.)
    Weight decay is decoupled (Loshchilov and Hutter, ICLR 2019) and acts in the same steps.

    Args:
        lr: Step size.
        betas: Decay of the moments, below 0.9994 on cpu_numba.
        eps: Added to the root of the second moment.
        weight_decay: A touched row shrinks by the factor 1 - lr * weight_decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
        weight_decay: float = 0.0,
    ) -> None:
        if not (lr >= 0 and eps >= 0 and weight_decay >= 0):
            raise ValueError(
                f"expected lr, eps and weight_decay of 0 or more, got {lr}, {eps}, {weight_decay}"
            )
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"expected betas from 0 to below 1, got {betas}")
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Updates the touched rows; their gradient is 0 afterwards."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            options = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, update = _gradient_of(parameter)
                update(parameter, gradient, self._state_of(parameter), **options)
        return loss

    def _state_of(self, parameter: torch.Tensor) -> AdamState:
        state = self.state[parameter]
        if not state:
            state["moments"] = torch.zeros_like(parameter)[:, None].repeat(1, 2, 1)
            state["num_updates"] = torch.zeros(
                len(parameter), dtype=torch.int16, device=parameter.device
            )
        # torch makes what it loads as precise as the parameter.
        state["num_updates"] = state["num_updates"].to(torch.int16)
        return AdamState(state["moments"], state["num_updates"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears touched rows of sparse gradients; their array stays."""
        for group in self.param_groups:
            for parameter in group["params"]:
                sparse = getattr(parameter, "sparse_gradient", None)
                if sparse is not None and parameter.grad is sparse[0].values:
                    sparse[0].clear()
                elif set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.zero_()


class NetworkAdam(torch.optim.Adam):
    """Adam itself; where parameters are on a GPU, all of them in one kernel that asks the host for
    nothing. A checkpoint moves between devices."""

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        params = list(params)
        super().__init__(params, fused=_are_on_cuda(params), **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ever, but whether it is fused follows from where parameters are now."""
        groups = zip(self.param_groups, state_dict["param_groups"], strict=True)
        groups = [{**saved, "fused": own["fused"]} for own, saved in groups]
        super().load_state_dict({**state_dict, "param_groups": groups})


def _are_on_cuda(parameters: list[Any]) -> bool:
    return all(
        parameter.is_cuda
        for group in parameters
        for parameter in (group["params"] if isinstance(group, dict) else [group])
    )


def _gradient_of(parameter: torch.Tensor) -> tuple[SparseRowGradient, Callable[..., None]]:
    """The gradient by rows, and the function that makes a step of it; see
    ``LatentHashEncoding``."""
    sparse = getattr(parameter, "sparse_gradient", None)
    if sparse is not None and parameter.grad is sparse[0].values:
        gradient, backend = sparse
        return gradient, backend.update_rows
    assert parameter.grad is not None
    return SparseRowGradient.of(parameter.grad), update_rows
