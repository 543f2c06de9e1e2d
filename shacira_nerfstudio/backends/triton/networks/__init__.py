"""Both networks over packed samples."""
