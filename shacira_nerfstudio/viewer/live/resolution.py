"""How many pixels a frame may have: few enough to be smooth while the camera moves, all at rest.

What a ray costs differs a hundredfold between scenes and views, so it is measured, frame by frame.
"""

from __future__ import annotations

import math

FRAME_SECONDS = 0.1
"""For the rays of a frame while the camera moves; the rest of an eighth of a second is for coding
and sending it."""
TILE_SECONDS = 0.05
"""For the rays between two looks whether the camera has moved on; two bands of them are drawn at a
time."""
_FIRST_RATE = 40_000.0
"""Rays a second that are expected of a scene nobody has measured."""
_MIN_SIDE, _MIN_TILE = 24, 1024
_KEEP_SMALLER, _KEEP_LARGER = 1.15, 0.95
"""A size is kept while what can be afforded is less than so many times as large, and more than so
many times: pictures whose sharpness changes with each frame flicker, and frames that take too long
are fewer."""
_COARSE_STEP, _FINE_STEP, _FINE_SIDE = 3.0, 2.0, 512
"""Longest sides of two pictures after each other differ by these factors while the camera rests;
the second one from so many pixels on."""
_LEAST_GAIN = 1.8
"""Factor by which a picture in between is larger than the moving one, or it were no news."""

Size = tuple[int, int]
"""Width, height."""


class AdaptiveResolution:
    """Sizes of pictures for one client."""

    def __init__(self) -> None:
        self.rate = _FIRST_RATE
        """Rays a second."""
        self._side = 0.0

    def note(self, num_rays: int, seconds: float) -> None:
        """Notes what rays took. Slower than expected counts at once, faster by and by."""
        if num_rays < _MIN_TILE // 2 or seconds <= 0:
            return  # mostly overhead
        found = num_rays / seconds
        share = 0.8 if found < self.rate else 0.3
        self.rate = math.exp((1 - share) * math.log(self.rate) + share * math.log(found))

    def moving_size(self, aspect: float, max_side: int) -> Size:
        """Of a frame while the camera moves.

        Args:
            aspect: Width over height.
            max_side: Most pixels along the longer side.
        """
        num_rays = self.rate * FRAME_SECONDS
        side = math.sqrt(num_rays * max(aspect, 1 / aspect))
        if not _KEEP_LARGER < side / max(self._side, 1e-9) < _KEEP_SMALLER:
            self._side = side
        return size_of(aspect, min(max(self._side, _MIN_SIDE), max_side))

    def bands(self, size: Size) -> list[tuple[int, int]]:
        """Rows of a picture, begins and ends, between two looks whether it is still wanted: as many
        each time, or the last few would hardly keep all cores busy."""
        width, height = size
        count = round(width * height / max(self.rate * TILE_SECONDS, _MIN_TILE))
        count = min(max(count, 1), height)
        return [(height * i // count, height * (i + 1) // count) for i in range(count)]


def size_of(aspect: float, side: float) -> Size:
    """Pixels of a picture by its longer side."""
    width, height = (side, side / aspect) if aspect >= 1 else (side * aspect, side)
    return max(1, round(width)), max(1, round(height))


def refinement_sizes(moving: Size, aspect: float, max_side: int) -> list[Size]:
    """Sizes of the pictures that follow a moving one while the camera rests, up to ``max_side``
    pixels. Each costs so much more than those before it that these hardly delay it."""
    sides, side = [], float(max_side)
    # The last one is whole, however little it adds to the moving one.
    while side > max(moving) * (_LEAST_GAIN if sides else 1.0):
        sides.append(side)
        side /= _FINE_STEP if side > _FINE_SIDE else _COARSE_STEP
    return [size_of(aspect, side) for side in reversed(sides)]
