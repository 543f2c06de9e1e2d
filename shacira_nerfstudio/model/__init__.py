"""The mathematics of compressed fields: torch modules and pure functions, no host."""
