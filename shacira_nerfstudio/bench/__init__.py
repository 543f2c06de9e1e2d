"""Measurements: speed, rate and distortion."""
