"""The CPU backend: numba kernels on a pool of threads, no compiler needed; makes all published
numbers."""

from shacira_nerfstudio.backends.cpu_numba.backend import create as create
