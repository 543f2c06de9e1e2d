"""The whole viewer, spoken to as a browser speaks to it: pictures, clients, files, strangers."""

import contextlib
import http.client
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from synthetic_ball import make_ball
from view_client import LIMIT_S, ViewClient, serving
from websockets.exceptions import InvalidStatus

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.codec import encode_scene, truncate
from shacira_nerfstudio.compression.pack import unpack_scene
from shacira_nerfstudio.viewer.live.camera_space import ViewPose
from shacira_nerfstudio.viewer.live.server import start_server, stop_server
from shacira_nerfstudio.viewer.live.session import Session
from shacira_nerfstudio.viewer.live.shown_scene import ShownScene


@pytest.fixture(scope="module")
def packed():
    return make_ball(log_density=5.0)


@pytest.fixture(scope="module")
def data(packed):
    return encode_scene(packed)


@pytest.fixture
def serve(tmp_path, data):
    """Starts the viewer of files with some bytes; gives its port."""
    with contextlib.ExitStack() as stack:
        yield lambda *contents: stack.enter_context(serving(tmp_path, contents or [data]))


@pytest.fixture
def client_of():
    """Opens clients, and closes them."""
    clients = []

    def connect(port, **options):
        clients.append(ViewClient(port, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def sessions():
    return [t for t in threading.enumerate() if t.name == "shacira view"]


def look(client, **pose):
    """Moves the camera of a client; gives the picture after that.

    In two windows, for the shape of a picture tells whether it is one of those before.
    """
    client.receive(lambda: client.says("pixels in"))
    for aspect, height in ((1.25, 205), (1.5, 171)):
        client.look(**pose, aspect=aspect)
        client.receive(lambda height=height: client.shows(256, height))
    return client.images[-1]


def difference(image, other):
    """Of two pictures, from 0 to 255 at each pixel."""
    return np.abs(image.astype(int) - other).max(-1)


def test_a_camera_that_rests_gets_the_picture_of_the_library(serve, client_of, packed):
    port = serve()
    client = client_of(port)
    client.receive(lambda: client.says("pixels in"))
    # The viewer places the browser's camera; here the browser answers with one of its own.
    assert {"SetCameraPositionMessage", "SetCameraLookAtMessage"} <= client.camera.keys()
    client.images.clear()
    pose = {"position": (0.0, 0.2, 3.0), "fov": 0.75, "aspect": 1.5}
    client.set("Resolution", "512")
    client.receive(lambda: client.says("512 x 341 pixels"))
    client.look(**{**pose, "aspect": 1.25})
    client.receive(lambda: client.shows(512, 410))
    client.images.clear()
    client.look(**pose)
    client.receive(lambda: client.shows(512, 341))
    space = ShownScene(packed, lambda: None).camera_space()
    camera = space.camera(
        ViewPose((0, 1, 0, 0), pose["position"], pose["fov"], pose["aspect"]), 512, 341
    )
    expected = unpack_scene(packed, get_backend("auto", "cpu")).render_view(camera).numpy()
    error = ((client.images[-1] / 255 - expected) ** 2).mean()
    assert expected.std() > 0.05
    assert -10 * np.log10(error) > 32  # of a picture of noise, as JPEG
    assert [image.shape[1] for image in client.images[:1]] < [512]  # few pixels first


def test_each_client_has_a_camera_and_controls_of_its_own(serve, client_of):
    port = serve()
    first, second = client_of(port, position=(0, 0, 3.0)), client_of(port, position=(0, 0, 3.0))
    before, _ = (look(client, position=(0, 0.1, 3.0)) for client in (first, second))
    second.set("Output", "accumulation")
    second.receive(lambda: second.shows(256, 171) and np.ptp(second.images[-1], axis=-1).max() < 12)
    again = look(first, position=(0, 0.1, 3.0))
    assert difference(again, before).max() < 30  # as it was, in colour


@pytest.mark.parametrize("end", ["close", "die"])
def test_a_client_that_goes_ends_its_work(serve, client_of, end, caplog):
    port, others = serve(), len(sessions())
    client = client_of(port)
    client.receive(lambda: bool(client.images))
    assert len(sessions()) == others + 1
    client.look(position=(0, 0.1, 3.0))
    getattr(client, end)()
    give_up = time.monotonic() + LIMIT_S
    while len(sessions()) != others and time.monotonic() < give_up:
        time.sleep(0.05)
    assert len(sessions()) == others
    assert "drawing failed" not in caplog.text
    again = client_of(port)
    again.receive(lambda: bool(again.images))


def test_a_picture_for_a_client_that_went_is_nobody_s(client_of):
    """viser forgets a client while a picture for it is being drawn, and sooner than it says so."""
    server, handles = start_server("127.0.0.1", 0, label=""), queue.Queue()
    try:
        server.on_client_connect(handles.put)
        client = client_of(server.get_port())
        handle = handles.get(timeout=LIMIT_S)
        session = Session(handle, [])
        image = np.zeros((4, 4, 3), np.uint8)
        session.show_frame(image)
        client.close()
        while server.get_clients():
            time.sleep(0.01)
        with pytest.raises(KeyError):  # what the session has to expect
            while True:
                handle.flush()
                time.sleep(0.01)
        session.show_frame(image)
        assert session.is_closed
    finally:
        stop_server(server)


def test_a_client_that_sends_nonsense_is_told_and_can_go_on(serve, client_of, capfd):
    client = client_of(serve())
    client.receive(lambda: client.says("pixels in"))
    client.look(fov=float("nan"))
    client.receive(lambda: client.says("expected a finite camera"))
    client.look()
    client.receive(lambda: client.says("pixels in"))  # its words come before the error's
    client.set("Resolution", "1000000")
    client.receive(lambda: client.says("expected side of"))
    client.set("Resolution", "256")
    client.look(position=(0, 0, 3.0))
    client.receive(lambda: client.says("256 x 171 pixels"))
    assert "Traceback" not in capfd.readouterr().err


def test_a_file_that_grows_gains_levels_in_the_browser(serve, client_of, data, tmp_path):
    from shacira_nerfstudio.codec.container import unpack_sections
    from shacira_nerfstudio.codec.sections.table import KNOWN

    last = unpack_sections(data, known=KNOWN)[-1].offset
    client = client_of(serve(data[:last]))
    client.receive(lambda: client.says("2 of 3 levels"))
    before = look(client, position=(0, 0.1, 3.0))
    (tmp_path / "scene0.shacira").write_bytes(data)
    client.receive(lambda: client.says(f"{len(data):,} bytes, 3 levels"))
    client.receive(
        lambda: client.shows(256, 171) and difference(client.images[-1], before).max() > 15
    )


def line(client):
    """Column of a picture in which the divider stands."""
    return np.abs(client.images[-1][40].astype(int) - (255, 170, 40)).sum(-1).argmin()


def test_two_files_have_a_divider(serve, client_of, data):
    client = client_of(serve(data, data))
    look(client, position=(0, 0.1, 3.0))
    for divider in (0.25, 0.75):
        client.set("Divider", divider)
        client.receive(lambda x=256 * divider: client.shows(256, 171) and abs(line(client) - x) < 3)
    assert client.says("scene0.shacira") and client.says("scene1.shacira")


def test_the_slider_reaches_the_levels_of_files_that_come_later(serve, client_of, data, tmp_path):
    client = client_of(serve(data[:30], truncate(data, max_level=1)))
    client.receive(lambda: client.says("pixels in"))
    assert client.control("Levels")["max"] == 2
    (tmp_path / "scene0.shacira").write_bytes(data)
    client.receive(lambda: client.control("Levels")["max"] == 3)
    client.receive(lambda: client.says(f"{len(data):,} bytes, 3 levels"))
    assert client.control("Levels")["value"] == 3
    before = look(client, position=(0, 0.1, 3.0))
    client.set("Levels", 1)
    client.receive(
        lambda: client.shows(256, 171) and difference(client.images[-1], before)[:, :120].max() > 30
    )


def test_stored_cameras_are_shown_and_can_be_clicked(serve, client_of):
    client = client_of(serve())
    client.receive(lambda: client.says("pixels in"))
    client.set("Stored cameras", True)
    client.receive(lambda: client.says("/cameras/2"))
    client.camera.clear()
    click = {"name": "/cameras/2", "instance_index": None, "screen_pos": (0.5, 0.5)}
    ray = {"ray_origin": (0.0, 0, 0), "ray_direction": (0.0, 0, 1)}
    client._send("SceneNodeClickMessage", {**click, **ray})
    client.receive(lambda: "SetCameraFovMessage" in client.camera)
    position = np.array(client.camera["SetCameraPositionMessage"]["position"])
    assert position[2] > 0 and np.allclose(position[:2], 0)
    client.set("Stored cameras", False)
    client.receive(lambda: client.says("RemoveSceneNodeMessage"))


# ── strangers ──


def ask(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    return reply.status, reply.read()


def test_nothing_but_the_page_is_served(serve):
    port = serve()
    status, page = ask(port, "/")
    assert status == 200 and b"<html" in page
    assert ask(port, "/index.html?x=1")[0] == 200
    up = "/.." * 12
    for path in (f"{up}/etc/hostname", "/assets/../index.html", "/assets", "//etc/hostname"):
        assert ask(port, path)[0] == 404, path
    assert ask(port, "/%2e%2e/%2e%2e/etc/hostname")[0] == 404


def test_the_page_may_not_ask_other_machines(serve):
    port = serve()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.request("GET", "/")
    policy = connection.getresponse().headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy
    assert f"ws://127.0.0.1:{port} " in policy


def test_pages_of_others_are_not_answered(serve):
    port = serve()
    assert ask(port, "/", Host=f"localhost:{port}")[0] == 200
    assert ask(port, "/", Host=f"evil.example:{port}")[0] == 403
    assert ask(port, "/", Origin="http://evil.example")[0] == 403
    with pytest.raises(InvalidStatus, match="403"):
        ViewClient(port, origin="http://evil.example")
    ViewClient(port, origin=f"http://127.0.0.1:{port}").close()


def test_no_tunnel_is_opened(serve, client_of, monkeypatch):
    import viser._viser

    def tunnel(*_):
        raise AssertionError("a tunnel")

    monkeypatch.setattr(viser._viser, "ViserTunnel", tunnel)
    client = client_of(serve())
    client._send("ShareUrlRequest", {})
    client.receive(lambda: client.says("pixels in"))


def test_nothing_listens_beyond_loopback(serve):
    port = serve()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but names our own address
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]
    with socket.socket() as probe:
        assert probe.connect_ex((own, port)) != 0


# ── the command ──


def test_a_port_that_is_taken_is_said(tmp_path, data, capsys):
    path = tmp_path / "scene.shacira"
    path.write_bytes(data)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert cli.main(["view", str(path), "--port", port]) == 2
    error = capsys.readouterr().err
    assert f"port {port}" in error and "in use" in error and "--port 0" in error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"--port": "70000"}, "from 0 to 65535"),
        ({"--host": "192.0.2.7"}, "not possible"),
        ({"--host": "no such host"}, "not possible"),
    ],
)
def test_addresses_that_cannot_be_listened_on(tmp_path, data, capsys, arguments, reason):
    path = tmp_path / "scene.shacira"
    path.write_bytes(data)
    [(name, value)] = arguments.items()
    assert cli.main(["view", str(path), name, value]) == 2
    assert reason in capsys.readouterr().err


def test_a_device_that_is_not_there(tmp_path, data, capsys):
    path = tmp_path / "scene.shacira"
    path.write_bytes(data)
    assert cli.main(["view", str(path), "--port", "0", "--device", "cuda:77"]) == 2
    assert "expected a device that is there" in capsys.readouterr().err


def test_damaged_and_missing_files_end_the_command(tmp_path, data, capsys):
    path = tmp_path / "scene.shacira"
    assert cli.main(["view", str(path)]) == 2
    assert "found none" in capsys.readouterr().err
    damaged = bytearray(data)
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    assert cli.main(["view", str(path)]) == 2
    assert "CRC-32" in capsys.readouterr().err
    assert cli.main(["view"]) == 2


def test_ctrl_c_ends_the_command(tmp_path, data):
    path = tmp_path / "scene.shacira"
    path.write_bytes(data)
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-m", "shacira_nerfstudio.cli.main", "view", str(path), "--port=0"]
    process = subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"},
        # Tests that run in the background of a script have it ignored, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split("127.0.0.1:")[1].split()[0])
        client = ViewClient(port)
        client.receive(lambda: bool(client.images))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and "Traceback" not in err
    assert "stopped" in out
