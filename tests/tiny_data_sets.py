"""Pictures of a few pixels and data managers for them, for tests."""

import copy
import random

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from shacira_nerfstudio.plugin.config import shacira_method
from shacira_nerfstudio.plugin.data_manager import ShaciraDataManager
from shacira_nerfstudio.plugin.rtmv_dataparser import RtmvDataParserConfig


def write_images(folder, channels, sizes=((6, 8), (6, 8), (6, 8))):
    """Noise in PNG files."""
    draw = np.random.default_rng(0)
    paths = []
    for index, (size, count) in enumerate(zip(sizes, channels, strict=True)):
        paths.append(folder / f"{index}.png")
        Image.fromarray(draw.integers(0, 256, (*size, count), np.uint8)).save(paths[-1])
    return paths


def parsed(paths, color=None, sizes=((6, 8), (6, 8), (6, 8)), **more):
    """What a parser that knows nothing of us returns."""
    count = len(paths)
    heights, widths = (torch.tensor(side)[:, None] for side in zip(*sizes[:count], strict=True))
    poses = torch.eye(4)[None, :3].repeat(count, 1, 1)
    cameras = Cameras(poses, 5.0, 5.0, widths / 2, heights / 2, widths, heights)
    alpha_color = None if color is None else torch.tensor(color)
    return DataparserOutputs(paths, cameras, alpha_color=alpha_color, **more)


class _Parser(DataParser):
    """Hands out the same for every split."""

    outputs: DataparserOutputs

    def _generate_dataparser_outputs(self, split="train", **kwargs):
        return self.outputs


def managers(
    outputs,
    monkeypatch,
    kinds=(ShaciraDataManager, VanillaDataManager[InputDataset]),
    **options,
):
    """Ours, then the host's, on the same images."""
    found = []
    for kind in kinds:
        config = copy.deepcopy(shacira_method.config.pipeline.datamanager)
        config.dataparser = RtmvDataParserConfig()
        monkeypatch.setattr(
            RtmvDataParserConfig, "setup", lambda self, outputs=outputs: _of(outputs)
        )
        config._target = kind
        for name, value in options.items():
            setattr(config, name, value)
        random.seed(1)  # the host shuffles its images
        found.append(config.setup(device="cpu", test_mode="val"))
    return found


def _of(outputs):
    parser = _Parser(RtmvDataParserConfig())
    parser.outputs = outputs
    return parser
