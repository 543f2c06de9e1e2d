"""One input or a folder of them, and where their results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shacira_nerfstudio.codec import SceneFormatError, verify
from shacira_nerfstudio.output_files import check_output_dir, check_output_file


@dataclass(frozen=True)
class Job:
    """One file to read and one to write."""

    source: Path
    target: Path


def plan_jobs(
    inputs: Sequence[Path], output: Path, *, endings: Sequence[str], to: str
) -> list[Job]:
    """A job for each input: a file, or all files with these endings in a folder, by name.

    Args:
        output: A file for a single file; else a folder, which need not be there.
        to: The ending of results in a folder.

    Raises:
        ValueError: there is nothing to do, or two results have the same name.
        OSError: results cannot be written there.
    """
    sources: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in endings)
            if not found:
                raise ValueError(f"expected files {', '.join(endings)} in {path}, found none")
            sources += found
        elif path.is_file():
            sources.append(path)
        else:
            raise ValueError(f"expected a file or a folder, found no {path}")
    is_single = len(inputs) == 1 and inputs[0].is_file()
    if is_single and not output.is_dir():
        check_output_file(output)
        if output.exists() and output.samefile(sources[0]):
            raise ValueError(f"expected another file to write than {sources[0]}")
        return [Job(sources[0], output)]
    if output.is_file():
        raise ValueError(f"expected a folder for {len(sources)} results, got the file {output}")
    check_output_dir(output)
    jobs = [Job(path, output / f"{path.stem}{to}") for path in sources]
    targets = [job.target for job in jobs]
    twice = {str(target) for target in targets if targets.count(target) > 1}
    if twice:
        raise ValueError(f"expected results of different names, got {', '.join(sorted(twice))}")
    return jobs


def is_done(job: Job) -> bool:
    """Whether the result is there and is a whole valid file."""
    if not job.target.is_file():
        return False
    try:
        verify(job.target.read_bytes())
    except SceneFormatError:
        return False
    return True


def is_newer(job: Job) -> bool:
    """Whether the result is there and was made from the file as it is: results are written whole
    or not at all."""
    if not job.target.is_file():
        return False
    return job.target.stat().st_mtime_ns >= job.source.stat().st_mtime_ns
