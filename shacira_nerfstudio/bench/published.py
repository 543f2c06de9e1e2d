"""What others report, as data: every number with where it was read.

Sizes are bytes: MB is 10^6, MiB is 2^20, as each source has it. None of these figures was measured
here, and few systems count the same things: ``counted`` says what a size holds. ``source`` names
how a number was had: a table or file of the system's own repository, a figure of it (digitised,
within 1 % and 0.01 dB), a claim of its paper or page, or a third party.
"""

from __future__ import annotations

from dataclasses import dataclass

MB, MIB = 10**6, 2**20
SYNTHETIC = "Synthetic-NeRF, mean of 8 scenes"
TANKS = "Tanks and Temples, mean of 5 masked scenes"
V8 = "RTMV V8"
_FULL = (800, 800)
Points = tuple[tuple[float, float | None], ...]
_ESTIMATE = "an estimate; no file is written"


@dataclass(frozen=True)
class Published:
    """A curve of another system on one scene, or on a mean of scenes."""

    system: str
    scene: str
    resolution: tuple[int, int] | None
    """Width and height of the views; None if the source does not say."""
    points: Points
    """(bytes, PSNR); PSNR is None where none was given."""
    source: str
    counted: str


def _points(unit: int, *pairs: tuple[float, float | None]) -> Points:
    return tuple((round(size * unit), psnr) for size, psnr in pairs)


_MASK_DWT = "MaskDWT (Rho et al., CVPR 2023), CSV files of its repository"
_HAC = "HAC (Chen et al., ECCV 2024), results in its repository"
_HAC_PLUS = "HAC++ (Chen et al., TPAMI 2025), results in its repository"
_GAUSSIANS = "bitstreams, without the networks that decode them"
_CATRF_3RD = "plotting scripts of CATRF's repository (Tung-I/CATRF), a third party"

# (MaskDWT in MB, three rates; HAC and HAC++ in exact bytes, low and high rate.)
_PER_SCENE: dict[str, tuple[tuple, tuple, tuple]] = {
    "chair": (
        ((0.985, 34.14), (1.384, 34.52), (1.988, 34.68)),
        ((1080662, 34.73), (1753219, 35.49)),
        ((685349, 33.90), (1719769, 35.60)),
    ),
    "drums": (
        ((0.988, 25.53), (1.404, 25.66), (1.858, 25.56)),
        ((1524944, 26.32), (2432906, 26.45)),
        ((948542, 26.17), (2586313, 26.48)),
    ),
    "ficus": (
        ((1.011, 32.87), (1.394, 33.03), (1.968, 33.17)),
        ((990170, 34.90), (1608830, 35.30)),
        ((675283, 34.53), (1486147, 35.25)),
    ),
    "hotdog": (
        ((0.529, 35.93), (0.750, 36.20), (1.118, 36.37)),
        ((669201, 37.11), (1020055, 37.87)),
        ((468294, 36.53), (1031589, 37.89)),
    ),
    "lego": (
        ((0.787, 34.93), (1.114, 35.16), (1.647, 35.50)),
        ((1313656, 35.04), (1997013, 35.67)),
        ((843579, 34.33), (1916902, 35.77)),
    ),
    "materials": (
        ((0.988, 29.54), (1.401, 29.58), (2.000, 29.56)),
        ((1518967, 30.53), (2171391, 30.70)),
        ((908381, 30.22), (1994077, 30.71)),
    ),
    "mic": (
        ((0.555, 33.48), (0.759, 33.68), (1.208, 33.74)),
        ((700763, 35.92), (1063256, 36.71)),
        ((458123, 35.21), (1146618, 36.79)),
    ),
    "ship": (
        ((0.766, 29.15), (1.090, 29.19), (1.712, 29.34)),
        ((2089707, 31.38), (3558867, 31.52)),
        ((1360632, 31.26), (3593260, 31.54)),
    ),
}


def _scenes() -> list[Published]:
    rows = []
    for scene, (mask_dwt, hac, hac_plus) in _PER_SCENE.items():
        rows += [
            Published("MaskDWT", scene, _FULL, _points(MB, *mask_dwt), _MASK_DWT, _OWN),
            Published("HAC", scene, _FULL, _points(1, *hac), _HAC, _GAUSSIANS),
            Published("HAC++", scene, _FULL, _points(1, *hac_plus), _HAC_PLUS, _GAUSSIANS),
        ]
    return rows


_SHACIRA_PAGE = "SHACIRA (Girish et al., ICCV 2023), project page"
_SHACIRA_COUNT = (
    "pooled zeroth-order entropy of the latents, networks at 32 bits, no occupancy; an estimate, "
    "no file is written"
)
_CNC = "CNC (Chen et al., CVPR 2024), its repository"
_CNC_COUNT = "context networks at 32 bits, occupancy estimated; no file that decodes"
_FIGURE = "digitised from a figure of a public repository"
_OWN = "as its authors count"

# (system, unit, Synthetic-NeRF, Tanks and Temples, source, what is counted), (size, PSNR) each.
_MEANS: tuple[tuple[str, int, tuple, tuple, str, str], ...] = (
    (
        *("CNC", MIB),
        ((0.42, 33.19), (0.517, 33.46), (0.637, 33.65), (0.72, 33.69)),
        ((0.49, 28.61), (0.66, 28.75), (0.865, 28.83), (1.305, 28.97)),
        *(f"{_CNC}, figure", _CNC_COUNT),
    ),
    (
        *("CNC, run by others", MB),
        ((0.613, 31.70), (0.765, 32.49), (0.850, 32.68), (0.991, 33.16)),
        ((0.720, 28.15), (0.884, 28.32), (1.090, 28.51), (1.532, 28.76)),
        *(f"{_CATRF_3RD}; conditions unknown", _OWN),
    ),
    (
        *("BiRF", MB),
        ((0.70, 31.53), (1.40, 32.64), (2.80, 33.26), (5.8, 33.59)),
        ((0.80, 28.06), (1.60, 28.49), (3.1, 28.68), (6.0, 28.72)),
        *(f"BiRF (NeurIPS 2023), {_FIGURE}", _OWN),
    ),
    (
        *("MaskDWT", MB),
        ((0.826, 31.94), (1.16, 32.13), (1.69, 32.24)),
        ((0.916, 27.77),),
        *(_MASK_DWT, _OWN),
    ),
    ("VQ-DVGO", MB, ((1.4, 31.77),), ((1.4, 28.26),), f"VQRF (CVPR 2023), {_FIGURE}", _OWN),
    ("VQ-TensoRF", MB, ((3.6, 32.86),), ((3.3, 28.20),), f"VQRF (CVPR 2023), {_FIGURE}", _OWN),
    ("Re:DVGO", MB, ((2.0, 31.08),), ((1.6, 27.90),), f"Re:NeRF (WACV 2023), {_FIGURE}", _OWN),
    ("Re:TensoRF", MB, ((7.9, 32.81),), ((6.7, 28.24),), f"Re:NeRF (WACV 2023), {_FIGURE}", _OWN),
    (
        *("NeRFCodec", MB),
        ((1.18, 31.68), (1.84, 32.19)),
        ((1.08, 27.42), (1.88, 27.91)),
        *(_CATRF_3RD, _OWN),
    ),
    (
        *("ECRF", MB),
        ((0.8, 32.20), (1.3, 32.72), (2.5, 33.05)),
        ((0.8, 28.14), (1.4, 28.31), (2.5, 28.41)),
        *(_CATRF_3RD, _OWN),
    ),
    (
        *("CAwa-NeRF", MB),
        ((0.53, 32.31), (1.2, 33.0)),
        (),
        *("CAwa-NeRF (2023), claimed in its abstract", _OWN),
    ),
    (
        *("Plenoptic PNG", MB),
        ((0.151, 28.89), (2.49, 30.99), (32.8, 31.90)),
        ((2.49, 27.23), (32.8, 27.83)),
        *(_CATRF_3RD, "one file that decodes"),
    ),
    (
        *("CATRF", MB),
        ((0.448, 32.17), (0.570, 32.49), (0.691, 32.68), (0.855, 32.90)),
        ((0.468, 28.19), (0.598, 28.48), (0.728, 28.67), (0.876, 28.97)),
        *("CATRF (CVPR 2026 Findings), the authors' plot file in its repository", _OWN),
    ),
    ("HAC", MB, ((1.236, 33.24), (1.951, 33.71)), (), _HAC, _GAUSSIANS),
    ("HAC++", MB, ((0.794, 32.77), (1.934, 33.76)), (), _HAC_PLUS, _GAUSSIANS),
    ("Instant-NGP", MB, ((40.3, 33.18),), ((45.3, 28.73),), _FIGURE, "half floats in zlib"),
)


def _means() -> list[Published]:
    rows = []
    for system, unit, synthetic, tanks, source, counted in _MEANS:
        for scene, size, pairs in ((SYNTHETIC, _FULL, synthetic), (TANKS, None, tanks)):
            points = _points(unit, *pairs)
            rows += [Published(system, scene, size, points, source, counted)] if pairs else []
    return rows


_LEGO_LEVELS = ((233, None), (507, None), (800, None), (1028, None), (1220, None))
PUBLISHED: tuple[Published, ...] = (
    *_scenes(),
    Published(
        "SHACIRA",
        "lego",
        None,
        _points(1000, *_LEGO_LEVELS),
        f"{_SHACIRA_PAGE}, streaming_lod_5.png: levels up to 13, 17, 20, 22 and 24",
        _SHACIRA_COUNT,
    ),
    Published(
        "SHACIRA", V8, None, _points(MB, (0.77, 27.79)), f"{_SHACIRA_PAGE}, V8.png", _SHACIRA_COUNT
    ),
    Published("VQAD", V8, None, _points(MB, (0.79, 26.69)), f"{_SHACIRA_PAGE}, V8.png", _OWN),
    Published(
        "Instant-NGP",
        V8,
        None,
        _points(MB, (48.90, 28.64)),
        f"{_SHACIRA_PAGE}, V8.png",
        "table and networks at 32 bits",
    ),
    Published("CNC", "ficus", _FULL, _points(MIB, (0.444, 34.35)), _CNC, _CNC_COUNT),
    Published("CNC", "mic", _FULL, _points(MIB, (0.442, 37.31)), _CNC, _CNC_COUNT),
    *_means(),
)
"""All of it."""


def published_for(scene: str) -> tuple[Published, ...]:
    """Curves on this scene; scenes of plans are called as in the papers."""
    return tuple(entry for entry in PUBLISHED if entry.scene.lower() == scene.lower())
