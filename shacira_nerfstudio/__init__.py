"""Compressed radiance fields for Nerfstudio."""

__version__ = "0.1.0"
