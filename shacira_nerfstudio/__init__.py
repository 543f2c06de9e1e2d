"""Compressed radiance fields for Nerfstudio.

Reading and writing files needs numpy alone, and only once it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shacira_nerfstudio.codec import PackedScene as PackedScene
    from shacira_nerfstudio.codec import SceneFormatError as SceneFormatError
    from shacira_nerfstudio.codec import load_scene as load_scene
    from shacira_nerfstudio.codec import save_scene as save_scene

__version__ = "0.1.0"
__all__ = ["PackedScene", "SceneFormatError", "__version__", "load_scene", "save_scene"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("shacira_nerfstudio.codec"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
