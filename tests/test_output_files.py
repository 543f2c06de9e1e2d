"""Files are written whole or not at all, to the place that was meant, and targets are checked."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections import namedtuple

import pytest
from synthetic_ball import make_ball

from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.codec import save_scene
from shacira_nerfstudio.output_files import (
    check_output_dir,
    check_output_file,
    only_writer,
    replacing_file,
    write_file,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="devices, pipes and links of POSIX")


def parts_left(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def test_a_file_keeps_its_rights_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / ("x" * 250)  # as long as names may be
    assert write_file(path, "é") == 2
    os.chmod(path, 0o640)
    assert write_file(path, b"new") == 3
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not parts_left(tmp_path)


def test_a_file_that_somebody_else_writes(tmp_path):
    path = tmp_path / "video"
    write_file(path, "earlier")
    with pytest.raises(KeyError), replacing_file(path) as part:
        part.write_bytes(b"half")
        assert part.parent == tmp_path and path.read_bytes() == b"earlier"
        raise KeyError
    assert path.read_bytes() == b"earlier" and not parts_left(tmp_path)
    with replacing_file(path) as part:
        part.write_bytes(b"whole")
    assert path.read_bytes() == b"whole" and not parts_left(tmp_path)
    with pytest.raises(OSError, match="/dev/null, got: it is a device"):
        with replacing_file("/dev/null"):
            pass


def test_links_stay_and_what_they_point_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    link.symlink_to(target)
    for data in (b"dangling", b"there"):
        check_output_file(link)
        write_file(link, data)
        assert link.is_symlink() and target.read_bytes() == data


def test_devices_and_pipes_are_written_to(tmp_path):
    check_output_file("/dev/null")
    write_file("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    check_output_file(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    write_file(fifo, b"through")
    reader.join()
    assert read == [b"through"] and stat.S_ISFIFO(fifo.stat().st_mode)


def refusal(check, path, *args):
    with pytest.raises(OSError, match="expected to write to") as caught:
        check(path, *args)
    return str(caught.value)


def test_targets_that_cannot_be(tmp_path, monkeypatch):
    for check in (check_output_file, lambda path: write_file(path, b"")):
        assert "it is a folder" in refusal(check, tmp_path)
        assert str(tmp_path / "no") in refusal(check, tmp_path / "no" / "file")
    (tmp_path / "file").touch()
    assert "there is no folder" in refusal(check_output_dir, tmp_path / "file" / "deeper")
    assert "/proc/x" in refusal(check_output_dir, "/proc/x/y")
    assert "/dev/full" in refusal(lambda path: write_file(path, b"x" * 9000), "/dev/full")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9, 8, 1))
    for check in (check_output_file, check_output_dir):
        assert "1 bytes are free of 1,048,576" in refusal(check, tmp_path / "new")
    check_output_dir(tmp_path / "new", 1)
    assert not (tmp_path / "new").exists() and not parts_left(tmp_path)


def test_one_writer_per_folder(tmp_path):
    folder = tmp_path / "out"
    with only_writer(folder):
        with pytest.raises(OSError, match="expected to be alone"), only_writer(folder):
            pass
    with contextlib.suppress(ZeroDivisionError), only_writer(folder):
        _ = 1 / 0
    with contextlib.suppress(ZeroDivisionError), only_writer(tmp_path / "new"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()
    with only_writer(folder):  # whatever ends it lets go
        assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("ball") / "scene.shacira"
    save_scene(path, make_ball())
    return path


WRITERS = {
    "truncate": ["--max-level", "0"],
    "decompress": [],
}


@pytest.mark.parametrize("command", WRITERS)
def test_no_command_replaces_a_device(file, tmp_path, command, capsys):
    out = tmp_path / "out.npz"
    out.symlink_to("/dev/null")
    assert cli.main([command, str(file), str(out), *WRITERS[command]]) == 0
    assert out.is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert cli.main([command, str(file), str(tmp_path), *WRITERS[command]]) == 2
    assert "it is a folder" in capsys.readouterr().err


def test_targets_are_looked_at_before_the_work(file, tmp_path, monkeypatch, capsys):
    def work(*args, **options):
        raise AssertionError("the work has begun")

    from shacira_nerfstudio import codec

    for name in ("load_scene", "truncate", "decode_scene"):
        monkeypatch.setattr(codec, name, work)
    (tmp_path / "file").touch()
    lost = str(tmp_path / "file" / "x.npz")
    commands = [
        ["truncate", str(file), lost, "--max-level", "0"],
        ["decompress", str(file), lost],
        ["render", str(file), "--output-dir", lost],
        ["demo-scene", lost],
        ["demo", "--output-dir", lost],
        ["train", "shacira-mid", "--output-dir", lost],
        ["bench", "codec", str(file), "--output", lost],
        ["bench", "rd", str(file), "--output", lost],
        ["bench", "throughput", "--data", str(tmp_path), "--output", lost],
    ]
    for command in commands:
        assert cli.main(command) == 2, command
        error = capsys.readouterr().err.strip()
        assert error.startswith("shacira: error: expected to write to"), (command, error)
        assert "\n" not in error


# ── last words ──


def shacira(*args, **options):
    command = [sys.executable, "-m", "shacira_nerfstudio.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def test_a_terminal_that_cannot_show_a_comment(tmp_path):
    import dataclasses

    path = tmp_path / "x.shacira"
    save_scene(path, dataclasses.replace(make_ball(), meta={"comment": "Zoë 🎲"}))
    done = shacira("info", path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"comment: Zo\\xeb \\U0001f3b2" in done.stdout


def test_a_closed_pipe(file):
    code = f"exec {sys.executable} -m shacira_nerfstudio.cli.main info {file} --json"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(code, shell=True, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1 and b"closed pipe" in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("two\nlines"), 2, "two lines"),
        (MemoryError(), 2, "memory"),
        (OSError(28, "No space left on device", "x"), 2, "No space left"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_last_words_are_one_line(file, monkeypatch, capsys, error, status, words):
    def fail(self):
        raise error

    monkeypatch.setattr(cli.file_commands.Info, "main", fail)
    assert cli.main(["info", str(file)]) == status
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and words in line
