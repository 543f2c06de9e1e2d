"""The viewer's panel: what it shows is what is there, and training goes on as if it were not."""

import threading

import numpy as np
import pytest
import torch
from tiny_runs import make_config, make_trainer, steps

pytestmark = pytest.mark.nerfstudio
NUM_STEPS = 60


def make_run(scene, output, options=None, *, seed=0):
    """A trainer with the host's viewer, on a port of its own."""
    config = make_config(scene, output, options)
    config.vis, config.max_num_iterations = "viewer", NUM_STEPS
    config.viewer.websocket_host = "127.0.0.1"
    config.save_config()
    return make_trainer(config, seed)


def stop(trainer):
    trainer.viewer_state.viser_server.stop()


@pytest.fixture(scope="module")
def trained(scene, tmp_path_factory):
    trainer = make_run(scene, tmp_path_factory.mktemp("run"))
    steps(trainer, 0, NUM_STEPS)
    yield trainer
    stop(trainer)


@pytest.fixture
def panel(trained):
    panel = trained.pipeline.model.viewer_panel
    yield panel
    panel.levels.value, panel.quantized.value = 4, True


def in_render_thread(function):
    """Calls a function in a thread of the kind that the viewer renders in."""
    from nerfstudio.viewer.render_state_machine import RenderStateMachine

    class Thread(RenderStateMachine):
        def __init__(self):
            threading.Thread.__init__(self, daemon=True)

        def run(self):
            self.result = function()

    thread = Thread()
    thread.start()
    thread.join()
    return thread.result


def shown(trainer):
    """What the model shows for a small bundle of rays in eval mode."""
    model = trainer.pipeline.model
    camera = trainer.pipeline.datamanager.train_dataset.cameras[0:1].to(model.device)
    model.eval()
    with torch.no_grad():
        outputs = model.get_outputs_for_camera(camera)
    model.train()
    return outputs


def press(panel):
    """As the host does: with the lock of training."""
    panel.export.cb_hook(panel.export)


def test_the_panel_changes_what_the_viewer_shows_and_nothing_else(trained, panel):
    plain = shown(trained)
    assert set(plain) == {"rgb", "accumulation", "depth"}
    panel.levels.value = 1
    coarse = in_render_thread(lambda: shown(trained))
    assert not torch.equal(coarse["rgb"], plain["rgb"])
    assert torch.equal(shown(trained)["rgb"], plain["rgb"])
    encoding = trained.pipeline.model.scene.encoding
    assert encoding.max_level == 4
    encoding.max_level = 1
    try:
        assert torch.equal(coarse["rgb"], shown(trained)["rgb"])
    finally:
        encoding.max_level = 4


def test_continuous_latents_can_be_shown(trained, panel):
    plain = shown(trained)
    panel.quantized.value = False
    continuous = in_render_thread(lambda: shown(trained))
    assert not torch.equal(continuous["rgb"], plain["rgb"])
    assert torch.equal(shown(trained)["rgb"], plain["rgb"])
    assert trained.pipeline.model.scene.encoding.is_quantized


def test_bits_are_what_rays_cost_once_somebody_looks(trained, panel):
    from shacira_nerfstudio.compression.code_lengths import entry_bits_of
    from shacira_nerfstudio.model.bits import ray_bits

    model, chosen = trained.pipeline.model, trained.viewer_state.control_panel
    outputs = in_render_thread(lambda: shown(trained))
    assert list(outputs)[:2] == ["rgb", "bits"] and not outputs["bits"].any()
    chosen.update_output_options(list(outputs))
    chosen._output_render.value = "bits"
    try:
        bits = in_render_thread(lambda: shown(trained))["bits"]
    finally:
        chosen._output_render.value = "rgb"
    camera = trained.pipeline.datamanager.train_dataset.cameras[0:1]
    rays = camera.generate_rays(0, keep_shape=True).flatten()
    directions = torch.nn.functional.normalize(rays.directions, dim=-1)
    model.eval()
    expected = ray_bits(model.scene, rays.origins, directions, entry_bits_of(model.pack()))
    model.train()
    assert bits.shape == (24, 24, 1) and bits.max() > 1
    assert torch.allclose(bits.flatten(), expected, atol=1e-4)


def test_text_says_where_training_stands(trained, panel):
    text = panel.about.text
    assert f"Step {trained.step:,}" in text and " dB**" in text
    assert "lambda 0.001" in text or "lambda " in text
    assert "File, estimated: **" in text and "latents " in text and "weights " in text
    assert panel.about.gui_handle.content == text


def test_export_is_the_run_as_it_is_now(trained, panel):
    from shacira_nerfstudio.codec import encode_scene, load_scene
    from shacira_nerfstudio.plugin.evaluate import open_run

    press(panel)
    panel.wait_for_export()
    folder = trained.config.get_base_dir() / "exports" / f"step-{trained.step:09d}"
    size = (folder / "scene.shacira").stat().st_size
    assert f"**{size:,} bytes**" in panel.exported.text
    packed = load_scene(folder / "scene.shacira")
    assert packed.meta["step"] == trained.step and packed.meta["method"] == "shacira"
    now = trained.pipeline.model.pack(meta=packed.meta)
    assert encode_scene(now) == (folder / "scene.shacira").read_bytes()
    # And it opens as every export does, with a panel that says where it comes from.
    model = open_run(folder / "config.yml", with_views=False).model
    assert model.file_scene == packed
    assert f"**{size:,} bytes**" in model.viewer_panel.about.text
    assert not hasattr(model.viewer_panel, "rate_lambda")


def test_an_export_that_fails_says_why(trained, panel, monkeypatch):
    from shacira_nerfstudio.plugin.panel import export_now

    def full(*args):
        raise OSError("expected to write to /x, got: No space left on device")

    monkeypatch.setattr(export_now, "write_export_folder", full)
    press(panel)
    panel.wait_for_export()
    assert panel.exported.text.startswith("**Not exported**: expected to write to /x")


def test_training_ends_the_same_with_exports_and_looks_in_between(scene, tmp_path):
    ends = []
    for name in ("alone", "watched"):
        trainer = make_run(scene, tmp_path / name, seed=3)
        model = trainer.pipeline.model
        steps(trainer, 0, 20)
        if name == "watched":
            panel = model.viewer_panel
            wanted, done = threading.Semaphore(0), threading.Semaphore(0)

            def watch(panel=panel, wanted=wanted, done=done, trainer=trainer):
                while wanted.acquire():
                    press(panel)
                    with trainer.train_lock:
                        panel.levels.value = 1
                        in_render_thread(lambda: shown(trainer))
                    panel.wait_for_export()
                    done.release()

            threading.Thread(target=watch, daemon=True).start()
            wanted.release()
            for step in range(20, NUM_STEPS):
                with trainer.train_lock:  # as the host does for each step
                    steps(trainer, step, step + 1)
                if step in (33, 46, NUM_STEPS - 1):
                    assert done.acquire(timeout=120)
                if step in (34, 47):
                    wanted.release()
            assert "written and verified" in panel.exported.text
            exports = list((trainer.config.get_base_dir() / "exports").iterdir())
            assert len(exports) == 3
        else:
            steps(trainer, 20, NUM_STEPS)
        stop(trainer)
        ends.append(model.scene.encoding.latents.detach().clone())
    assert torch.equal(*ends)


def test_without_a_viewer_nothing_is_asked(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path))
    steps(trainer, 0, 3)
    panel = trainer.pipeline.model.viewer_panel
    assert panel.look() is None and panel.about.text == "Training has not begun."
    assert list(shown(trainer)) == ["rgb", "accumulation", "depth"]


def test_a_file_that_is_shown_is_not_exported_again(scene, tmp_path):
    from synthetic_ball import make_ball

    from shacira_nerfstudio.codec import encode_scene

    trainer = make_run(scene, tmp_path)
    model, viewer = trainer.pipeline.model, trainer.viewer_state
    data = encode_scene(make_ball())
    model.show_file(data)
    panel = model.viewer_panel
    assert panel.levels.max == 3 and panel.quantized.disabled
    panel.control.viewer = viewer
    press(panel)
    assert "comes from a file already" in panel.exported.text
    assert f"{len(data):,} bytes" in panel.exported.text
    assert not (trainer.config.get_base_dir() / "exports").exists()
    stop(trainer)


def test_costs_are_looked_up_again_only_after_a_change_and_a_while(trained, monkeypatch):
    from shacira_nerfstudio.plugin.panel.look import EntryCosts

    model, packed = trained.pipeline.model, []

    def pack():
        packed.append(model.pack())
        return packed[-1]

    costs, scene = EntryCosts(pack), model.scene
    first = costs.bits(scene)
    assert costs.bits(scene) is first and len(packed) == 1
    with torch.no_grad():
        scene.encoding.latents += 0  # a new version of the same numbers
    assert costs.bits(scene) is first and len(packed) == 1
    costs._due = 0.0
    assert np.array_equal(costs.bits(scene), first) and len(packed) == 2
