"""What a file says about its pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shacira_nerfstudio.codec import PackedScene, SceneFormatError

MAX_SIDE, MAX_FRAMES = 1 << 20, 1 << 20
MAX_CHANNELS = 4
BITS = (8, 16)


@dataclass(frozen=True)
class PixelLayout:
    """Size and format of the pixels of a picture, or of a video's frames."""

    width: int
    height: int
    channels: int = 3
    """1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; alpha is straight."""
    bits: int = 8
    """Of each channel."""
    frames: int = 1
    """More than one, or a rate, make a video."""
    rate: tuple[int, int] | None = None
    """Frames per second of a video, as a fraction; None for a picture."""
    RANGES: ClassVar[dict[str, int]] = {
        "width": MAX_SIDE,
        "height": MAX_SIDE,
        "channels": MAX_CHANNELS,
        "frames": MAX_FRAMES,
    }

    def __post_init__(self) -> None:
        for name, most in self.RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"expected {name} from 1 to {most}, got {value!r}")
        if self.bits not in BITS:
            raise ValueError(f"expected 8 or 16 bits per channel, got {self.bits!r}")
        if self.rate is None and self.frames != 1:
            raise ValueError(f"expected one frame in a picture, got {self.frames}")
        if self.rate is not None and not all(
            type(n) is int and 1 <= n < 1 << 32 for n in self.rate
        ):
            raise ValueError(f"expected a rate of two integers of 1 or more, got {self.rate}")

    @property
    def is_video(self) -> bool:
        return self.rate is not None

    @property
    def kind(self) -> str:
        """Of the file."""
        return "video" if self.is_video else "image"

    @property
    def axes(self) -> tuple[int, ...]:
        """Pixels along x and y, and frames of a video."""
        return (self.width, self.height, self.frames)[: 3 if self.is_video else 2]

    @property
    def num_pixels(self) -> int:
        """Of all frames together."""
        return math.prod(self.axes)

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def largest(self) -> int:
        """White."""
        return (1 << self.bits) - 1

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        return np.uint8 if self.bits == 8 else np.uint16

    @property
    def frames_per_second(self) -> float:
        numerator, denominator = self.rate or (1, 1)
        return numerator / denominator

    def architecture(self) -> dict[str, int | str]:
        """As the head of a file has it."""
        found: dict[str, int | str] = {
            name: getattr(self, name) for name in ("bits", "channels", "height", "width")
        }
        if self.rate is not None:
            found |= {"frames": self.frames}
            found |= dict(zip(("rate_num", "rate_den"), self.rate, strict=True))
        return found

    @classmethod
    def of(cls, scene: PackedScene) -> PixelLayout:
        """Raises SceneFormatError for what is no picture and no video."""
        if scene.kind not in ("image", "video"):
            raise SceneFormatError("HEAD", "a picture or a video", f"a {scene.kind}")
        return cls.from_architecture(scene.kind, scene.architecture)

    @classmethod
    def from_architecture(cls, kind: str, architecture: Mapping[str, int | str]) -> PixelLayout:
        """The reverse of :meth:`architecture`."""
        names = ["width", "height", "channels", "bits"]
        names += ["frames", "rate_num", "rate_den"] if kind == "video" else []
        try:
            values = {name: architecture[name] for name in names}
            rate = None
            if kind == "video":
                rate = values.pop("rate_num"), values.pop("rate_den")
            return cls(**values, rate=rate)  # pyright: ignore
        except (KeyError, ValueError) as error:
            text = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise SceneFormatError("HEAD", "the size and format of pixels", text) from None
