"""Backend triton gives what `reference` gives, in Triton's interpreter: no GPU is needed.

In a process of its own: whether kernels are compiled or interpreted is settled at their import.
"""

import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="pip install triton")
PARITY = pathlib.Path(__file__).with_name("test_triton_parity.py")


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="runs in the process that it starts"
)
def test_parity_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(PARITY)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=PARITY.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
