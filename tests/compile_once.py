"""Kernels of a fresh checkout are compiled by one worker of `make test`, not by each.

numba keeps on disk what it has compiled, but two workers who begin beside each other compile the
same, and may lose what the other has just written down. So whoever compiles a function holds a file
locked, and who wants the same function meanwhile waits and then reads it from disk.
"""

import contextlib
import os
import threading
from pathlib import Path

_held = threading.local()


@contextlib.contextmanager
def _locked(path: Path):
    """Holds a file; whoever holds it already may enter once more."""
    import fcntl

    files = _held.__dict__.setdefault("files", {})
    if path in files:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files[path] = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(files[path], fcntl.LOCK_EX)
        yield
    finally:
        os.close(files.pop(path))  # which lets it go


def share_compilation() -> None:
    """From now on, in this process."""
    from numba.core.caching import NullCache
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import Dispatcher

    compile_alone = Dispatcher.compile

    def compile_once(self, sig):
        if isinstance(self._cache, NullCache):
            return compile_alone(self, sig)
        folder, function = Path(self._cache.cache_path), self.py_func
        line = function.__code__.co_firstlineno
        path = folder / f"{function.__module__}.{function.__qualname__}-{line}.lock"
        # The lock of this process first, always: otherwise two threads could wait for each other.
        # Functions call each other in no circle, so neither can two processes.
        with global_compiler_lock, _locked(path):
            return compile_alone(self, sig)

    Dispatcher.compile = compile_once
