"""Pictures: rate and distortion beside ordinary codecs and published curves."""
