"""The audit of the locked dependencies: what is known to be vulnerable fails it; silence is not taken for health."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.audit import KNOWN
from tests.fixtures.ports import free_port

VULNERABLE = "urllib3==1.24.1"
WELL = "six==1.17.0"
HASH = " --hash=sha256:" + 64 * "0" + "\n"  # nothing is fetched by it here
# As OSV answers, of that release.
ADVISORY = {
    "id": "PYSEC-2019-133",
    "aliases": ["CVE-2019-11324"],
    "summary": "Certificates are verified by the system's authorities, too",
    "published": "2019-04-18T21:29:00Z",
    "schema_version": "1.7.3",
    "affected": [
        {
            "package": {"name": "urllib3", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.24.2"}]}],
        }
    ],
}
Question = dict[str, Any]
Answer = tuple[int, Question]


def knowing(question: Question) -> Answer:
    """A service that knows one release beside the one that everybody knows."""
    if question == KNOWN:
        return 200, {"vulns": [{"id": "PYSEC-2014-8"}]}
    is_it = f"{question['package']['name']}=={question['version']}" == VULNERABLE
    return 200, {"vulns": [ADVISORY]} if is_it else {}


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Question], Answer]], str]]:
    """Starts a service that answers as told; gives its address."""
    running: list[tuple[ThreadingHTTPServer, Thread]] = []

    def start(answer: Callable[[Question], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, body = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the library's name
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/v1/query"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def audited(lock: Path, service: str) -> subprocess.CompletedProcess[str]:
    """What `make check` runs."""
    command = [sys.executable, "-m", "tests.audit", str(lock), "--service", service]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def lock(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a lock."""

    def write(*pins: str) -> Path:
        path = tmp_path / "lock.txt"
        path.write_text("".join(pin + HASH for pin in pins))
        return path

    return write


def test_a_vulnerable_pin_fails(serve: Any, lock: Callable[..., Path]) -> None:
    """And is told of, with its advisory and the release that mends it."""
    result = audited(lock(WELL, VULNERABLE), serve(knowing))
    assert result.returncode == 1
    assert all(text in result.stdout for text in ("urllib3", "1.24.1", "PYSEC-2019-133", "1.24.2")), result
    assert "NOT AUDITED" not in result.stderr


def test_pins_of_which_nothing_is_known_pass(serve: Any, lock: Callable[..., Path]) -> None:
    """Everything was asked about, and nothing is wrong."""
    asked: list[str] = []

    def answer(question: Question) -> Answer:
        asked.append(question["package"]["name"])
        return knowing(question)

    result = audited(lock(WELL, "idna==3.11"), serve(answer))
    assert result.returncode == 0, result
    assert "No known vulnerabilities" in result.stderr
    assert "NOT AUDITED" not in result.stderr
    assert sorted(asked[1:]) == ["idna", "six"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda question: (200, {}), id="knows nothing at all"),
        pytest.param(lambda question: (404, {}), id="has no such page"),
        pytest.param(lambda question: (503, {}), id="is out of order"),
    ],
)
def test_a_service_that_cannot_tell_is_not_taken_for_good_news(
    serve: Any, lock: Callable[..., Path], answer: Callable[[Question], Answer]
) -> None:
    """It passes, and says that nothing was audited."""
    result = audited(lock(VULNERABLE), serve(answer))
    assert result.returncode == 0
    assert "NOT AUDITED" in result.stderr
    assert "No known vulnerabilities" not in result.stderr + result.stdout


def test_a_service_out_of_reach_is_told_of(lock: Callable[..., Path]) -> None:
    """The check can be run where there is no way out."""
    result = audited(lock(VULNERABLE), f"http://127.0.0.1:{free_port()}/v1/query")
    assert result.returncode == 0
    assert "NOT AUDITED" in result.stderr


def test_a_service_that_fails_half_way_fails_the_audit(serve: Any, lock: Callable[..., Path]) -> None:
    """Once it has answered, half an audit is none."""
    service = serve(lambda question: knowing(question) if question == KNOWN else (500, {}))
    assert audited(lock(WELL), service).returncode == 1


def test_a_pin_without_a_hash_fails(serve: Any, tmp_path: Path) -> None:
    """A lock that is none is a mistake."""
    path = tmp_path / "lock.txt"
    path.write_text(WELL + "\n")
    assert audited(path, serve(knowing)).returncode == 1
