"""How files are written: whole or not at all, to the place that was meant, and a place that cannot
take them is found before the work and not after it.

The rules are the same for every file that this package writes. A name may be a symbolic link: the
file that it points to is replaced, the link stays. Devices and pipes (``/dev/null``,
``/dev/stdout``, a FIFO) are written to and never replaced. Everything else that is no regular file
is refused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

MIN_FREE_BYTES = 1 << 20
"""Room that a target should have, where nobody knows better."""

AnyPath = str | os.PathLike[str]


def write_file(path: AnyPath, data: bytes | str) -> int:
    """Writes a file: afterwards the whole new one is there or the old one. Text becomes UTF-8.

    Returns:
        The number of bytes.

    Raises:
        OSError: it cannot be written; the message names the file.
    """
    data = data.encode() if isinstance(data, str) else bytes(data)
    with _named_errors(path):
        if _is_stream(path):
            with open(path, "wb") as stream:
                stream.write(data)
        else:
            _replace(Path(os.path.realpath(path)), data)
    return len(data)


@contextlib.contextmanager
def replacing_file(path: AnyPath) -> Iterator[Path]:
    """A file for somebody else to write, which takes the place of ``path`` when all went well.

    Raises:
        OSError: it cannot be written, or is a device or a pipe; the message names the file.
    """
    with _named_errors(path):
        if _is_stream(path):
            raise OSError("it is a device or a pipe, and this needs a file")
    with _sibling(Path(os.path.realpath(path))) as name:
        yield Path(name)


def check_output_file(path: AnyPath, num_bytes: int = MIN_FREE_BYTES) -> None:
    """Raises OSError unless :func:`write_file` could write so many bytes there."""
    with _named_errors(path):
        if not _is_stream(path):
            _check_folder(Path(os.path.realpath(path)).parent, num_bytes)


def check_output_dir(path: AnyPath, num_bytes: int = MIN_FREE_BYTES) -> None:
    """Raises OSError unless the folder is there, or can be made, and takes files of so many bytes.
    It is not made here."""
    folder = Path(os.path.realpath(path))
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    with _named_errors(path):
        _check_folder(folder, num_bytes)


@contextlib.contextmanager
def only_writer(folder: AnyPath) -> Iterator[None]:
    """Makes a folder, and keeps other processes that ask for the same out while it is filled.

    Raises:
        OSError: somebody else is filling it. Locks end with their processes; where a file system
            has none, nobody is kept out.
    """
    is_new = not os.path.exists(folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        with _lock(folder):
            yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # if nothing has been written
        raise


@contextlib.contextmanager
def _lock(folder: AnyPath) -> Iterator[None]:
    if os.name == "nt":  # folders cannot be opened there
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"expected to be alone in {folder}, found another process that writes to it now: "
                "wait for it, or take another folder"
            ) from None
        except OSError:
            pass  # no locks here
        yield
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    with _sibling(path) as name, open(name, "wb") as file:
        file.write(data)


@contextlib.contextmanager
def _sibling(path: Path) -> Iterator[str]:
    """A new file to fill, which then takes the place of another one, or vanishes."""
    # A sibling, so that the last step is a rename within one file system.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    os.close(handle)
    try:
        yield name
        with open(name, "r+b") as file:
            os.fsync(file.fileno())
        is_there = path.exists()
        os.chmod(name, path.stat().st_mode & 0o777 if is_there else 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _is_stream(path: AnyPath) -> bool:
    """Whether it is a device or a pipe, to be written to; refuses what is no file at all."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return True
    if stat.S_ISDIR(mode):
        raise OSError("it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError("it is neither a regular file nor a pipe")
    return False


def _check_folder(folder: Path, num_bytes: int) -> None:
    if not folder.is_dir():
        raise OSError(f"there is no folder {folder}")
    handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    os.close(handle)
    os.unlink(name)
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(f"{free:,} bytes are free of {num_bytes:,} that it may take")


@contextlib.contextmanager
def _named_errors(path: AnyPath) -> Iterator[None]:
    """An OSError that says in one sentence which target failed, and why."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"expected to write to {os.fspath(path)}, got: {reason}") from error
