"""Measures each way to look at a file as somebody in front of the screen would: from a command or a
click to what is seen of it."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shacira_nerfstudio.bench import environment
from shacira_nerfstudio.bench.viewers.browser import NOTE_PAGE, NOTE_PICTURES, chromium, tab
from shacira_nerfstudio.bench.viewers.limits import within
from shacira_nerfstudio.codec import load_scene
from shacira_nerfstudio.output_files import write_file

SIDE = 512
"""Pixels of a picture's sides."""
WINDOW = 640
"""Pixels of the viewer's window, which shows a picture of ``SIDE``: in one as small as that viser
folds its panel away, and with it what is read here."""
DRAG_SECONDS, LEAD_SECONDS = 6.0, 1.5
"""How long the camera is turned, and how much of that passes before frames are counted: until then
the viewer learns how many pixels it can afford."""
_PACKAGE = __name__.partition(".")[0]
_STEP_SECONDS = 0.03
_PATIENCE = 60.0
"""Seconds, after which there is something wrong."""
_QUIET_SECONDS = 1.5
ORBIT = ("--orbit", "--frames", "100", "--width", "400", "--height", "400")

BARS: dict[str, tuple[float, float | None]] = {
    "view: first picture [s]": (-5, -5),
    "view: frames/s while moving": (8, 8),
    f"view: {SIDE} x {SIDE} at full quality after rest [s]": (-2, -6),
    "html: decoded [s]": (-3, -8),
    "html: bytes over 1.4 x file + 60 kB": (-1, -1),
    "render: 100 frames of an orbit at 400 x 400 [s]": (-90, None),
}
"""By name what is asked of a lone object and of a capture; negative: at the most. What nothing is
asked of is measured only if it is named."""
Figures = dict[str, float]


def measure_viewers(
    files: Sequence[Path], output: Path | None, only: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """See `shacira bench viewers --help`.

    Returns:
        A dictionary per file, as it is written.
    """
    unknown = sorted(set(only) - set(WAYS))
    if unknown:
        raise ValueError(f"expected ways of {', '.join(WAYS)}, got {', '.join(unknown)}")
    rows = []
    for file in files:
        rendering = load_scene(file).rendering
        if rendering is None:
            raise ValueError(f"expected a radiance field in {file}, got another kind of file")
        is_capture = rendering.contraction != "affine"
        figures: Figures = {}
        for name in only or [way for way in WAYS if not is_capture or way != "render"]:
            figures.update(WAYS[name](file))
        rows.append(_row(file, figures, is_capture=is_capture))
        print(_text(rows[-1]), flush=True)
    if output is not None:
        write_file(output, "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows))
    return rows


def _row(file: Path, figures: Figures, *, is_capture: bool) -> dict[str, Any]:
    bars = {name: BARS[name][is_capture] for name in figures.keys() & BARS.keys()}
    return {
        "file": file.name,
        "file_bytes": file.stat().st_size,
        "is_capture": is_capture,
        "figures": figures,
        "bars": bars,
        "missed": [name for name, bar in bars.items() if bar and _misses(figures[name], bar)],
        "date": environment.date(),
        "commit": environment.commit(),
        "machine": environment.machine(),
    }


def _misses(value: float, bar: float) -> bool:
    return value > -bar if bar < 0 else value < bar


def _text(row: dict[str, Any]) -> str:
    lines = [f"{row['file']}: {row['file_bytes']:,} bytes; {row['machine']}"]
    for name, value in row["figures"].items():
        bar = row["bars"].get(name)
        words = f"at {'most' if bar < 0 else 'least'} {abs(bar):g}" if bar else ""
        mark = "MISSED" if name in row["missed"] else "ok" if bar else ""
        lines.append(f"  {name:<52} {value:9.2f}  {words:<12} {mark}".rstrip())
    return "\n".join(lines)


# ── shacira view ──


def measure_view(file: Path) -> Figures:
    """The viewer's command, a browser that is already open, a mouse that turns the scene."""
    options = {"width": WINDOW, "height": WINDOW, "note": NOTE_PICTURES}
    with _page(**options) as page:
        start = time.time()
        with _command("view", str(file), "--port", "0") as process:
            assert process.stdout is not None
            with within(_PATIENCE, "the viewer's address"):
                line = process.stdout.readline()
            if not line.startswith("http"):
                raise RuntimeError(f"expected the viewer's address, got {line!r}")
            listening = time.time() - start
            with within(_PATIENCE, "the viewer's page"):
                page.goto(line.split()[0], wait_until="commit", timeout=0)
            with within(_PATIENCE, "the viewer's first picture"):
                page.wait_for_function("() => window.pictures.length > 0", timeout=0)
                first = page.evaluate("() => window.pictures[0].at") - start
            _wait_for_rest(page)
            with within(_PATIENCE, f"a choice of {SIDE} pixels"):
                _choose_resolution(page)
            frames, moved, rested = _drag_and_rest(page)
    return {
        "view: listens [s]": listening,
        "view: first picture [s]": first,
        "view: frames/s while moving": len(frames) / moved,
        "view: side of these frames": _median_side(frames),
        f"view: {SIDE} x {SIDE} at full quality after rest [s]": rested,
    }


@contextmanager
def _page(**options: Any) -> Iterator[Any]:
    """A tab of a browser of its own, see :func:`tab`, which is ended even if it hangs."""
    stack = contextlib.ExitStack()
    try:
        with within(_PATIENCE, "a browser"):
            browser = stack.enter_context(chromium())
            page = stack.enter_context(tab(browser, **options))
            page.goto("about:blank", timeout=0)
        yield page
    finally:
        with within(_PATIENCE, "the end of the browser"):
            stack.close()


def _choose_resolution(page: Any) -> None:
    """Asks for as many pixels as the window has."""
    page.get_by_label("Resolution").first.click()
    page.get_by_role("option", name=str(SIDE), exact=True).click()
    page.wait_for_function(
        f"() => document.body.innerText.includes('{SIDE} x {SIDE} pixels in')", timeout=0
    )
    _wait_for_rest(page)


def _wait_for_rest(page: Any) -> None:
    """Until the panel says that the picture is finished, and no other comes."""
    seen, since = -1, time.time()
    with within(_PATIENCE, "a finished picture"):
        while True:
            count, is_done = page.evaluate(
                "() => [window.pictures.length, document.body.innerText.includes('pixels in')]"
            )
            if count != seen:
                seen, since = count, time.time()
            if is_done and time.time() - since > _QUIET_SECONDS:
                return
            time.sleep(0.2)  # looking takes time, too


def _drag_and_rest(page: Any) -> tuple[list[dict[str, float]], float, float]:
    """Turns the scene for some time and lets go: the frames that were counted, the seconds in which
    they were shown, and the seconds from the last movement to the last picture."""
    with within(DRAG_SECONDS + _PATIENCE, "a scene that turns"):
        counted, end = _drag(page)
    page.wait_for_timeout(300)  # by then the next picture has begun
    _wait_for_rest(page)
    with within(_PATIENCE, "what was noted of pictures"):
        pictures = page.evaluate("() => window.pictures")
    frames = [p for p in pictures if counted <= p["at"] <= end]
    last = pictures[-1]
    if (last["width"], last["height"]) != (SIDE, SIDE) or last["at"] < end:
        found = f"{len(frames)} frames, then {last['width']} x {last['height']} pixels"
        raise RuntimeError(
            f"expected frames while dragging and {SIDE} x {SIDE} pixels after it, got {found} "
            f"{last['at'] - end:.1f} s after it"
        )
    return frames, end - counted, last["at"] - end


def _drag(page: Any) -> tuple[float, float]:
    """Turns the scene with the mouse: when frames count, and when the last movement was."""
    x, y, radius = 0.17 * SIDE, 0.5 * SIDE, 0.1 * SIDE  # beside the panel
    page.mouse.move(x + radius, y)
    page.mouse.down()
    start = time.time()
    while (now := time.time() - start) < DRAG_SECONDS:
        angle = 2 * math.pi * now / 3
        page.mouse.move(x + radius * math.cos(angle), y + 0.3 * radius * math.sin(angle))
        time.sleep(_STEP_SECONDS)
    end = time.time()
    page.mouse.up()
    return start + LEAD_SECONDS, end


def _median_side(frames: Sequence[dict[str, float]]) -> float:
    """Of frames that were counted; 0 if none was, on a machine that does something else."""
    return statistics.median(f["width"] for f in frames) if frames else 0.0


# ── shacira html ──


def measure_html(file: Path) -> Figures:
    """The page of a file, opened from disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.html"
        with _command("html", str(file), "-o", str(path)) as process:
            with within(_PATIENCE, "a page that is written"):
                process.communicate()
        if process.returncode:
            raise RuntimeError(f"expected a page, got exit status {process.returncode}")
        num_bytes = path.stat().st_size
        options = {"width": SIDE, "height": SIDE, "note": NOTE_PAGE, "offline": True}
        with _page(**options) as page:
            with within(_PATIENCE, "a page that has decoded its file"):
                page.goto(path.as_uri(), timeout=0)
                page.wait_for_function("() => window.noted.decoded", timeout=0)
                error = page.evaluate("() => document.documentElement.dataset.error")
            if error:
                raise RuntimeError(f"expected a page that is whole, got: {error}")
            with within(_PATIENCE, "the first picture of a page"):
                page.wait_for_function("() => window.noted.first", timeout=0)
            is_sharp = _becomes_sharp(page)
            with within(DRAG_SECONDS + _PATIENCE, "a page that turns"):
                noted = page.evaluate("() => window.noted")
                origin = page.evaluate("() => performance.timeOrigin / 1000")
                counted, end = _drag(page)
                page.evaluate("() => { window.noted.sharp = null }")
            is_sharp_again = _becomes_sharp(page)
            with within(_PATIENCE, "what was noted of frames"):
                after = page.evaluate("() => window.noted")
    frames = [f for f in after["frames"] if counted <= f["at"] + origin <= end]
    figures = {
        "html: bytes over 1.4 x file + 60 kB": num_bytes / (1.4 * file.stat().st_size + 60_000),
        "html: first picture [s]": noted["first"],
        "html: decoded [s]": noted["decoded"],
        "html: frames/s while moving": len(frames) / (end - counted),
        "html: side of these frames": _median_side(frames),
    }
    if is_sharp:
        figures["html: finest picture [s]"] = noted["sharp"]
    if is_sharp_again:
        figures["html: finest picture after rest [s]"] = after["sharp"] + origin - end
    return figures


def _becomes_sharp(page: Any) -> bool:
    """Waits for the finest picture of a page, but not for long: without a GPU it may take minutes,
    and nothing is asked of it."""
    with within(_PATIENCE, "an answer of a page"):
        end = time.time() + _PATIENCE / 3
        while time.time() < end:
            if page.evaluate("() => Boolean(window.noted.sharp)"):
                return True
            time.sleep(0.2)
    return False


# ── shacira render ──


def measure_render(file: Path) -> Figures:
    """The command that makes pictures of an orbit."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        with _command("render", str(file), *ORBIT, "-o", folder) as process:
            with within(5 * _PATIENCE, "100 pictures"):
                process.communicate()
        seconds = time.time() - start
        count = len(list(Path(folder).glob("*.png")))
    if process.returncode or count != 100:
        raise RuntimeError(f"expected 100 pictures, got {count}, status {process.returncode}")
    return {"render: 100 frames of an orbit at 400 x 400 [s]": seconds}


WAYS: dict[str, Callable[[Path], Figures]] = {
    "view": measure_view,
    "html": measure_html,
    "render": measure_render,
}
"""By the name of their command."""


@contextmanager
def _command(*arguments: str) -> Any:
    """`shacira` in a process of its own, which is ended with the block."""
    command = [sys.executable, "-m", f"{_PACKAGE}.cli.main", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
