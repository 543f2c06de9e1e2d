"""The viewer in a real browser: the picture of the library, controls, windows of other shapes."""

import contextlib
import io
import time

import numpy as np
import pytest
from PIL import Image
from synthetic_ball import make_ball
from view_client import LIMIT_S, serving

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import encode_scene
from shacira_nerfstudio.compression.pack import unpack_scene
from shacira_nerfstudio.viewer.live.session import Session
from shacira_nerfstudio.viewer.live.shown_scene import ShownScene

pytestmark = pytest.mark.browser
WIDTH, HEIGHT = 960, 480
BESIDE_THE_PANEL = np.s_[60:420, 120:580]
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


@pytest.fixture(scope="module")
def shown():
    """What was asked for by each picture of a camera that rests, as it is finished."""
    requests, show = [], Session.show_picture

    def note(session, request, picture, *, is_last):
        if is_last:
            requests.append(request)
        show(session, request, picture, is_last=is_last)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Session, "show_picture", note)
        yield requests


@contextlib.contextmanager
def window(chromium, port):
    """A window on the viewer; what it throws, or asks of other machines, fails the test."""
    context = chromium.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(1000 * LIMIT_S)
    page, complaints = context.new_page(), []
    page.add_init_script(COUNT)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda response: complaints.append(response.url))
    page.goto(f"http://127.0.0.1:{port}")
    page.wait_for_function(IN_PLACE)
    yield page
    context.close()
    own = (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}", "blob:", "data:")
    assert [complaint for complaint in complaints if not complaint.startswith(own)] == []


@pytest.fixture(scope="module")
def port(tmp_path_factory, packed, shown):
    folder = tmp_path_factory.mktemp("view")
    with serving(folder, [encode_scene(packed)], first_side="512") as port:
        yield port


@pytest.fixture(scope="module")
def page(chromium, port):
    """One for all tests, for it takes seconds to open."""
    with window(chromium, port) as page:
        yield page


def screenshot(page):
    """uint8 [H, W, 3]."""
    return np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def picture(page, holds=lambda found: True):
    """What a window shows once it rests and something holds of it; at the end of all patience, what
    it shows then. When the browser has drawn what came, nothing tells."""
    end, found = time.monotonic() + LIMIT_S, screenshot(page)
    while time.monotonic() < end:
        before = found
        page.wait_for_timeout(500)  # the page draws more often than that
        page.wait_for_function(IN_PLACE)
        found = screenshot(page)
        if np.array_equal(found, before) and holds(found):
            break
    return found


def wait_for_picture(page, action):
    """Does something and waits for the first picture after it."""
    before = page.evaluate("() => window.numImages")
    action()
    page.wait_for_function(f"() => window.numImages > {before}")


def expected(packed, request, num_levels):
    """The library's picture of what a window shows, [HEIGHT, WIDTH, 3]."""
    scene = unpack_scene(packed, get_backend("auto", "cpu"))
    scene.encoding.max_level = num_levels
    space = ShownScene(packed, lambda: None).camera_space()
    return scene.render_view(space.camera(request.pose, WIDTH, HEIGHT)).numpy()


def psnr(found, expected):
    part = BESIDE_THE_PANEL
    return -10 * np.log10(((found[part] / 255 - expected[part]) ** 2).mean())


def drag(page, pixels=20):
    page.mouse.move(150, 240)
    page.mouse.down()
    page.mouse.move(150 + pixels, 244, steps=8)
    page.mouse.up()


LEAST_PSNR = 31  # of noise that was drawn with other pixels


def is_like(packed, shown, num_levels):
    """A test for screenshots: whether they are the library's picture of what was asked for last."""
    return lambda found: psnr(found, expected(packed, shown[-1], num_levels)) > LEAST_PSNR


def test_mouse_and_slider_end_in_the_library_s_picture(page, packed, shown):
    first = expected(packed, shown[-1], 3)
    assert first[BESIDE_THE_PANEL].std() > 0.1
    is_fine, is_coarse = (is_like(packed, shown, levels) for levels in (3, 1))
    assert is_fine(picture(page, is_fine))
    wait_for_picture(page, lambda: drag(page))
    found = picture(page, lambda found: shown[-1].pose != shown[0].pose and is_fine(found))
    assert is_fine(found) and not is_coarse(found)
    coarse = expected(packed, shown[-1], 1)
    assert max(psnr(found, first), psnr(found, coarse)) + 3 < LEAST_PSNR
    levels = page.locator(".mantine-NumberInput-input").first
    wait_for_picture(page, lambda: levels.fill("1"))
    found = picture(page, is_coarse)
    assert is_coarse(found)
    assert psnr(found, expected(packed, shown[-1], 3)) + 3 < LEAST_PSNR


def test_a_second_window_and_one_that_is_killed_do_no_harm(page, chromium, port):
    before = picture(page)
    with window(chromium, port) as other:
        wait_for_picture(other, lambda: drag(other, 90))
        assert psnr(picture(other), before / 255) < LEAST_PSNR
    killed = chromium.new_context().new_page()
    killed.set_default_timeout(1000 * LIMIT_S)
    killed.goto(f"http://127.0.0.1:{port}")
    killed.wait_for_function(IN_PLACE)
    crash = chromium.contexts[-1].new_cdp_session(killed)
    with contextlib.suppress(Exception):  # nobody is left to answer
        crash.send("Page.crash", timeout=1)
    assert psnr(screenshot(page), before / 255) > 40
    wait_for_picture(page, lambda: drag(page))


def test_the_page_draws_only_what_is_new(page):
    picture(page)
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
    page.wait_for_function("() => document.body.innerText.includes('366 x 512 pixels')")
