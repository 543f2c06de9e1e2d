"""Nerfstudio's own viewer in a browser: while training, and from the folder that it exports."""

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.nerfstudio]
FOV_DEGREES = 75  # of viser's camera, from top to bottom
TIMEOUT_S = 180  # machines may be busy
WIDTH, HEIGHT = 1000, 700  # of the browser's window
HEADER, PANEL = 51, 320  # pixels of it that are no picture, at the top and on the right
TINY = [
    *("--pipeline.model.grid.num-levels", "4", "--pipeline.model.grid.max-res", "64"),
    *("--pipeline.model.grid.log2-hashmap-size", "10"),
    *("--pipeline.model.sampling.occupancy-resolution", "32"),
    *("--pipeline.model.sampling.steps-across-box", "128"),
    *("--pipeline.model.sampling.target-num-samples", "8192"),
    *("--pipeline.model.networks.hidden-dim", "16"),
]


@contextlib.contextmanager
def serving(command, *arguments, log):
    """Runs a command of the host until its viewer answers; gives the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = str(Path(sys.executable).parent / command)
    viewer = ["--viewer.websocket-host", "127.0.0.1", "--viewer.websocket-port", str(port)]
    # As JPEG the host sends one and the same picture in two qualities, which it does not name.
    viewer += ["--viewer.image-format", "png"]
    first, *rest = arguments
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "TERM": "dumb"}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [script, *first, *viewer, *rest], stdout=sink, stderr=subprocess.STDOUT, env=environment
        )
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class ViewerPage:
    """What a person does with the viewer."""

    def __init__(self, chromium, address):
        self.page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        self.page.set_default_timeout(1000 * TIMEOUT_S)
        self.page.goto(address)
        self.wait_for("View from first camera")
        self.press("Hide Train Cams")

    def wait_for(self, text):
        self.page.get_by_text(text).first.wait_for()

    def press(self, name):
        self.page.get_by_role("button", name=name).click()

    def text(self):
        return self.page.inner_text("body")

    def step(self):
        return int(re.search(r"Step ([\d,]+)\n", self.text())[1].replace(",", ""))

    def wait_for_step(self, step):
        deadline = time.monotonic() + TIMEOUT_S
        while self.step() < step:
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.5)

    def choose(self, label, option):
        self.page.get_by_label(label, exact=True).first.click()
        self.page.get_by_role("option", name=option, exact=True).first.click()

    def set_number(self, label, value):
        """Of a slider: the field beside it."""
        row = self.page.get_by_text(label, exact=True).last
        field = row.locator("xpath=following::input[@type='text'][1]")
        field.fill(str(value))
        field.press("Enter")

    def picture(self):
        """The picture once it is refined and rests, [H, W, 3]."""
        deadline, before = time.monotonic() + TIMEOUT_S, b""
        part = {"x": 0, "y": HEADER, "width": WIDTH - PANEL, "height": HEIGHT - HEADER}
        while time.monotonic() < deadline:
            time.sleep(0.7)
            now = self.page.screenshot(clip=part)
            if now == before and re.search(r"Resolution: 512x\d+px", self.text()):
                pixels = np.asarray(Image.open(io.BytesIO(now)).convert("RGB"))
                return pixels / 255
            before = now
        raise AssertionError("the picture does not come to rest")

    def picture_that(self, holds):
        """The picture once something holds of it; the last one at the end of all patience.

        The host begins to draw some time after a control was moved, and says so to nobody.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while not holds(found := self.picture()) and time.monotonic() < deadline:
            pass
        return found

    def drag(self):
        """Moves the camera."""
        x, y = (WIDTH - PANEL) / 2, (HEADER + HEIGHT) / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + 120, y + 40, steps=5)
        self.page.mouse.up()


def psnr(a, b):
    """Of pictures [H, W, 3], but for a border, where the host draws axes."""
    border = len(a) // 6
    inner = [picture[border:-border, border:-border] for picture in (a, b)]
    return -10 * np.log10(np.square(inner[0] - inner[1]).mean())


def shows(own, *, rather_than):
    """A test for pictures."""
    return lambda shown: psnr(shown, own) > max(25, psnr(shown, rather_than) + 3)


def render(path, num_levels, size):
    """What the library shows from the first camera of a file, as the viewer stands there."""
    from shacira_nerfstudio.backends import get_backend
    from shacira_nerfstudio.codec import load_scene
    from shacira_nerfstudio.compression.pack import unpack_scene
    from shacira_nerfstudio.model.scene import PinholeCamera

    packed = load_scene(path)
    scene = unpack_scene(packed, get_backend("auto", "cpu"))
    scene.encoding.max_level = num_levels
    pose = packed.cameras.camera_to_worlds[0]
    forward, position = -pose[:, 2], pose[:, 3] - 0.05 * pose[:, 2]
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    upright = np.stack([right, np.cross(right, forward), -forward, position], 1)
    height, width = size
    focal = height / 2 / np.tan(np.radians(FOV_DEGREES / 2))
    camera = PinholeCamera(upright, focal, focal, width / 2, height / 2, width, height)
    return scene.render_view(camera).numpy()


@pytest.fixture(scope="module")
def exported(chromium, tmp_path_factory):
    """A folder that was exported by a button while training went on."""
    from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

    folder = tmp_path_factory.mktemp("host")
    write_demo_scene(folder / "scene", num_views=9, size=32)
    options = ["--vis", "viewer", "--max-num-iterations", "100000", "--output-dir", str(folder)]
    options += ["--experiment-name", "e", "--timestamp", "t", *TINY]
    data = ["rtmv-data", "--data", str(folder / "scene")]
    log = folder / "train.log"
    with serving("ns-train", ["shacira", *options], *data, log=log) as address:
        page = ViewerPage(chromium, address)
        page.wait_for("PSNR of the last 32 batches")
        page.wait_for("File, estimated")
        page.wait_for_step(300)  # until there is something to see
        page.set_number("Levels", 2)
        page.drag()
        page.choose("Output type", "bits")
        page.press("Export now")
        page.wait_for("written and verified")
        page.wait_for_step(page.step() + 20)  # training goes on
        text = page.text()
        page.page.screenshot(path=folder / "training.png")
        page.page.close()
    (file,) = (folder / "e" / "shacira" / "t" / "exports").glob("*/scene.shacira")
    assert f"{file.stat().st_size:,} bytes, written" in text.replace("\n", " ")
    return file.parent


def test_viewer_of_a_training_run(exported):
    from shacira_nerfstudio.codec import load_scene, verify

    verify((exported / "scene.shacira").read_bytes())
    assert load_scene(exported / "scene.shacira").meta["step"] >= 300
    colors = np.asarray(Image.open(exported.parents[4] / "training.png").convert("RGB"))
    assert len(np.unique(colors[100:600, 50:650].reshape(-1, 3), axis=0)) > 100


def test_viewer_of_an_exported_folder(exported, chromium, tmp_path):
    path = exported / "scene.shacira"
    options = ["--load-config", str(exported / "config.yml")]
    with serving("ns-viewer", options, log=tmp_path / "viewer.log") as address:
        page = ViewerPage(chromium, address)
        page.wait_for("decoded: ")
        assert f"{path.stat().st_size:,} bytes" in page.text()
        size = page.picture().shape[:2]
        fine, coarse = (render(path, levels, size) for levels in (4, 1))
        whole = page.picture_that(shows(fine, rather_than=coarse))
        assert shows(fine, rather_than=coarse)(whole)
        page.set_number("Levels", 1)
        assert shows(coarse, rather_than=fine)(page.picture_that(shows(coarse, rather_than=fine)))
        page.page.screenshot(path=tmp_path / "coarse.png")
        page.set_number("Levels", 4)
        assert psnr(page.picture_that(lambda shown: psnr(shown, whole) > 35), whole) > 35
        page.drag()
        assert psnr(page.picture_that(lambda shown: psnr(shown, whole) < 25), whole) < 25
        page.press("Export now")
        page.wait_for("comes from a file already")
        page.page.close()
