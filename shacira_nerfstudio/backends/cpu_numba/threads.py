"""A pool of plain threads for kernels that release the GIL.

Not numba's own parallel layer: that may not be entered from two threads at once, which the web
viewer does while training goes on, and its spinning workers take cores from torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=1)
def default_num_threads() -> int:
    """Torch's number of threads when first asked, before the pool below changes what it says."""
    return torch.get_num_threads()


@lru_cache(maxsize=4)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    # Torch operations inside a task must not split up again: its threads wait for one another by
    # spinning, which on a busy machine takes longer than the work.
    return ThreadPoolExecutor(
        num_threads,
        thread_name_prefix="shacira",
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


def run(function: Callable[..., Any], tasks: Sequence[tuple], num_threads: int) -> list:
    """Calls ``function(*task)`` for each task, in threads if that pays; results in order."""
    if num_threads == 1 or len(tasks) <= 1:
        return [function(*task) for task in tasks]
    return list(_pool(num_threads).map(lambda task: function(*task), tasks))


def blocks(count: int, block: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + block, count)) for begin in range(0, count, block)]


def even_blocks(count: int, most: int, num_threads: int) -> list[tuple[int, int]]:
    """Blocks of at most ``most``, as many for each thread: of few a last one by itself would take
    as long as all before it."""
    per_thread = -(-count // (most * num_threads))
    return blocks(count, max(-(-count // max(per_thread * num_threads, 1)), 1))
