"""Runs the conformance table for one language: prepares each row, and judges what the client made of it.

    conformance_server.py LANGUAGE [DIRECTORY]

The first line of its output is `{"url": …}`. What it serves there is described in conformance/README.md. It ends when
its input does, and leaves LANGUAGE.json in the directory, by default build/conformance.
"""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from conformance_compare import Observed, filled_in, problems_of
from conformance_rows import LANGUAGES, RESULTS, Row, load
from conformance_world import World

_ROW = "/rows/"


class Conformance:
    """One run of the table. Rows are run one at a time, in any order, and as often as one likes."""

    def __init__(self, results: Path) -> None:
        """Keep the outcomes in a file."""
        self._file = results
        self._rows = {row.name: row for row in load()}
        self._world = World()
        self._lock = threading.Lock()
        self._used: set[str] = set()
        self._results: dict[str, Any] = {}
        self._running: tuple[Row, dict[str, str], float] | None = None

    def names(self) -> list[str]:
        """Return the names of all rows, in order."""
        return list(self._rows)

    def begin(self, name: str) -> dict[str, Any]:
        """Prepare a row and return what the client is to do. Raises KeyError for a row that is not there."""
        with self._lock:
            if self._running:
                self._finish(["it was begun, and another row after it, without an outcome"])
            row, variables, address = self._world.begin(self._rows[name])
            self._running = row, variables, time.monotonic()
        return {
            "address": address,
            "method": row.full_method,
            "request": row.request,
            "metadata": row.metadata,
            "deadline": row.deadline,
            "repeat": row.repeat,
            "wait": row.wait,
        }

    def end(self, name: str, outcome: Any) -> list[str]:
        """Return what is wrong with the outcome. Raises KeyError unless the row has begun."""
        with self._lock:
            if not self._running or self._running[0].name != name:
                raise KeyError(name)
            row, variables, began = self._running
            front = self._world.front
            observed = Observed(
                attempts=tuple(front.attempts) if front else None,
                aws=tuple(self._world.sent_to_aws),
                products=self._world.products(variables["name"]),
                seconds=time.monotonic() - began,
                used=frozenset(self._used),
            )
            problems = problems_of(row, outcome, observed)
            if token := filled_in(row, observed):
                self._used.add(token)
            self._finish(problems)
        return problems

    def close(self) -> list[str]:
        """Stop everything and return what was wrong with the façades."""
        with self._lock:
            if self._running:
                self._finish(["it was begun, and has no outcome"])
            return self._world.close()

    def _finish(self, problems: list[str]) -> None:
        if self._running:
            row, _, began = self._running
            self._results[row.name] = {"problems": problems, "seconds": round(time.monotonic() - began, 3)}
            self._running = None
            self._world.end()
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self._results, indent=1, ensure_ascii=False), "utf-8")


def _handler(conformance: Conformance) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.rstrip("/") == "/rows":
                self._answer(HTTPStatus.OK, conformance.names())
            else:
                self._answer(HTTPStatus.NOT_FOUND, {"error": f"there is no {self.path}"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            name, _, what = unquote(self.path).removeprefix(_ROW).rpartition("/")
            actions: dict[str, Callable[[], Any]] = {
                "begin": lambda: conformance.begin(name),
                "end": lambda: {"problems": conformance.end(name, json.loads(body))},
            }
            try:
                answer = actions[what]()
            except Exception as error:  # noqa: BLE001 - the runner is to show it
                self._answer(HTTPStatus.BAD_REQUEST, {"error": f"{self.path}: {error!r}"})
            else:
                self._answer(HTTPStatus.OK, answer)

        def log_message(self, *_: object) -> None:
            """The runner says what it does."""

        def _answer(self, status: HTTPStatus, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


def main() -> int:
    """Serve until the input ends."""
    language, *directory = sys.argv[1:] or [""]
    if language not in LANGUAGES or len(directory) > 1:
        sys.stderr.write(f"usage: conformance_server.py {'|'.join(LANGUAGES)} [DIRECTORY]\n")
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    conformance = Conformance(Path(directory[0] if directory else RESULTS) / f"{language}.json")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(conformance))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
    server.shutdown()
    problems = conformance.close()
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
