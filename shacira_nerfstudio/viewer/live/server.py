"""viser's server, made to serve nothing but the scene.

viser's own would hand out any file of the machine to a request such as `GET /../../etc/passwd`,
open a tunnel to a public address when a page asks for it, take another port without a word, talk to
any web page that the browser has open, and its page tells Google of each visit. Here each of these
is refused. Nor is anything compressed that goes no further than this machine, or is compressed
already: the cores are for rendering.
"""

from __future__ import annotations

import contextlib
import http
import io
import ipaddress
import re
import socket
import types
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import viser
from viser.infra import _infra

from shacira_nerfstudio.viewer.live.client.page_files import (
    LIGHT,
    START_PAGES,
    is_light,
    is_program,
    start_page,
    steady_program,
)

Reply = tuple[http.HTTPStatus, dict[str, str], bytes]
_PATH = re.compile(r"/(?:[\w,-][\w.,-]*/)*(?:[\w,-][\w,-]*\.[\w.,-]*)?")
"""Of the page's own files: no name begins with a dot."""


class SceneServer(viser.ViserServer):
    """A server on an address that is free, without a tunnel."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        del verbose
        return None


def start_server(host: str, port: int, *, label: str) -> SceneServer:
    """Starts to listen.

    Args:
        port: 0 takes any that is free.

    Raises:
        ValueError: the address is taken, or is not one of this machine.
        RuntimeError: this version of viser cannot be made safe.
    """
    port = _free_port(host, port)
    guard = _Guard(host)
    with guard.installed(), contextlib.redirect_stdout(io.StringIO()):  # it prints a table
        server = SceneServer(host=host, port=port, label=label, verbose=False)
    if not guard.is_used or server.get_port() != port:
        server.stop()
        if guard.is_used:
            raise ValueError(f"expected port {port} to be free, found it taken")
        raise RuntimeError(
            f"expected a viser that serves through websockets.server, as 0.2.7 does, found "
            f"{viser.__file__}"
        )
    return server


def stop_server(server: SceneServer) -> None:
    """Stops to listen and ends viser's threads."""
    buffer = server._websock_server._broadcast_buffer
    server.stop()
    buffer.flush()  # wakes its event loop, which notices then


def address(host: str, port: int) -> str:
    """What to type into a browser."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _free_port(host: str, port: int) -> int:
    """The port, after trying whether one can listen on it."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"expected a port from 0 to 65535, got {port}")
    try:
        infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, where in infos:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                port = port or probe.getsockname()[1]
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"expected to listen on {host} port {port}, found that this is not possible: {reason}; "
            "--port 0 takes any port that is free"
        ) from None
    return port


class _Guard:
    """Looks at each request before viser does."""

    def __init__(self, host: str) -> None:
        self._host, self.is_used = host, False

    @contextlib.contextmanager
    def installed(self) -> Any:
        """While this lasts, servers that viser starts are guarded.

        The name of a package is replaced inside of one module of viser; the package itself and its
        other users stay as they are.
        """
        package = _infra.websockets
        _infra.websockets = _Replaced(  # pyright: ignore[reportAttributeAccessIssue]
            package, server=_Replaced(package.server, serve=self._serve)
        )
        try:
            yield
        finally:
            _infra.websockets = package

    def _serve(self, handler: Any, *where: Any, process_request: Callable, **options: Any) -> Any:
        import websockets.server

        self.is_used = True

        async def look(path: str, headers: Any) -> Any:
            reply = self.refusal(path, headers) or await self._file(path, headers, process_request)
            if reply is None:
                return None  # a websocket
            status, answered, body = reply
            return status, {**answered, **_only_here(headers.get("Host", ""))}, body

        with warnings.catch_warnings():  # viser's choice of a server that is going out of use
            warnings.simplefilter("ignore", DeprecationWarning)
            serve: Any = websockets.server.serve  # pyright: ignore[reportAttributeAccessIssue]
        # Pictures are JPEG: there is nothing to gain from the compression of messages.
        return serve(handler, *where, process_request=look, compression=None, **options)

    async def _file(self, path: str, headers: Any, process_request: Callable) -> Reply | None:
        """A file of viser's page; None for what is no file."""
        path = path.partition("?")[0]
        if is_light(path):
            return http.HTTPStatus.OK, {"Content-Type": "image/vnd.radiance"}, LIGHT
        change = start_page if path in START_PAGES else steady_program if is_program(path) else None
        if change or is_loopback(self._host):
            headers = headers.copy()
            headers.pop("Accept-Encoding", None)
        reply = await process_request(path, headers)
        if reply is None or change is None:
            return reply
        status, answered, body = reply
        return status, answered, change(body)

    def refusal(self, path: str, headers: Any) -> Reply | None:
        """What is answered instead; None lets a request through."""
        own = headers.get("Host", "")
        if is_loopback(self._host) and not is_loopback(urlsplit(f"//{own}").hostname or ""):
            # Another name for this machine: a page of a stranger whose name leads here.
            return _reply(http.HTTPStatus.FORBIDDEN, f"not for {own}; --host lets others in")
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != own:
            return _reply(http.HTTPStatus.FORBIDDEN, f"not for pages of {origin}")
        if not _PATH.fullmatch(path.partition("?")[0]):
            return _reply(http.HTTPStatus.NOT_FOUND, "no such page")
        return None


def _only_here(own: str) -> dict[str, str]:
    """Headers that keep the page from asking other machines: viser's counts its users at Google."""
    policy = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; connect-src 'self'"
    own = own if re.fullmatch(r"[\w.:\[\]-]+", own) else ""
    return {"Content-Security-Policy": f"{policy} blob: data: ws://{own} wss://{own}"}


def _reply(status: http.HTTPStatus, reason: str) -> Reply:
    return status, {"Content-Type": "text/plain; charset=utf-8"}, f"{reason}\n".encode()


class _Replaced(types.ModuleType):
    """A module with some other attributes."""

    def __init__(self, module: types.ModuleType, **attributes: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(attributes)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
