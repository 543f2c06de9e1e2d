"""The viewer in a real browser: the picture of the library, controls, windows of other shapes."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image
from synthetic_ball import make_ball
from view_client import serving

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import encode_scene
from shacira_nerfstudio.compression.pack import unpack_scene
from shacira_nerfstudio.viewer.live.session import Session
from shacira_nerfstudio.viewer.live.shown_scene import ShownScene

pytestmark = pytest.mark.browser
IN_PLACE = "() => document.body.innerText.includes('pixels in')"
COUNT = """
window.numImages = window.numDrawn = 0;
const { clear } = WebGL2RenderingContext.prototype;
WebGL2RenderingContext.prototype.clear = function (...values) {
  window.numDrawn++;
  return clear.apply(this, values);
};
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
def shown(monkeypatch):
    """What was asked for by each picture of a camera that rests, as it is finished."""
    requests, show = [], Session.show_picture

    def note(session, request, picture, *, is_last):
        if is_last:
            requests.append(request)
        show(session, request, picture, is_last=is_last)

    monkeypatch.setattr(Session, "show_picture", note)
    return requests


@contextlib.contextmanager
def window(chromium, port):
    """A window on the viewer; what it throws, or asks of other machines, fails the test."""
    context = chromium.new_context(viewport={"width": 640, "height": 480})
    page, complaints = context.new_page(), []
    page.add_init_script(COUNT)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda response: complaints.append(response.url))
    page.goto(f"http://127.0.0.1:{port}")
    page.wait_for_function(IN_PLACE, timeout=60_000)
    yield page
    context.close()
    own = (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}", "blob:", "data:")
    assert [complaint for complaint in complaints if not complaint.startswith(own)] == []


@pytest.fixture
def port(tmp_path, packed, shown):
    with serving(tmp_path, [encode_scene(packed)], first_side="512") as port:
        yield port


@pytest.fixture
def page(chromium, port):
    with window(chromium, port) as page:
        yield page


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


def expected(packed, request, num_levels):
    """The library's picture of what a window shows, [480, 640, 3]."""
    scene = unpack_scene(packed, get_backend("auto", "cpu"))
    scene.encoding.max_level = num_levels
    space = ShownScene(packed, lambda: None).camera_space()
    return scene.render_view(space.camera(request.pose, 640, 480)).numpy()


def psnr(found, expected):
    """Beside the panel."""
    part = np.s_[60:420, 20:260]
    return -10 * np.log10(((found[part] / 255 - expected[part]) ** 2).mean())


def drag(page):
    page.mouse.move(150, 240)
    page.mouse.down()
    page.mouse.move(170, 244, steps=8)
    page.mouse.up()


LEAST_PSNR = 24  # of noise that was drawn with other pixels


def test_mouse_and_slider_end_in_the_library_s_picture(page, packed, shown):
    first = expected(packed, shown[-1], 3)
    assert first[60:420, 20:260].std() > 0.1
    assert psnr(screenshot(page), first) > LEAST_PSNR
    wait_for_picture(page, lambda: drag(page))
    assert shown[-1].pose != shown[0].pose
    turned, coarse = (expected(packed, shown[-1], levels) for levels in (3, 1))
    found = screenshot(page)
    assert psnr(found, turned) > LEAST_PSNR > max(psnr(found, first), psnr(found, coarse)) + 3
    levels = page.locator(".mantine-NumberInput-input").first
    wait_for_picture(page, lambda: levels.fill("1"))
    found = screenshot(page)
    assert psnr(found, coarse) > LEAST_PSNR > psnr(found, turned) + 3


def test_a_second_window_and_one_that_is_killed_do_no_harm(page, chromium, port):
    before = screenshot(page)
    with window(chromium, port) as other:
        wait_for_picture(other, lambda: drag(other))
        assert psnr(screenshot(other), before / 255) < LEAST_PSNR
    killed = chromium.new_context().new_page()
    killed.goto(f"http://127.0.0.1:{port}")
    killed.wait_for_function(IN_PLACE, timeout=60_000)
    crash = chromium.contexts[-1].new_cdp_session(killed)
    with contextlib.suppress(Exception):  # nobody is left to answer
        crash.send("Page.crash", timeout=1)
    assert psnr(screenshot(page), before / 255) > 40
    wait_for_picture(page, lambda: drag(page))


def test_the_page_draws_only_what_is_new(page):
    numbers = page.evaluate("""() => new Promise((done) => {
      const start = performance.now(), before = window.numDrawn;
      let left = 60;
      const tick = () => {
        if (left--) requestAnimationFrame(tick);
        else done([window.numDrawn - before, performance.now() - start]);
      };
      requestAnimationFrame(tick);
    })""")
    num_drawn, milliseconds = numbers
    assert num_drawn <= milliseconds / 500 + 2  # of 60


def test_a_resized_window_gets_pictures_of_its_shape(page):
    wait_for_picture(page, lambda: page.set_viewport_size({"width": 500, "height": 700}))
    text = page.evaluate("() => document.body.innerText")
    assert "366 x 512 pixels" in text
