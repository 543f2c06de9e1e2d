"""`shacira bench throughput`: how fast the parts are, beside Nerfstudio's own and other coders.

Nothing is timed before its result has been held against `reference`, and the two sides of a row
take turns in one process.
"""
