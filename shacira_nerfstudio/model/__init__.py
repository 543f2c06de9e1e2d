"""The mathematics of a compressed radiance field: torch modules and pure functions, no host."""
