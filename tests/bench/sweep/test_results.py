"""Results are appended once each, by one process at a time, and half a line is none."""

import json
import sys

import pytest

from shacira_nerfstudio.bench.sweep.locks import LockedError, is_locked, locked
from shacira_nerfstudio.bench.sweep.results import open_results

ROW = {
    **dict.fromkeys(("rate_lambda", "psnr", "ssim", "train_seconds", "steps", "seed"), 1),
    **dict.fromkeys(("paper_accounting_bytes", "encode_seconds", "decode_seconds"), 1),
    **dict.fromkeys(("scene", "method", "preset", "commit", "date", "machine", "backend"), "x"),
    **{"render_seconds": 1, "bytes": 3, "bytes_by_part": {"latents": 3}, "resolution": [1, 1]},
}
unix = pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")


def test_each_job_once(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    with open_results(path) as results:
        assert results.append({**ROW, "key": "a"})
        assert not results.append({**ROW, "key": "a"})
    with open_results(path) as results:
        assert results.keys == {"a"} and not results.append({**ROW, "key": "a"})
    assert len(path.read_text("utf-8").splitlines()) == 1


def test_half_a_line_is_cut_off_and_a_whole_one_gets_its_end(tmp_path):
    path = tmp_path / "rows.jsonl"
    whole = json.dumps({"key": "a", **ROW})
    path.write_text(f"{whole}\n{whole[:30]}", "utf-8")
    with open_results(path) as results:
        assert results.keys == {"a"}
        results.append({"key": "b", **ROW})
    path.write_text(path.read_text("utf-8")[:-1], "utf-8")
    with open_results(path) as results:
        assert results.keys == {"a", "b"}
        results.append({"key": "c", **ROW})
    assert [json.loads(line)["key"] for line in path.read_text("utf-8").splitlines()] == [*"abc"]


def test_a_file_that_holds_something_else_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("first\nlast line without its end", "utf-8")
    with pytest.raises(ValueError, match="line 1: expected JSON"), open_results(path):
        pass
    assert path.read_text("utf-8") == "first\nlast line without its end"


@unix
def test_two_sweeps_never_append_to_one_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    with open_results(path), pytest.raises(OSError, match="another sweep"), open_results(path):
        pass
    with open_results(path):
        pass


@unix
def test_a_lock_is_free_when_its_holder_has_ended(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
        with pytest.raises(LockedError, match="another process"), locked(path, wait_s=0.2):
            pass
    assert not is_locked(path)
