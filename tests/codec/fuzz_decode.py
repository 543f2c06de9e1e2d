"""Coverage-guided fuzzing of the decoder with atheris (`pip install '.[fuzz]'`):

    for round in $(seq 14); do
        python tests/codec/fuzz_decode.py CORPUS_FOLDER -max_total_time=90 -print_final_stats=1
    done

Further options are libFuzzer's. The folder is seeded with the golden files, whole and shortened,
and keeps what was found. In rounds, because atheris 3.0 never frees what instrumented code compares
with numpy: some 200 kB per input, which reach libFuzzer's limit of 2 GB after 9,000 of them. The
same inputs without instrumentation leave no trace.

Every input is decoded as it is and with its lengths and checksums made right, as a forger would:
damage then reaches the sections' own readers. It is decoded with numpy alone and compiled, with
and without permission to be truncated. What must hold: nothing but SceneFormatError, the same
answer from both, at most 2 s of CPU time and 200 MB; what decodes can be encoded and is then the
same.
"""

from __future__ import annotations

import contextlib
import pathlib
import resource
import sys
import time

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
MAX_SECONDS, MAX_KILOBYTES = 2, 200_000
MAX_LENGTH = 20_000
HEAD, MAX_SECTIONS = 16, 256


class Broken(AssertionError):
    """A promise of the decoder that an input has broken."""


def seeds() -> list[bytes]:
    from shacira_nerfstudio.codec import truncate

    files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.shacira"))]
    return files + [truncate(data, max_level=level) for data in files for level in (0, 1)]


def repaired(data: bytes) -> bytes:
    """The input with magic, version, lengths and checksums made right; section bytes stay."""
    from shacira_nerfstudio.codec.container import is_tag, pack_sections

    if len(data) <= HEAD:
        return data
    end = HEAD + min(int.from_bytes(data[8:12], "little"), len(data) - HEAD)
    entries, rest = _entries(data[HEAD:end]), data[end:]
    sections = []
    for tag, length in entries[:-1]:
        sections.append((tag, rest[:length]))
        rest = rest[length:]
    sections.append((entries[-1][0] if entries else "HEAD", rest))
    if not all(is_tag(tag) for tag, _ in sections):
        return data
    return pack_sections(sections)


def _entries(contents: bytes) -> list[tuple[str, int]]:
    """Tags and lengths, read for as long as there are any."""
    from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError

    entries = []
    reader = ByteReader(contents, "contents")
    with contextlib.suppress(SceneFormatError):
        while reader.num_left and len(entries) < MAX_SECTIONS:
            tag = bytes(reader.take(4, "tag")).decode("latin-1")
            for _ in range(min(reader.varint("number"), MAX_SECTIONS - len(entries))):
                length = reader.varint("length")
                reader.take(4, "CRC-32")
                entries.append((tag, length))
    return entries


def check(data: bytes) -> None:
    """Raises Broken, or whatever the decoder lets through, if a promise is broken."""
    for form in {data, repaired(data)}:
        for allow_truncated in (False, True):
            _check_form(form, allow_truncated)


def _check_form(data: bytes, allow_truncated: bool) -> None:
    from shacira_nerfstudio.codec import SceneFormatError, decode_scene, encode_scene

    answers = []
    for fast in (False, True):
        began, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            answers.append(decode_scene(data, allow_truncated=allow_truncated, fast=fast))
        except SceneFormatError as error:
            answers.append(str(error))
        if fast and time.process_time() - began > MAX_SECONDS:
            raise Broken(f"expected at most {MAX_SECONDS} s")
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held > MAX_KILOBYTES:
            raise Broken(f"expected at most {MAX_KILOBYTES} kB more memory")
    if answers[0] != answers[1]:
        raise Broken(f"expected one answer, got {answers}")
    scene = answers[0]
    # Encoding looks for the best models, which is slow: only what is small goes around.
    if not isinstance(scene, str) and not allow_truncated and scene.grid.num_entries < 1 << 14:
        if decode_scene(encode_scene(scene)) != scene:
            raise Broken("expected to decode what was encoded")


def main() -> None:
    import atheris  # pyright: ignore[reportMissingImports]

    # Bytecode that numba compiles must stay as it is.
    codec = pathlib.Path(__file__).parents[2] / "shacira_nerfstudio" / "codec"
    compiled = [
        f"shacira_nerfstudio.codec.{path.parent.name}.{path.stem}"
        for path in codec.glob("*/*_numba.py")
    ]
    with atheris.instrument_imports(include=["shacira_nerfstudio"], exclude=compiled):
        import shacira_nerfstudio.codec
    assert shacira_nerfstudio.codec
    for folder in [argument for argument in sys.argv[1:] if not argument.startswith("-")][:1]:
        path = pathlib.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (path / f"seed{number}").write_bytes(seed)
    for seed in seeds():  # compiles what is compiled, so that it does not count
        with contextlib.suppress(Broken):
            check(seed)
    atheris.Setup([*sys.argv, f"-max_len={MAX_LENGTH}"], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
