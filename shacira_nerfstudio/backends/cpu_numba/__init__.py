"""The CPU backend: numba kernels on a pool of threads, no compiler needed; makes all published
numbers."""

try:
    from shacira_nerfstudio.backends.cpu_numba.backend import create as create
except RuntimeError as error:  # neither the package's folder nor a home can be written to
    raise RuntimeError(
        f"backend cpu_numba has no place for compiled code ({error}): set NUMBA_CACHE_DIR to a "
        "folder that can be written"
    ) from error
