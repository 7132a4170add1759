"""The web server of `cryogan watch`: read-only, for those who know its address.

Whoever asks needs the token in the address, and has to name this computer in the Host header: a
page of another site cannot reach the server through a name of its own that it points here (DNS
rebinding).
"""

import hmac
import ipaddress
import re
import secrets
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from cryogan.errors import InputError
from cryogan.watch.site import Answer, Site

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PATH = re.compile(r"/([\w-]{1,100})(?:/(.*))?", re.ASCII)
_SILENT_S = 30.0  # after which a connection on which nothing comes is closed


class WatchServer(ThreadingHTTPServer):
    """The server; `serve_forever` runs it, and `url` is the address to open.

    Args:
        site: what it answers.
        host: name or address to listen at.
        port: to listen at; 0 for any that is free.

    Raises:
        InputError: it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, site: Site, host: str = "127.0.0.1", port: int = 0) -> None:
        self.site = site
        self.token = secrets.token_urlsafe(18)
        self._host = host
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family = found[0][0]
            super().__init__(found[0][4][:2], _Handler)  # type: ignore[arg-type]
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"Cannot listen at {host}, port {port} ({reason}); give another --host or --port "
                "(0: any that is free)."
            ) from error

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self.server_address[1])

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach it."""
        return ipaddress.ip_address(str(self.server_address[0])).is_loopback

    @property
    def url(self) -> str:
        """The address of the page, with the token."""
        host = self._host
        if ipaddress.ip_address(str(self.server_address[0])).is_unspecified:
            host = socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/{self.token}/"

    def accepts(self, host: str | None) -> bool:
        """Whether a Host header names this computer: an address, localhost, or its own name."""
        try:
            name = urlsplit(f"//{host}").hostname if host else None
        except ValueError:
            return False
        if name is None:
            return False
        if name in ("localhost", self._host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            own = (socket.gethostname(), socket.getfqdn())
            return not self.is_local and name in {each.lower() for each in own}
        return address.is_loopback if self.is_local else True

    def answer(self, target: str) -> Answer | None:
        """What there is at a request's target; None without the token or if there is nothing."""
        found = _PATH.fullmatch(urlsplit(target).path)
        if found is None or not hmac.compare_digest(found[1], self.token):
            return None
        return self.site.answer(found[2]) if found[2] is not None else None

    def is_bare(self, target: str) -> bool:
        """Whether a target is the page's address without the slash at its end."""
        return hmac.compare_digest(urlsplit(target).path.encode(), f"/{self.token}".encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    server_version = "cryogan"
    sys_version = ""
    timeout = _SILENT_S

    def do_GET(self) -> None:
        self._respond(with_content=True)

    def do_HEAD(self) -> None:
        self._respond(with_content=False)

    def _respond(self, *, with_content: bool) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.accepts(hosts[0]):
            self._send(HTTPStatus.FORBIDDEN, _text("Open the address that cryogan watch prints."))
            return
        try:
            answer = self.server.answer(self.path)
            if answer is None and self.server.is_bare(self.path):
                moved = {"Location": f"/{self.server.token}/"}
                self._send(HTTPStatus.MOVED_PERMANENTLY, _text(""), moved)
                return
        except ValueError:  # a target that is no address
            answer = None
        except Exception as error:  # one request must not end the others
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, _text(f"{type(error).__name__}: {error}"))
            return
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, _text("There is nothing here."), None, with_content)
        else:
            self._send(HTTPStatus.OK, answer, None, with_content)

    def _send(
        self,
        status: HTTPStatus,
        answer: Answer,
        headers: dict[str, str] | None = None,
        with_content: bool = True,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        for name, value in (_HEADERS | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if with_content:
            self.wfile.write(answer.content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line."""


def _text(words: str) -> Answer:
    return Answer(words.encode(), "text/plain; charset=utf-8")
