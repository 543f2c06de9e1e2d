"""Makes ``tests/strategies.py`` and ``tests/golden/make.py`` importable from here."""

import pathlib
import sys

TESTS = pathlib.Path(__file__).parents[1]
for folder in (TESTS, TESTS / "golden"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
