"""The import: an export folder from a lone .shacira file.

Built from the registered default configuration and the file's own numbers, never from somebody
else's config.yml: reading one runs code.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from nerfstudio.configs.dataparser_configs import all_dataparsers
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.engine.trainer import TrainerConfig

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import PackedScene, decode_scene, truncate
from shacira_nerfstudio.compression.pack import unpack_scene
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.output_files import only_writer
from shacira_nerfstudio.plugin.capture_kind import choose_settings
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.export_files import check_export_folder, write_export_folder
from shacira_nerfstudio.plugin.stored_cameras import SCENE_NAME, use_stored_cameras

DEFAULT_DATAPARSER = "nerfstudio-data"


def import_scene(
    file: Path,
    output_dir: Path,
    *,
    data: Path | None = None,
    dataparser: str | DataParserConfig | None = None,
    camera_res_scale_factor: float = 1.0,
    allow_truncated: bool = False,
) -> Path:
    """Makes the folder that an export would have made, and returns its config.yml.

    Args:
        data: The data set, for ns-eval and ns-render dataset; None serves the cameras stored in
            the file, which is enough for looking.
        dataparser: Any registered data parser, by name with its default options or with options of
            one's own; None takes the one that the file names, else nerfstudio-data.
        camera_res_scale_factor: The host's: 0.5 measures at half of the pictures' resolution.
        allow_truncated: Accept a file that was cut off; the folder gets a shortened file of its
            whole levels.
    """
    check_export_folder(output_dir)
    content = file.read_bytes()
    if allow_truncated:
        content = truncate(content)
    scene = decode_scene(content)
    unpack_scene(scene, get_backend("reference", "cpu"))  # refuse here what a model would refuse
    config = copy.deepcopy(all_methods["shacira"])
    _describe_model(config, scene)
    if data is not None:
        parser = dataparser or named_dataparser(scene)
        parser = default_dataparser(parser) if isinstance(parser, str) else parser
        _use_data_set(config, data, parser)
        manager: Any = config.pipeline.datamanager
        manager.camera_res_scale_factor = camera_res_scale_factor
    elif scene.cameras is None:
        raise ValueError("expected cameras in the file, found none; state the data set (--data)")
    else:
        use_stored_cameras(config, Path(SCENE_NAME))
    with only_writer(output_dir):
        write_export_folder(config, _step(scene), content, output_dir)
    return output_dir / "config.yml"


def _step(scene: PackedScene) -> int:
    """The training step, for the name of the checkpoint; anybody may have written it."""
    step = scene.meta.get("step")
    return step if isinstance(step, int) and 0 <= step < 10**9 else 0


def _describe_model(config: TrainerConfig, scene: PackedScene) -> None:
    """For people who read config.yml: the model itself takes these numbers from the file."""
    model: Any = config.pipeline.model
    grid, rendering = scene.grid, scene.rendering
    assert rendering is not None and scene.occupancy is not None  # unpack_scene has checked
    sizes = {
        "num_levels": grid.num_levels,
        "base_res": grid.resolutions[0][0],
        "max_res": grid.resolutions[-1][0],
        "log2_hashmap_size": (max(grid.table_sizes) - 1).bit_length(),
    }
    if GridSpec.create(**sizes) == grid:  # otherwise they could ask for much more memory
        vars(model.grid).update(sizes)
    model.grid.latent_dim = model.grid.features_per_level = scene.latent_dim
    for name in ("hidden_dim", "geo_feat_dim", "num_color_layers", "sh_degree"):
        setattr(model.networks, name, scene.architecture[name])
    sampling = model.sampling
    sampling.occupancy_resolution = len(scene.occupancy)
    sampling.near_plane, sampling.far_plane = rendering.near, rendering.far
    sampling.early_stop = rendering.early_stop
    model.contraction = rendering.contraction
    if rendering.background != "color":
        model.background_color = rendering.background
    is_bounded = rendering.contraction == "affine"
    choose_settings(model, DatasetMetadata(is_bounded=is_bounded))


def named_dataparser(scene: PackedScene) -> str:
    """The one that a file says it was trained with, if there is such a one here."""
    name = scene.meta.get("dataparser")
    return name if isinstance(name, str) and name in all_dataparsers else DEFAULT_DATAPARSER


def default_dataparser(name: str) -> DataParserConfig:
    """A registered data parser with its default options."""
    if name not in all_dataparsers:
        raise ValueError(f"expected a data parser of {sorted(all_dataparsers)}, got {name}")
    return copy.deepcopy(all_dataparsers[name])


def _use_data_set(config: TrainerConfig, data: Path, parser: DataParserConfig) -> None:
    if not data.exists():
        raise FileNotFoundError(f"expected a data set at {data}")
    manager: Any = config.pipeline.datamanager
    manager.dataparser = parser
    manager.dataparser.data = manager.data = config.data = data
