"""Bytes of a compressed scene: numpy and the standard library only, never torch. See FORMAT.md."""

from shacira_nerfstudio.codec.bitio import SceneFormatError as SceneFormatError
from shacira_nerfstudio.codec.file_tools import describe as describe
from shacira_nerfstudio.codec.file_tools import diff as diff
from shacira_nerfstudio.codec.file_tools import load_scene as load_scene
from shacira_nerfstudio.codec.file_tools import save_scene as save_scene
from shacira_nerfstudio.codec.file_tools import truncate as truncate
from shacira_nerfstudio.codec.file_tools import verify as verify
from shacira_nerfstudio.codec.scene import CameraSet as CameraSet
from shacira_nerfstudio.codec.scene import PackedScene as PackedScene
from shacira_nerfstudio.codec.scene import QuantizedTensor as QuantizedTensor
from shacira_nerfstudio.codec.scene import RenderSettings as RenderSettings
from shacira_nerfstudio.codec.scene_file import decode_scene as decode_scene
from shacira_nerfstudio.codec.scene_file import encode_scene as encode_scene
