"""From a trained run to a file and back into the host, through every door."""

import copy
import dataclasses
import functools
import importlib
import json
import math
import pathlib
import shutil
import sys
import unittest.mock

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import set_options

pytest.importorskip("nerfstudio")
pytestmark = [pytest.mark.nerfstudio, pytest.mark.slow]

from nerfstudio.cameras.cameras import CameraType  # noqa: E402
from nerfstudio.configs.dataparser_configs import all_dataparsers  # noqa: E402
from nerfstudio.configs.method_configs import all_methods  # noqa: E402
from nerfstudio.utils.eval_utils import eval_setup  # noqa: E402

from shacira_nerfstudio.backends import get_backend  # noqa: E402
from shacira_nerfstudio.cli import main as cli  # noqa: E402
from shacira_nerfstudio.codec import (  # noqa: E402
    decode_scene,
    encode_scene,
    load_scene,
    save_scene,
    truncate,
)
from shacira_nerfstudio.compression import export_search  # noqa: E402
from shacira_nerfstudio.compression.pack import stored_cameras, unpack_scene  # noqa: E402
from shacira_nerfstudio.output_files import only_writer  # noqa: E402
from shacira_nerfstudio.plugin import export_folder, probe_rays  # noqa: E402
from shacira_nerfstudio.plugin.evaluate import evaluate_run  # noqa: E402
from shacira_nerfstudio.plugin.export_options import ExportOptions  # noqa: E402
from shacira_nerfstudio.plugin.host_cameras import camera_set, thin_cameras  # noqa: E402
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene  # noqa: E402

AS_TRAINED = ("--max-loss-db", "0")
"""What an export leaves out takes it many renderings; one test looks at that."""
NUM_STEPS, WRAPPER = 20, "ckpt/step-000000019.ckpt"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(path of config.yml, trained pipeline, data set) of a tiny run through the host's trainer."""
    root = tmp_path_factory.mktemp("run")
    data = write_demo_scene(root / "data", num_views=6, size=24)
    config = copy.deepcopy(all_methods["shacira"])
    model, manager = config.pipeline.model, config.pipeline.datamanager
    tiny = {"grid.num_levels": 4, "grid.max_res": 64, "grid.log2_hashmap_size": 10}
    tiny |= {"sampling.occupancy_resolution": 32, "sampling.occupancy_every": 4}
    tiny |= {"sampling.occupancy_warmup": 8, "sampling.target_num_samples": 4096}
    tiny |= {"networks.appearance_dim": 2}
    tiny |= {"grid.latents_init_std": 2.0}  # so that a short run ends with latents other than 0
    set_options(model, tiny)
    manager.dataparser = copy.deepcopy(all_dataparsers["rtmv-data"])
    manager.dataparser.data = manager.data = data
    config.max_num_iterations, config.steps_per_eval_image = NUM_STEPS, 0
    config.machine.device_type, config.vis = "cpu", "tensorboard"
    config.output_dir = root / "outputs"
    config.set_timestamp()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    config.save_config()
    trainer.train()
    trainer.pipeline.eval()
    return config.get_base_dir() / "config.yml", trainer.pipeline, data


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    options = ["--load-config", str(run[0]), "--output-dir", str(out), *AS_TRAINED]
    assert cli.main(["export", *options]) == 0
    return out


@pytest.fixture(scope="module")
def loaded(exported):
    """The pipeline that every ns-* command makes of the export folder."""
    return eval_setup(exported / "config.yml")[1]


def same_state(a, b):
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a
    )


def test_a_float_checkpoint_comes_back_exactly(run):
    config_path, trained, _ = run
    _, pipeline, _, step = eval_setup(config_path, test_mode="inference")
    assert step == NUM_STEPS - 1
    assert same_state(pipeline.state_dict(), trained.state_dict())
    assert pipeline.model.file_bytes == {}
    assert pipeline.model.scene.settings == trained.model.scene.settings


def test_the_folder_holds_three_files_and_no_code(exported):
    files = sorted(str(p.relative_to(exported)) for p in exported.rglob("*") if p.is_file())
    assert files == [WRAPPER, "config.yml", "scene.shacira"]
    data = (exported / "scene.shacira").read_bytes()
    state = torch.load(exported / WRAPPER, weights_only=True)
    assert state.keys() == {"step", "pipeline"}
    assert state["pipeline"].keys() == {"_model.bitstream"}
    assert state["pipeline"]["_model.bitstream"].numpy().tobytes() == data
    assert (exported / WRAPPER).stat().st_size < len(data) + 2500


def test_the_file_says_how_it_was_made(run, exported):
    scene = load_scene(exported / "scene.shacira")
    assert scene.meta["step"] == NUM_STEPS - 1
    assert scene.meta["dataparser"] == "rtmv-data"
    assert scene.meta["num_train_images"] == 4
    assert not any("/" in str(value) for value in scene.meta.values())  # no paths
    assert len(scene.cameras.sizes) == 4
    assert np.count_nonzero(scene.symbols)
    assert scene == run[1].model.pack(meta=scene.meta)


def test_an_export_leaves_out_what_the_loss_allows(run, exported, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(probe_rays, "NUM_EXPORT_RAYS", 512)
    options = ["export", "--load-config", str(run[0]), "--output-dir"]
    sizes, losses = [(exported / "scene.shacira").stat().st_size], []
    for allowed in ("0.02", "0.2"):
        out = tmp_path / allowed
        assert cli.main([*options, str(out), "--max-loss-db", allowed]) == 0
        scene = load_scene(out / "scene.shacira")
        # Other cells and weights, and nothing else.
        plain = run[1].model.pack(meta=scene.meta)
        assert ((scene.symbols == plain.symbols) | (scene.symbols == 0)).all()
        others = {name: getattr(scene, name) for name in ("symbols", "occupancy", "weights")}
        assert dataclasses.replace(plain, **others) == scene
        sizes.append((out / "scene.shacira").stat().st_size)
        losses.append(evaluate_run(out / "config.yml")["psnr"])
    assert sizes[0] > sizes[1] >= sizes[2]
    # Measured on training images; these are others.
    assert min(losses) > evaluate_run(exported / "config.yml")["psnr"] - 0.4
    capsys.readouterr()
    assert cli.main([*options, str(tmp_path / "no"), "--max-loss-db", "-1"]) == 2
    assert "max_loss_db" in capsys.readouterr().err


def compress_within(run, *, max_loss_db):
    dataset, model = run[1].datamanager.train_dataset, run[1].model
    rays = probe_rays.export_rays(dataset, model.renderer_rgb.blend_background)
    scene, latents = export_search.compress_within_loss(
        model.scene, model.pack, rays, max_loss_db=max_loss_db
    )
    assert encode_scene(scene, latents=latents) == encode_scene(scene)
    return scene


def test_what_costs_quality_stays(run, monkeypatch):
    """Cells that a tidy grid has not, but without which views change."""
    monkeypatch.setattr(probe_rays, "NUM_EXPORT_RAYS", 512)
    monkeypatch.setattr(export_search, "remove_isolated_cells", torch.zeros_like)
    monkeypatch.setattr(export_search, "coarser_occupancy", lambda scene: None)
    scene = compress_within(run, max_loss_db=0.02)
    assert np.array_equal(scene.occupancy, run[1].model.scene.occupancy.occupied.numpy())


@pytest.mark.parametrize("worth", [1e4, -1e4])
def test_cells_grow_where_that_pays(run, monkeypatch, worth):
    monkeypatch.setattr(probe_rays, "NUM_EXPORT_RAYS", 512)
    monkeypatch.setattr(export_search, "remove_isolated_cells", torch.clone)
    monkeypatch.setattr(export_search, "DB_PER_OCTAVE", worth)
    plain = run[1].model.pack()
    scene = compress_within(run, max_loss_db=100.0)
    wanted = export_search.coarser_occupancy(plain) if worth > 0 else plain
    assert np.array_equal(scene.occupancy, wanted.occupancy)
    assert np.array_equal(scene.symbols, plain.symbols)


def test_coarser_cells_hold_all_finer_ones(exported):
    fine = load_scene(exported / "scene.shacira")
    coarse = export_search.coarser_occupancy(fine)
    assert dataclasses.replace(coarse, occupancy=fine.occupancy) == fine
    side = len(coarse.occupancy)
    assert 2 * side == len(fine.occupancy)
    children = coarse.occupancy.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert children[fine.occupancy].all()
    for cell in np.argwhere(coarse.occupancy)[:50]:
        assert fine.occupancy[tuple(slice(2 * c, 2 * c + 2) for c in cell)].any()
    assert decode_scene(encode_scene(coarse)) == coarse
    for occupancy in (None, np.ones((5, 5, 5), dtype=bool)):
        other = dataclasses.replace(fine, occupancy=occupancy)
        assert export_search.coarser_occupancy(other) is None


def test_both_doors_write_the_same_file(run, exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", unittest.mock.MagicMock())  # slow, and not needed
    exporter = importlib.import_module("nerfstudio.scripts.exporter")
    options = ["--load-config", str(run[0]), "--output-dir", str(tmp_path / "out"), *AS_TRAINED]
    monkeypatch.setattr(sys, "argv", ["ns-export", "shacira", *options, "--verify", "False"])
    exporter.entrypoint()
    for name in ("scene.shacira", WRAPPER):
        assert (tmp_path / "out" / name).read_bytes() == (exported / name).read_bytes()


def test_exporting_an_export_gives_the_same_file(exported, tmp_path):
    options = ["export", "--load-config", str(exported / "config.yml"), "--output-dir"]
    assert cli.main([*options, str(tmp_path / "again")]) == 0
    for name in ("scene.shacira", WRAPPER):
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes()
    # Metadata may be added; nothing else changes.
    author = ["--author", "Ada", "--max-cameras", "2"]
    assert cli.main([*options, str(tmp_path / "again"), *author]) == 0
    scene = load_scene(tmp_path / "again" / "scene.shacira")
    original = load_scene(exported / "scene.shacira")
    assert scene.meta == {**original.meta, "author": "Ada"}
    assert len(scene.cameras.sizes) == 2
    assert scene.weights == original.weights


def test_a_run_is_never_overwritten(run, capsys):
    before = run[0].read_bytes()
    options = ["--load-config", str(run[0]), "--output-dir", str(run[0].parent)]
    assert cli.main(["export", *options]) == 2
    assert "config.yml of its own" in capsys.readouterr().err
    assert run[0].read_bytes() == before


def psnr(image, truth):
    return -10 * math.log10(float(((image - truth) ** 2).mean()))


def test_the_host_measures_what_was_packed(run, exported, loaded):
    scene = unpack_scene(run[1].model.pack(), get_backend("auto", "cpu"))
    dataset = loaded.datamanager.eval_dataset
    cameras = stored_cameras(camera_set(dataset.cameras))
    expected = []
    for index in range(len(dataset)):
        image = scene.render_view(cameras[index])
        expected.append(psnr(image, dataset[index]["image"]))
    results = evaluate_run(exported / "config.yml", output_path=exported.parent / "eval.json")
    # Ray directions of the host differ in the last bits.
    assert results["psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert results["bytes"] == (exported / "scene.shacira").stat().st_size
    assert (exported.parent / "eval.json").exists()


def test_the_decoded_model_renders_as_the_trained_one(run, loaded):
    """Only weights and steps lose digits in the file."""
    camera = loaded.datamanager.eval_dataset.cameras[0:1]
    images = [p.model.get_outputs_for_camera(camera)["rgb"] for p in (run[1], loaded)]
    assert psnr(*images) > 30
    assert loaded.model.scene.occupancy.occupied.equal(run[1].model.scene.occupancy.occupied)


def test_our_rays_are_the_hosts(loaded):
    cameras = loaded.datamanager.eval_dataset.cameras
    origins, directions = stored_cameras(camera_set(cameras))[1].rays()
    theirs = cameras.generate_rays(camera_indices=1, keep_shape=True)
    assert torch.allclose(origins, theirs.origins.view(-1, 3))
    assert torch.allclose(directions, theirs.directions.view(-1, 3), atol=1e-6)


def test_cameras_are_thinned_evenly(loaded):
    cameras = camera_set(loaded.datamanager.train_dataset.cameras)
    ends = thin_cameras(cameras, 2)
    assert np.array_equal(ends.camera_to_worlds, cameras.camera_to_worlds[[0, 3]])
    assert thin_cameras(cameras, 0) is None
    assert thin_cameras(cameras, 64) == cameras


def test_a_broken_bitstream_is_a_value_error(run, exported, loaded):
    """And not a RuntimeError, after which the host would load what fits and go on."""
    data = bytearray((exported / "scene.shacira").read_bytes())
    data[len(data) // 2] ^= 4
    bits = torch.frombuffer(data, dtype=torch.uint8)
    with pytest.raises(ValueError, match="CRC"):
        loaded.load_state_dict({"_model.bitstream": bits}, strict=False)
    with pytest.raises(ValueError, match="nothing beside"):
        loaded.model.load_state_dict({"bitstream": bits, "appearance": torch.zeros(1)})
    with pytest.raises(ValueError, match="uint8"):
        loaded.model.load_state_dict({"bitstream": bits.float()})


def test_a_coarser_file_of_other_shapes_loads(loaded, exported):
    model = copy.copy(loaded.model)
    model._modules = dict(loaded.model._modules)
    model._parameters = dict(loaded.model._parameters)
    data = truncate((exported / "scene.shacira").read_bytes(), max_level=1)
    model.load_state_dict({"bitstream": torch.frombuffer(bytearray(data), dtype=torch.uint8)})
    assert sum(model.file_bytes.values()) == len(data)
    assert encode_scene(model.file_scene) == data
    camera = loaded.datamanager.eval_dataset.cameras[0:1]
    assert model.get_outputs_for_camera(camera)["rgb"].shape == (24, 24, 3)


def test_a_file_says_how_good_each_prefix_is(run, exported, tmp_path, capsys):
    options = ["export", "--load-config", str(run[0]), "--output-dir", str(tmp_path / "out")]
    options += AS_TRAINED
    capsys.readouterr()
    assert cli.main([*options, "--psnr-views", "9", "--json"]) == 0
    description = json.loads(capsys.readouterr().out)  # nothing of the host's
    scene = load_scene(tmp_path / "out" / "scene.shacira")
    assert description["prefix_psnr"] == [value / 100 for value in scene.prefix_psnr]
    assert dataclasses.replace(scene, prefix_psnr=None) == load_scene(exported / "scene.shacira")
    # The last of them is what the whole file reaches, the first what its first level does.
    results = evaluate_run(exported / "config.yml")
    assert scene.prefix_psnr[-1] == pytest.approx(100 * results["psnr"], abs=0.51)
    coarse, out = tmp_path / "coarse.shacira", tmp_path / "coarse"
    coarse.write_bytes(truncate((exported / "scene.shacira").read_bytes(), max_level=0))
    assert cli.main(["import", str(coarse), "--output-dir", str(out), "--data", str(run[2])]) == 0
    results = evaluate_run(out / "config.yml")
    assert scene.prefix_psnr[0] == pytest.approx(100 * results["psnr"], abs=0.51)
    # Packing a shortened file's model again keeps in mind what is missing.
    model = eval_setup(out / "config.yml")[1].model
    assert model.pack().num_levels_present == 1
    # Without test images there is nothing to measure.
    assert cli.main(["import", str(coarse), "--output-dir", str(tmp_path / "look")]) == 0
    options[2], options[4] = str(tmp_path / "look" / "config.yml"), str(tmp_path / "no")
    assert cli.main([*options, "--psnr-views", "1"]) == 2
    assert "expected test images" in capsys.readouterr().err


def test_import_of_a_file_that_was_cut_off(exported, tmp_path, capsys):
    file, out = tmp_path / "cut.shacira", tmp_path / "out"
    data = (exported / "scene.shacira").read_bytes()
    file.write_bytes(data[:-1])
    options = ["import", str(file), "--output-dir", str(out), "--json"]
    assert cli.main(options) == 2
    capsys.readouterr()
    assert cli.main([*options, "--allow-truncated"]) == 0
    assert json.loads(capsys.readouterr().out) == {"config": str(out / "config.yml")}
    shorter = truncate(data, max_level=2)
    assert (out / "scene.shacira").read_bytes() == shorter
    assert encode_scene(eval_setup(out / "config.yml")[1].model.file_scene) == shorter


def test_import_without_data_looks_but_does_not_measure(exported, loaded, tmp_path):
    file, out = tmp_path / "lone.shacira", tmp_path / "out"
    file.write_bytes((exported / "scene.shacira").read_bytes())
    assert cli.main(["import", str(file), "--output-dir", str(out)]) == 0
    for name in ("scene.shacira", WRAPPER):
        assert (out / name).read_bytes() == (exported / name).read_bytes()
    file.unlink()
    _, pipeline, _, _ = eval_setup(out / "config.yml")
    camera = loaded.datamanager.train_dataset.cameras[2:3]
    stored = pipeline.datamanager.eval_dataset.cameras[2:3]
    # Poses are rounded in a file.
    assert torch.allclose(stored.camera_to_worlds, camera.camera_to_worlds, atol=2e-4)
    assert not torch.equal(stored.camera_to_worlds, camera.camera_to_worlds)
    expected = loaded.model.get_outputs_for_camera(stored)["rgb"]
    assert torch.equal(pipeline.model.get_outputs_for_camera(stored)["rgb"], expected)
    assert pipeline.datamanager.train_dataset[0]["image"].shape[-1] == 3  # for the viewer
    for measure in (
        pipeline.get_average_eval_image_metrics,
        functools.partial(pipeline.get_eval_image_metrics_and_images, 0),
        functools.partial(pipeline.get_train_loss_dict, 0),
    ):
        with pytest.raises(ValueError, match="expected a data set"):
            measure()
    # An imported folder can be exported again, too.
    options = ["--load-config", str(out / "config.yml"), "--output-dir", str(tmp_path / "again")]
    assert cli.main(["export", *options]) == 0
    again = tmp_path / "again" / "scene.shacira"
    assert again.read_bytes() == (exported / "scene.shacira").read_bytes()


def test_import_with_data_uses_the_parser_that_the_file_names(run, exported, tmp_path, capsys):
    file = str(exported / "scene.shacira")
    options = ["import", file, "--output-dir", str(tmp_path / "out"), "--data"]
    assert cli.main([*options, str(run[2])]) == 0
    config = yaml.load((tmp_path / "out" / "config.yml").read_text(), Loader=yaml.Loader)
    manager = config.pipeline.datamanager
    assert type(manager.dataparser) is type(all_dataparsers["rtmv-data"])
    assert manager.data == manager.dataparser.data == run[2]
    assert config.pipeline.model.grid.num_levels == 4
    assert cli.main([*options, str(run[2]), "--dataparser", "nonsense"]) == 2
    assert cli.main([*options, str(tmp_path / "nowhere")]) == 2
    assert "expected a data set at" in capsys.readouterr().err


def test_import_refuses_what_it_cannot_use(exported, tmp_path, capsys):
    data = (exported / "scene.shacira").read_bytes()
    file, out = tmp_path / "x.shacira", tmp_path / "out"
    file.write_bytes(data[:-1])
    assert cli.main(["import", str(file), "--output-dir", str(out)]) == 2
    save_scene(file, encode_scene(_without_cameras(data)))
    assert cli.main(["import", str(file), "--output-dir", str(out)]) == 2
    assert "expected cameras in the file" in capsys.readouterr().err
    assert not (out / "config.yml").exists()


def _without_cameras(data):
    scene = decode_scene(data)
    return type(scene)(**{**vars(scene), "cameras": None})


# ── folders that are moved, copied, sent, fought for ──


def with_other_file(folder, max_level):
    """Makes the file of an export folder another one, to tell it from its copies."""
    data = truncate((folder / "scene.shacira").read_bytes(), max_level=max_level)
    bits = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    torch.save({"step": 19, "pipeline": {"_model.bitstream": bits}}, folder / WRAPPER)


def test_a_folder_works_wherever_it_lies(exported, tmp_path, monkeypatch):
    assert str(exported) not in (exported / "config.yml").read_text("utf-8")
    copy_, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(exported, copy_)
    with_other_file(copy_, 0)
    copy_.rename(moved)
    monkeypatch.chdir(tmp_path)
    for path in (moved / "config.yml", pathlib.Path("moved", "config.yml")):
        config, pipeline, checkpoint, _ = eval_setup(path, test_mode="inference")
        assert checkpoint == moved / WRAPPER and config.get_base_dir() == moved
        assert pipeline.model.file_scene.num_coded_levels == 1  # the copy's file
    (moved / WRAPPER).unlink()
    with pytest.raises(FileNotFoundError, match=r"beside .*: an export folder is whole"):
        eval_setup(moved / "config.yml")


def test_a_folder_that_is_read_in_another_way_opens_no_other(exported):
    config = yaml.load((exported / "config.yml").read_text(), Loader=yaml.Loader)
    with pytest.raises(ValueError, match="eval_setup"):
        config.get_checkpoint_dir()


def pointed_at(path, data):
    """A configuration that looks for its data set elsewhere."""
    config = yaml.load(path.read_text(), Loader=yaml.Loader)
    manager = config.pipeline.datamanager
    manager.data = manager.dataparser.data = config.data = data
    path.write_text(yaml.dump(config), "utf8")
    return path


def test_a_folder_that_was_sent_shows_its_cameras(exported, tmp_path, capsys):
    sent = tmp_path / "sent"
    shutil.copytree(exported, sent)
    path = pointed_at(sent / "config.yml", tmp_path / "gone")
    with pytest.warns(UserWarning, match="gone, found nothing: showing the cameras stored"):
        _, pipeline, _, _ = eval_setup(path)
    assert len(pipeline.datamanager.eval_dataset) == 4
    with pytest.warns(UserWarning, match="gone"):
        assert cli.main(["eval", "--load-config", str(path)]) == 2
    assert "expected a data set" in capsys.readouterr().err.splitlines()[-1]
    data = encode_scene(_without_cameras((sent / "scene.shacira").read_bytes()))
    save_scene(sent / "scene.shacira", data)
    assert cli.main(["eval", "--load-config", str(path), "--json"]) == 2
    captured = capsys.readouterr()
    assert "shacira import" in captured.err.splitlines()[-1] and not captured.out


def test_a_run_that_lost_something_says_what(run, tmp_path, capsys):
    base = tmp_path / "run"
    base.mkdir()
    for name, data, words in (("a.yml", tmp_path / "gone", "gone, found nothing"),):
        shutil.copy(run[0], base / name)
        path = pointed_at(base / name, data)
        assert (
            cli.main(["export", "--load-config", str(path), "--output-dir", str(base / "o")]) == 2
        )
        error = capsys.readouterr().err.strip().splitlines()
        assert words in error[-1] and "config.yml" in error[-1]
    (base / "b.yml").write_text("a: [1", "utf-8")
    (base / "c.yml").write_text("a: 1", "utf-8")
    for name in ("b.yml", "c.yml"):
        assert cli.main(["eval", "--load-config", str(base / name)]) == 2
        assert (
            capsys.readouterr().err.strip().splitlines()[-1].startswith("shacira: error: expected")
        )
    assert cli.main(["eval", "--load-config", str(run[0].parent)]) == 2
    assert f"perhaps {run[0]}" in capsys.readouterr().err


def test_a_run_without_test_images(run, tmp_path, capsys, monkeypatch):
    from shacira_nerfstudio.plugin import evaluate

    opened = evaluate.open_run(run[0], with_views=False)
    monkeypatch.setattr(opened.pipeline.datamanager, "eval_dataset", [])
    monkeypatch.setattr(evaluate, "open_run", lambda *args, **options: opened)
    assert cli.main(["eval", "--load-config", str(run[0])]) == 2
    assert "expected test images in" in capsys.readouterr().err.splitlines()[-1]


def test_eval_as_json_is_json(exported, capsys):
    capsys.readouterr()
    assert cli.main(["eval", "--load-config", str(exported / "config.yml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["psnr"] > 0


def test_two_exports_into_one_folder(exported, tmp_path, capsys):
    options = ["--load-config", str(exported / "config.yml"), "--output-dir", str(tmp_path / "o")]
    with only_writer(tmp_path / "o"):
        assert cli.main(["export", *options]) == 2
    assert "found another process that writes to it now" in capsys.readouterr().err
    assert not (tmp_path / "o" / "scene.shacira").exists()
    assert cli.main(["export", *options]) == 0


def test_a_later_export_leaves_nothing_of_an_earlier_one(exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    (out / WRAPPER).rename(out / "ckpt" / "step-000000500.ckpt")
    options = ["--load-config", str(exported / "config.yml"), "--output-dir", str(out)]
    assert cli.main(["export", *options]) == 0
    assert [path.name for path in (out / "ckpt").iterdir()] == [pathlib.Path(WRAPPER).name]


def test_cameras_that_a_file_cannot_hold_are_missed_aloud(loaded, tmp_path, caplog):
    cameras = copy.deepcopy(loaded.datamanager.train_dataset.cameras)
    options = ExportOptions(tmp_path, tmp_path)
    export_folder._say_which_cameras_are_missing(cameras, options)
    assert not caplog.messages
    cameras.fx = cameras.fx.clone()
    cameras.fx[1] = 0.0
    assert len(camera_set(cameras).sizes) == 3
    export_folder._say_which_cameras_are_missing(cameras, options)
    cameras.camera_type = torch.full_like(cameras.camera_type, CameraType.FISHEYE.value)
    assert camera_set(cameras) is None
    export_folder._say_which_cameras_are_missing(cameras, options)
    assert "3 of 4 training cameras" in caplog.messages[0]
    assert "0 of 4" in caplog.messages[1] and "no view" in caplog.messages[1]


@pytest.mark.parametrize(
    ("name", "value"), [("camera_to_worlds", math.nan), ("fx", 0.0), ("fx", math.nan)]
)
def test_an_impossible_camera_of_a_path_is_an_error_and_no_crash(loaded, name, value):
    camera = copy.deepcopy(loaded.datamanager.eval_dataset.cameras[0:1])
    setattr(camera, name, torch.full_like(getattr(camera, name), value))
    with pytest.raises(
        ValueError, match=r"expected .* of rays within .* in ray 0: look for a camera"
    ):
        loaded.model.get_outputs_for_camera(camera)
