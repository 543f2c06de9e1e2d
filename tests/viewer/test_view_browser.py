"""The viewer in a real browser: the picture of the library, controls, windows of other shapes."""

import io

import numpy as np
import pytest
from PIL import Image
from synthetic_ball import make_ball
from view_client import serving

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import encode_scene
from shacira_nerfstudio.compression.pack import unpack_scene
from shacira_nerfstudio.viewer.live.camera_space import ViewPose
from shacira_nerfstudio.viewer.live.shown_scene import ShownScene

pytestmark = pytest.mark.browser
IN_PLACE = "() => document.body.innerText.includes('pixels in')"
COUNT_IMAGES = """
window.numImages = 0;
const create = URL.createObjectURL;
URL.createObjectURL = (blob) => {
  window.numImages += blob.type.startsWith("image/");
  return create.call(URL, blob);
};
"""


@pytest.fixture(scope="module")
def packed():
    return make_ball(log_density=2.0)


@pytest.fixture
def page(chromium, tmp_path, packed):
    """A window on the running viewer; what it throws, or asks of other machines, fails the test."""
    with serving(tmp_path, [encode_scene(packed)]) as port:
        context = chromium.new_context(viewport={"width": 640, "height": 480})
        page, complaints = context.new_page(), []
        page.add_init_script(COUNT_IMAGES)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda response: complaints.append(response.url))
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_function(IN_PLACE, timeout=60_000)
        yield page
        context.close()
    own = (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}", "blob:", "data:")
    assert [complaint for complaint in complaints if not complaint.startswith(own)] == []


def screenshot(page):
    """uint8 [H, W, 3]."""
    return np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def wait_for_picture(page, action):
    """Does something and waits for the finished picture after it."""
    before = page.evaluate("() => window.numImages")
    action()
    page.wait_for_function(f"() => window.numImages > {before}", timeout=60_000)
    page.wait_for_timeout(400)  # by then the panel says whether it is finished
    page.wait_for_function(IN_PLACE, timeout=60_000)
    page.wait_for_timeout(600)  # to be drawn


def test_the_canvas_shows_the_library_s_picture(page, packed):
    found = screenshot(page)
    space = ShownScene(packed, lambda: None).camera_space()
    first = space.pose(space.cameras[0])
    pose = ViewPose(first.wxyz, first.position, first.fov, 640 / 480)
    scene = unpack_scene(packed, get_backend("auto", "cpu"))
    expected = scene.render_view(space.camera(pose, 640, 480)).numpy()
    part = np.s_[60:420, 20:260]  # beside the panel
    error = ((found[part] / 255 - expected[part]) ** 2).mean()
    assert expected[part].std() > 0.1
    assert -10 * np.log10(error) > 24  # of noise that was drawn with other pixels


def test_the_mouse_turns_the_scene_and_a_slider_takes_levels_away(page):
    before = screenshot(page)

    def drag():
        page.mouse.move(150, 240)
        page.mouse.down()
        page.mouse.move(170, 244, steps=8)
        page.mouse.up()

    wait_for_picture(page, drag)
    turned = screenshot(page)
    assert np.abs(turned[60:420, 20:260].astype(int) - before[60:420, 20:260]).mean() > 5
    levels = page.locator(".mantine-NumberInput-input").first
    wait_for_picture(page, lambda: levels.fill("1"))
    coarse = screenshot(page)
    assert np.abs(turned[60:420, 20:260].astype(int) - coarse[60:420, 20:260]).mean() > 3


def test_a_resized_window_gets_pictures_of_its_shape(page):
    wait_for_picture(page, lambda: page.set_viewport_size({"width": 500, "height": 700}))
    text = page.evaluate("() => document.body.innerText")
    assert "731 x 1024 pixels" in text
