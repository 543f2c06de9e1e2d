"""What the page draws is what the library renders, and nothing that a viewer does breaks it."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from strategies import random_poses

from shacira_nerfstudio.codec import CameraSet, PackedScene, RenderSettings, encode_scene
from shacira_nerfstudio.compression.pack import (
    quantize_weight,
    stored_cameras,
    unpack_scene,
    without_unreached,
)
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.scene import PinholeCamera
from shacira_nerfstudio.viewer.html import make_page

pytestmark = pytest.mark.browser

LEAST_PSNR = 40.0
CASES = {
    "affine": {},
    # Steps that grow, a background of its own for each ray, two layers of colour.
    "contracted": {
        "contraction": "contracted",
        "knee": 1.5,
        "step_size": 0.03,
        "background": "last_sample",
        "latent_dim": 2,
        "sizes": {"hidden_dim": 20, "geo_feat_dim": 6, "num_color_layers": 2, "sh_degree": 3},
    },
    # Latents that take two bytes, three to an entry; sides and axes of the grid that differ.
    "wide": {
        "latent_dim": 3,
        "largest": 300,
        "base_res": (3, 5, 4),
        "max_res": (30, 41, 22),
        "knee": 3.0,
        "background": "color",
        "sizes": {"hidden_dim": 5, "geo_feat_dim": 2, "num_color_layers": 3, "sh_degree": 1},
    },
}
SIZES = {"hidden_dim": 16, "geo_feat_dim": 5, "num_color_layers": 1, "sh_degree": 4}


def random_weights(grid, latent_dim, largest, sizes):
    """Networks that make clouds and solid things, of all colours."""
    width, geometry = sizes["hidden_dim"], sizes["geo_feat_dim"]
    widths = {
        "density_mlp": [grid.num_levels * latent_dim, width, 1 + geometry],
        "color_mlp": [
            sizes["sh_degree"] ** 2 + geometry,
            *[width] * sizes["num_color_layers"],
            3,
        ],
    }
    weights = {}
    for network, layers in widths.items():
        for i, (inputs, outputs) in enumerate(zip(layers, layers[1:], strict=False)):
            scale = 3 / largest if network == "density_mlp" and i == 0 else 2
            weight = torch.randn(outputs, inputs) * scale / inputs**0.5
            weights[f"{network}.{i}.weight"] = quantize_weight(weight, 8)
            bias = torch.randn(outputs) * 0.3
            if network == "density_mlp" and i == 1:
                bias[0] = 2.0  # of the log density: there is much to see
            weights[f"{network}.{i}.bias"] = quantize_weight(bias, 8, per_row=False)
    return weights


def random_scene(
    *, contraction="affine", knee=0.0, step_size=0.02, background="white", latent_dim=1, largest=3,
    base_res=4, max_res=40, sizes=SIZES,
):  # fmt: skip
    """A scene of noise in a few blobs; levels are dense and hashed."""
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    grid = GridSpec.create(num_levels=6, base_res=base_res, max_res=max_res, log2_hashmap_size=10)
    cells = np.zeros((16, 16, 16), bool)
    for x, y, z in rng.integers(4, 11, (6, 3)):
        cells[x : x + 2, y : y + 3, z : z + 1] = True
    cells[0, :, 3] = contraction == "contracted"  # far away
    rendering = RenderSettings(
        contraction=contraction,
        box=np.array([[-1, -0.5, -1.2], [1, 1.5, 0.8]], np.float32),
        near=0.05,
        far=60.0,
        step_size=step_size,
        knee=knee,
        background=background,
        background_color=(0.2, 0.4, 0.9),
        early_stop=1e-4,
    )
    poses = random_poses(3)
    centre, ahead = rendering.box.mean(0), -poses[:, :, 2]
    poses[:, :, 3] = centre - np.array([[2.5], [1.6], [0.4]], np.float32) * ahead
    cameras = CameraSet(
        camera_to_worlds=poses,
        intrinsics=np.tile(np.array([90, 80, 50, 40], np.float32), (3, 1)),
        sizes=np.tile(np.array([96, 96], np.uint32), (3, 1)),
    )
    shape = (grid.num_entries, latent_dim)
    symbols = rng.integers(-largest, largest + 1, shape).astype(np.int16)
    return PackedScene(
        kind="radiance_field",
        architecture=sizes,
        grid=grid,
        symbols=without_unreached(grid, symbols, cells),
        occupancy=cells,
        weights=random_weights(grid, latent_dim, largest, sizes),
        rendering=rendering,
        cameras=cameras,
    )


def psnr(found, expected):
    return -10 * np.log10(np.mean((found - expected) ** 2))


def view_of(camera, **more):
    return {
        "cameraToWorld": camera.camera_to_world.flatten().tolist(),
        **{name: getattr(camera, name) for name in ("fx", "fy", "cx", "cy", "width", "height")},
        **more,
    }


def render_at(page, camera, **more):
    """Pixels [H, W, 4] that the page draws for a camera."""
    script = "async (view) => Array.from((await shacira.renderAt(view)).pixels)"
    pixels = np.array(page.evaluate(script, view_of(camera, **more)), np.float32)
    return pixels.reshape(camera.height, camera.width, 4)


@pytest.fixture
def show(open_page, decoded, tmp_path):
    """Opens a page of a scene and waits until it is decoded."""
    return lambda packed, **sizes: open_ready(open_page, decoded, tmp_path, packed, **sizes)


@pytest.fixture(scope="module")
def shared_page(open_lasting_page, decoded, tmp_path_factory):
    """Of ``random_scene()``, for all tests that only ask or only click, for it takes seconds to
    open."""
    return open_ready(open_lasting_page, decoded, tmp_path_factory.mktemp("page"), random_scene())


def open_ready(open_page, decoded, folder, packed, **sizes):
    path = folder / "page.html"
    path.write_text(make_page(encode_scene(packed)))
    page = open_page(path, **sizes)
    decoded(page)
    page.wait_for_function("shacira.state.phase === 'ready'")
    # One ray per pixel, as the library has, however fast this machine is.
    page.evaluate("() => Object.defineProperty(shacira.page.painter, 'finestScale', {value: 1})")
    return page


def wait_until_sharp(page):
    """Each change of what is to be seen takes this mark away at once."""
    page.wait_for_function("shacira.page.painter.isSharp")


# ── pictures ──


@pytest.mark.parametrize("case", CASES)
def test_page_draws_what_the_library_renders(show, reference, case):
    packed = random_scene(**CASES[case])
    scene, page = unpack_scene(packed, reference), show(packed)
    for camera in stored_cameras(packed.cameras)[:2]:
        expected = scene.render_view(camera).numpy()
        assert expected.std() > 0.05, "there is nothing to see"
        assert psnr(render_at(page, camera)[..., :3], expected) > LEAST_PSNR


def test_depth_and_opacity_are_the_library_s(shared_page, reference):
    packed, page = random_scene(), shared_page
    scene = unpack_scene(packed, reference)
    camera = stored_cameras(packed.cameras)[1]
    rendered = scene.render_rays(*camera.rays())
    found = render_at(page, camera, show="numbers").reshape(-1, 4)
    opacity = rendered.accumulation.numpy()
    assert opacity.max() > 0.9
    np.testing.assert_allclose(found[:, 1], opacity, atol=2e-3)
    solid = opacity > 0.05
    np.testing.assert_allclose(found[solid, 0], rendered.depth.numpy()[solid], atol=2e-3)


def test_fewer_levels_are_those_of_the_library(show, reference):
    packed = random_scene(latent_dim=2)
    page, camera = show(packed), stored_cameras(packed.cameras)[0]
    symbols = packed.symbols.copy()
    symbols[packed.grid.offsets[2] :] = 0
    coarse = unpack_scene(dataclasses.replace(packed, symbols=symbols), reference)
    expected = coarse.render_view(camera).numpy()
    assert psnr(render_at(page, camera, numLevels=2)[..., :3], expected) > LEAST_PSNR
    assert psnr(render_at(page, camera)[..., :3], expected) < LEAST_PSNR


def test_gaps_are_distances_to_the_next_occupied_cell(shared_page):
    page = shared_page
    cells = np.random.default_rng(0).random((7, 9, 5)) < 0.03
    script = "([resolution, flat]) => [...emptyGaps({resolution, cells: Uint8Array.from(flat)})]"
    for occupied in (cells, np.zeros_like(cells)):
        found = page.evaluate(script, [list(cells.shape), occupied.flatten().astype(int).tolist()])
        places = np.argwhere(occupied)
        index = np.stack(np.indices(cells.shape), -1)[..., None, :]
        expected = np.abs(index - places).max(-1).min(-1, initial=255)
        np.testing.assert_array_equal(np.reshape(found, cells.shape), expected)


# ── what a viewer does ──


def picture(page):
    """What stands on the canvas, [H, W, 3] in [0, 1]."""
    png = page.locator("#view").screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32) / 255


def expected_picture(page, scene, **more):
    """The library's picture of what the page's camera looks at."""
    view = page.evaluate(
        "() => { const {page} = shacira, {width, height} = page.canvas;"
        " return {...page.camera.view(width, height), width, height}; }"
    )
    pose = np.array(view["cameraToWorld"], np.float32).reshape(3, 4)
    optics = (view[name] for name in ("fx", "fy", "cx", "cy"))
    return scene.render_view(PinholeCamera(pose, *optics, view["width"], view["height"])).numpy()


def test_drag_wheel_and_slider_end_in_the_sharp_picture(show, reference):
    packed = random_scene()
    scene, page = unpack_scene(packed, reference), show(packed, width=420, height=320)
    wait_until_sharp(page)
    first = picture(page)
    assert psnr(first, expected_picture(page, scene)) > 33  # 8 bits, and smoothing of edges
    page.mouse.move(200, 120)
    page.mouse.down()
    page.mouse.move(260, 140, steps=4)
    page.mouse.up()
    # Not by the mouse: when the page has taken that turn of the wheel, the browser does not say.
    page.evaluate(
        "() => document.querySelector('#view')"
        ".dispatchEvent(new WheelEvent('wheel', {deltaY: -120, cancelable: true}))"
    )
    wait_until_sharp(page)
    turned = picture(page)
    assert psnr(turned, first) < 25
    assert psnr(turned, expected_picture(page, scene)) > 33
    page.locator("#levels").fill("2")
    wait_until_sharp(page)
    assert "2 of 6 levels" in page.locator("#detail").inner_text()
    assert psnr(picture(page), turned) < 30


def test_a_new_size_and_a_lost_context_do_no_harm(show, reference):
    packed = random_scene(latent_dim=2)
    scene, page = unpack_scene(packed, reference), show(packed, width=300, height=240)
    page.set_viewport_size({"width": 330, "height": 260})
    page.wait_for_function("shacira.page.canvas.width === 330")
    page.evaluate(
        "() => { const lost = shacira.page.renderer.gl.getExtension('WEBGL_lose_context');"
        " lost.loseContext(); window.giveBack = () => lost.restoreContext(); }"
    )
    page.wait_for_function("document.querySelector('#status').innerText.includes('driver')")
    page.evaluate("window.giveBack()")
    page.wait_for_function("!document.querySelector('#status').innerText.includes('driver')")
    wait_until_sharp(page)
    assert psnr(picture(page), expected_picture(page, scene)) > 33


def test_cameras_side_by_side_turn_about_what_they_see(show, reference):
    packed = random_scene()
    poses = packed.cameras.camera_to_worlds.copy()
    poses[1:] = poses[0]
    poses[1, :, 3] += 0.1 * poses[0, :, 0]
    poses[2, :, 3] -= 0.4 * poses[0, :, 2]
    cameras = dataclasses.replace(packed.cameras, camera_to_worlds=poses)
    packed = dataclasses.replace(packed, cameras=cameras)
    page, scene = show(packed), unpack_scene(packed, reference)
    page.emulate_media(reduced_motion="reduce")
    for number, camera in enumerate(stored_cameras(packed.cameras)):
        if number:
            page.click("#after")
        page.wait_for_function("shacira.page.camera.isDistanceClear")
        middle = camera.resized(width=24)
        grid = [part.view(24, 24, 3)[6:18, 6:18].reshape(-1, 3) for part in middle.rays()]
        rays = scene.render_rays(*grid)
        expected = float(rays.depth[rays.accumulation > 0.5].median())
        assert page.evaluate("shacira.page.camera.distance") == pytest.approx(expected, rel=0.02)


UPS = """(poses) => {
  const cameras = poses.map((pose) => ({cameraToWorld: pose}));
  return [upAxis(cameras), pointLookedAt(cameras)];
}"""


def test_up_and_what_cameras_look_at_are_the_library_s(shared_page):
    """Rings, arcs of tilted cameras, rows, and cameras that look outward or anywhere."""
    from shacira_nerfstudio.viewer.camera_paths import looking_at, meeting_point
    from shacira_nerfstudio.viewer.live.camera_space import up_axis

    page, rng = shared_page, np.random.default_rng(0)
    up = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
    for span, out in ((6.28, False), (1.5, False), (6.28, True), (0.3, False)):
        places = [(np.cos(a), np.sin(a), 0.7) for a in np.linspace(0, span, 20)]
        places = [np.array(p) + rng.normal(size=3) * 0.02 for p in places]
        poses = np.stack([looking_at(p, 4 * p if out else 0 * p, up) for p in places])
        found_up, found_point = page.evaluate(UPS, poses.reshape(20, 12).tolist())
        np.testing.assert_allclose(found_up, up_axis(poses), atol=1e-4)
        point = meeting_point(poses)
        assert (found_point is None) == (point is None)
        if point is not None:
            np.testing.assert_allclose(found_point, point, atol=1e-6)


def test_buttons_show_stored_views_depth_and_the_card(shared_page):
    page = shared_page
    page.emulate_media(reduced_motion="reduce")
    before = page.evaluate("shacira.page.camera.pose")
    page.click("#after")
    assert page.locator("#where").inner_text() == "View 2 / 3"
    assert not np.allclose(page.evaluate("shacira.page.camera.pose"), before, atol=1e-3)
    page.click("[data-show=depth]")
    assert page.evaluate("shacira.page.options.show") == "depth"
    page.click("#about")
    assert "level 5" in page.locator("#parts").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#card").is_visible()


def test_save_gives_the_very_bytes(shared_page):
    packed, page = random_scene(), shared_page
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.path().read_bytes() == encode_scene(packed)


# ── what cannot be shown ──


def test_a_damaged_file_is_told_in_words(open_page, tmp_path):
    data = bytearray(encode_scene(random_scene()))
    data[-20] ^= 4
    path = tmp_path / "page.html"
    path.write_text(make_page(bytes(data)))
    page = open_page(path)
    page.wait_for_selector("body[data-phase=error]")
    assert "CRC" in page.locator("#problem").inner_text()
    assert not page.locator("#controls").is_visible()
    page.complaints.clear()


def test_no_webgl2_is_told_in_words(open_page, tmp_path):
    path = tmp_path / "page.html"
    text = make_page(encode_scene(random_scene()))
    without = "<script>HTMLCanvasElement.prototype.getContext = () => null;</script><title>"
    path.write_text(text.replace("<title>", without, 1))
    page = open_page(path)
    page.wait_for_selector("body[data-phase=error]")
    assert "WebGL2" in page.locator("#problem").inner_text()
