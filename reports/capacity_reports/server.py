"""Serves the report of a study on this machine, and follows the study while its runs are made.

A thread looks for new runs and builds the page again. Readers get the page that was built last, so none of them waits.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from capacity.errors import CapacityError, DataError, SpecError
from capacity.runs.study import Study
from capacity_reports.document import Report
from capacity_reports.report import build_report
from capacity_reports.views import Options

HOST = "127.0.0.1"
_PAUSE = 1.0  # seconds between two looks at the study
_SHARE = 4  # a page is built again after at least so many times as long as it took to build
_HOSTS = ("127.0.0.1", "localhost")


@dataclass
class Page:
    """The page of a study as it was built last.

    Attributes:
        folder: the study folder.
        options: what the report asks.
        allow_mixed: runs that different environments made are taken together.
        html: the page.
        number: how often it was built.
        state: the names of the runs and failures that it shows.
    """

    folder: Path
    options: Options
    allow_mixed: bool = False
    html: str = ""
    number: int = 0
    state: tuple[str, ...] | None = None
    error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self) -> bool:
        """Builds the page again if the study has other runs than it shows; tells whether it did."""
        state = state_of(self.folder)
        if state == self.state:
            return False
        error = ""
        try:
            html = build_report([self.folder], options=self.options, allow_mixed=self.allow_mixed).html(follow=True)
        except CapacityError as found:  # nothing is complete yet, or the study cannot be read
            error = str(found)
            html = Report("No report yet", "", (), (), {}, "").html(follow=True) if not self.html else self.html
        with self.lock:
            self.html, self.state, self.error, self.number = html, state, error, self.number + 1
        return True

    def words(self) -> str:
        """How far the study is: "12 of 28 runs are complete, 1 failed"."""
        runs = sum(name.startswith("runs/") for name in self.state or ())
        failed = sum(name.startswith("failed/") for name in self.state or ())
        study = Study(self.folder)
        planned = len(study.plan()) if study.has_plan else 0
        text = f"{runs:,} of {planned:,} runs are complete" if planned > runs else f"{runs:,} runs are complete"
        return text + (f", {failed:,} failed" if failed else "") + (f"; {self.error}" if self.error else "")


def state_of(folder: Path) -> tuple[str, ...]:
    """The names of the complete and failed runs of a study."""
    found = [f"runs/{path.name}" for path in (folder / "runs").glob("*") if path.is_dir()]
    return tuple(sorted([*found, *(f"failed/{path.name}" for path in (folder / "failed").glob("*.json"))]))


class Server:
    """Serves one study, until it is closed.

    Args:
        folder: the study folder. It may still be empty.
        port: the port on 127.0.0.1; 0 takes any free one.
        options: what the report asks.
        allow_mixed: runs that different environments made are taken together.

    Raises:
        DataError: there is no such study folder.
        SpecError: the port is taken, or is none.
    """

    def __init__(self, folder: Path, port: int, options: Options, *, allow_mixed: bool = False) -> None:
        if not (folder / "runs").is_dir():
            raise DataError(f"{folder}: no such study folder")
        self.page = Page(folder, options, allow_mixed)
        try:
            self._http = ThreadingHTTPServer((HOST, port), _handler(self.page))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a port"
            raise SpecError(f"port {port} cannot be used ({reason}): choose another with --port") from None
        self._http.daemon_threads = True
        self._ended = threading.Event()
        self.page.refresh()
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    @property
    def address(self) -> str:
        """The address for a browser."""
        return f"http://{HOST}:{self._http.server_port}/"

    def serve(self) -> None:
        """Answers readers until the server is closed, or Ctrl-C."""
        self._http.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Ends the server."""
        self._ended.set()
        self._http.server_close()

    def _follow(self) -> None:
        pause = _PAUSE
        while not self._ended.wait(pause):
            began = time.monotonic()
            try:
                built = self.page.refresh()
            except Exception as error:  # one page that cannot be built must not end the server
                self.page.error = " ".join(f"{type(error).__name__}: {error}".split())
                built = True
            pause = max(_PAUSE, _SHARE * (time.monotonic() - began)) if built else _PAUSE


def _handler(page: Page) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answers with the page, or with how far the study is."""
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in _HOSTS:  # a page of elsewhere must not read this one by a name of its own
                self._send(403, "text/plain; charset=utf-8", "not this host\n")
            elif self.path in ("/", "/index.html"):
                with page.lock:
                    self._send(200, "text/html; charset=utf-8", page.html)
            elif self.path == "/state":
                self._send(200, "application/json", json.dumps({"page": page.number, "words": page.words()}))
            else:
                self._send(404, "text/plain; charset=utf-8", "no such page\n")

        def _send(self, code: int, kind: str, text: str) -> None:
            content = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing: the terminal shows where the page is, and no more."""

    return Handler
