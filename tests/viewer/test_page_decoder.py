"""The decoder of the HTML page finds what Python's finds, in every file, and no scene in others."""

import hashlib
import json
import pathlib
import subprocess

import hypothesis
import numpy as np
import pytest
import strategies
import test_corruption
import test_independent_decoder
from synthetic_fields import make_field

from shacira_nerfstudio.codec import SceneFormatError, decode_scene, encode_scene, truncate
from shacira_nerfstudio.codec.scene_file import read_file
from shacira_nerfstudio.viewer.html import decoder_source

NODE = test_independent_decoder.NODE
GOLDEN = {path.stem: path.read_bytes() for path in test_independent_decoder.GOLDEN}
RUNNER = pathlib.Path(__file__).with_name("run_page_decoder.mjs")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node to run JavaScript with")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("decoder") / "decoder.js"
    path.write_text(decoder_source(), encoding="utf-8")
    return path


@pytest.fixture
def decode(source, tmp_path):
    """Decodes files in one process: for each what its decoder posted."""

    def decode(files, *, any_kind=False, wants_scene=False, allow_truncated=False):
        options = {"isField": not any_kind, "allowTruncated": allow_truncated}
        jobs = []
        for number, data in enumerate(files):
            path = tmp_path / f"{number}.shacira"
            path.write_bytes(data)
            job = {"path": str(path), "options": options, "wants_scene": wants_scene}
            jobs.append(json.dumps(job))
        run = subprocess.run(
            [str(NODE), str(RUNNER), str(source)],
            input="\n".join(jobs),
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return [json.loads(line) for line in run.stdout.splitlines()]

    return decode


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def level_digests(scene):
    return [sha256(scene.level_symbols(level)) for level in range(scene.num_coded_levels)]


def check(found, data, **options):
    """Demands what Python finds in a file."""
    content = read_file(data, **options)
    scene, is_truncated = content.scene, content.is_truncated
    assert "message" not in found, found["message"]
    assert found["types"] == ["header", *["level"] * scene.num_coded_levels, "done"]
    assert found["levels"] == level_digests(scene)
    assert found["digest"] == (None if is_truncated else content.digest)
    assert found["truncatedAt"] == (scene.num_coded_levels if is_truncated else None)
    assert found["occupancy"] == (None if scene.occupancy is None else sha256(scene.occupancy))


def test_golden_files(decode):
    names = [name for name in GOLDEN if name in ("v1_tiny", "v1_tiny_video")]
    files = [GOLDEN[name] for name in names]
    results = decode(files, any_kind=True)
    for found, data in zip(results, files, strict=True):
        check(found, data)
    assert results[0]["array_types"] == ["Int16Array", *["Int8Array"] * 4]  # the first has a -300
    # They have no networks to render with, and the page says so.
    messages = {name: decode([data])[0]["message"] for name, data in GOLDEN.items()}
    assert messages["v1_tiny"] == "HEAD: expected a number hidden_dim"
    assert "found a picture" in messages["v1_tiny_image"]
    assert "expected a radiance field" in messages["v1_tiny_video"]


KINDS = [("affine", 1), ("affine", 2), ("contracted", 1), ("contracted", 3)]


@pytest.mark.parametrize(("contraction", "latent_dim"), KINDS)
def test_everything_of_a_field(decode, contraction, latent_dim):
    packed = make_field(contraction, latent_dim)
    data = encode_scene(packed)
    (found,) = decode([data], wants_scene=True)
    check(found, data)
    assert set(found["array_types"]) == {"Int8Array"}
    scene, grid, rendering = found["scene"], packed.grid, packed.rendering
    assert (scene["latentDim"], scene["numLevels"]) == (latent_dim, 6)
    assert (scene["totalBytes"], scene["log2HashmapSize"]) == (len(data), 10)
    for number, level in enumerate(scene["levels"]):
        assert level["resolution"] == list(grid.resolutions[number])
        assert level["numEntries"] == grid.table_sizes[number]
        assert level["offset"] == grid.offsets[number]
        assert level["isHashed"] == (not grid.is_dense(number))
    for network in ("density", "color"):
        for index, layer in enumerate(scene[network]):
            weight, bias = (
                packed.weights[f"{network}_mlp.{index}.{part}"].dequantize()
                for part in ("weight", "bias")
            )
            assert [layer["outputs"], layer["inputs"]] == list(weight.shape)
            assert np.float32(layer["weight"]).tobytes() == weight.tobytes()
            assert np.float32(layer["bias"]).tobytes() == bias.tobytes()
    assert scene["occupancy"]["resolution"] == list(packed.occupancy.shape)
    march = scene["march"]
    assert march["contraction"] == contraction
    assert np.array_equal(march["box"], rendering.box)
    names = {"nearPlane": "near", "farPlane": "far", "stepSize": "step_size", "knee": "knee"}
    assert {name: march[name] for name in names} == {
        name: getattr(rendering, mine) for name, mine in names.items()
    }
    assert scene["earlyStop"] == rendering.early_stop
    assert scene["background"] == {
        "kind": rendering.background,
        "color": list(rendering.background_color),
    }
    for number, camera in enumerate(scene["cameras"]):
        pose = packed.cameras.camera_to_worlds[number].ravel()
        assert np.float32(camera["cameraToWorld"]).tobytes() == pose.tobytes()
        optics = [camera[name] for name in ("fx", "fy", "cx", "cy")]
        assert optics == packed.cameras.intrinsics[number].tolist()
        size = packed.cameras.sizes[number].tolist()
        assert [camera["width"], camera["height"]] == size
    assert scene["metadata"] == packed.meta
    assert (scene["geoFeatures"], scene["shDegree"]) == (3, 2)
    assert sum(part["bytes"] for part in scene["parts"]) == len(data)


def test_many_scenes(decode):
    """Levels of all kinds, axes that differ, one to three channels, with and without occupancy."""
    fields = [test_independent_decoder.any_scene("video", (60, 40, 11), None)]
    occupancy = np.random.default_rng(0).random((11, 30, 7)) < 0.3
    fields.append(test_independent_decoder.any_scene("video", (20, 90, 15), occupancy))

    @strategies.modest(15)
    @hypothesis.given(strategies.scenes())
    def collect(scene):
        if scene.grid.num_dims == 3:
            fields.append(scene)

    collect()
    files = [encode_scene(scene) for scene in fields]
    files += [truncate(files[0], max_level=level) for level in (0, 3)]
    for found, data in zip(decode(files, any_kind=True), files, strict=True):
        check(found, data)
    assert len(files) > 6


def test_files_without_their_end(decode):
    data = GOLDEN["v1_tiny"]
    first = data.index(test_corruption.part("LATN")) + len(test_corruption.part("LATN"))
    whole = [data[:length] for length in range(first, len(data), 71)]
    for found, part in zip(decode(whole, any_kind=True, allow_truncated=True), whole, strict=True):
        check(found, part, allow_truncated=True)
    early = [data[:length] for length in range(0, first, 23)]
    refused(decode([*early, *whole], any_kind=True))
    refused(decode(early, any_kind=True, allow_truncated=True))


def refused(results):
    """Demands one line of words, and nothing like a bug of the decoder."""
    for found in results:
        assert found["types"][-1] == "error" and "done" not in found["types"]
        assert "\n" not in found["message"] and not found["message"].startswith(
            ("TypeError", "ReferenceError", "SyntaxError", "InternalError")
        ), found["message"]
        assert found["seconds"] < 10


def test_damaged_files(decode):
    data = GOLDEN["v1_tiny"]
    flips = []
    for position in range(0, len(data), 3):
        broken = bytearray(data)
        broken[position] ^= 1 + position % 255
        flips.append(bytes(broken))
    files = [*flips, *test_independent_decoder.DAMAGED.values(), data + b"\0"]
    for change in test_corruption.NOT_CANONICAL:
        head = test_corruption.part("HEAD")
        files.append(test_corruption.replaced(HEAD=head[:34] + change(head[34:])))
    for tag, offset, dtype, value, _ in test_corruption.BAD_NUMBERS.values():
        payload = bytearray(test_corruption.part(tag))
        number = np.array(value, dtype).tobytes()
        payload[offset : offset + len(number)] = number
        files.append(test_corruption.replaced(**{tag: bytes(payload)}))
    refused(decode(files, any_kind=True))


def forgeries(count=12):
    """Damage behind right checksums, in every section."""
    for tag in sorted({tag for tag, _ in test_corruption.PARTS}):
        payload = test_corruption.part(tag)
        rng = np.random.default_rng(len(tag) + len(payload))
        for length in (0, 1, len(payload) // 2, len(payload) - 1):
            yield test_corruption.replaced(**{tag: payload[:length]})
        yield test_corruption.replaced(**{tag: payload + b"\0"})
        for position in rng.permutation(len(payload))[:count].tolist():
            broken = bytearray(payload)
            broken[position] ^= 1 << int(rng.integers(8))
            yield test_corruption.replaced(**{tag: bytes(broken)})


def test_forged_files_get_the_same_verdict(decode):
    files, num_taken = list(forgeries()), 0
    for found, data in zip(decode(files, any_kind=True), files, strict=True):
        try:
            decode_scene(data)
        except SceneFormatError:
            refused([found])
        else:
            check(found, data)
            num_taken += 1
    assert 0 < num_taken < len(files) / 2


@pytest.mark.parametrize("name", test_corruption.HOSTILE)
def test_20_kilobytes_take_at_most_200_megabytes(decode, name):
    (found,) = decode([test_corruption.HOSTILE[name]()], any_kind=True)
    assert found["types"][-1] == "done" and found["array_bytes"] < 200e6


def test_networks_that_do_not_fit(decode):
    packed = make_field()
    weights = dict(packed.weights)
    one_less = {name: weights[name] for name in weights if name != "color_mlp.1.bias"}
    changes = [
        {"weights": one_less},
        {"weights": {**weights, "color_mlp.3.bias": weights["color_mlp.0.bias"]}},
        {"weights": {**weights, "density_mlp.0.bias": weights["color_mlp.2.bias"]}},
        {"architecture": {**packed.architecture, "sh_degree": 5}},
        {"architecture": {**packed.architecture, "hidden_dim": "many"}},
        {"architecture": {}},
        {"rendering": None},
    ]
    results = decode([encode_scene(make_field(**change)) for change in changes])
    refused(results)
    assert all(
        found["message"].startswith(("WGTS", "HEAD", "sh_degree", "expected sh_degree"))
        for found in results
    )
