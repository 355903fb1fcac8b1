"""Known vulnerabilities are found, by a service that stands for those of OSV and npm, which no test reaches."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from templates import PROJECT

from infra.gate.compliance import expiry

PILLOW, CDK = "PYSEC-2099-1", "GHSA-aaaa-bbbb-cccc"
EVER = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
OF_PILLOW = [{"package": {"name": "pillow", "ecosystem": "PyPI"}, "ranges": EVER}]
OF_CDK = {"id": 1, "url": f"https://github.com/advisories/{CDK}", "severity": "high", "vulnerable_versions": "*"}


class Service(BaseHTTPRequestHandler):
    """Knows one vulnerability of Pillow, by two names, and one of the CDK's command line."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        answer: object = {} if self.path.startswith("/clean") else {"aws-cdk": [OF_CDK]}
        if self.path == "/osv":
            known = {"id": PILLOW, "aliases": ["CVE-2099-1"], "summary": "", "details": "", "affected": OF_PILLOW}
            answer = {"vulns": [known]} if json.loads(asked)["package"]["name"] == "pillow" else {}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def audit(osv: str, npm: str, *options: str) -> tuple[bool, str]:
    """Whether `make vulnerabilities` succeeds, and all that it prints."""
    command = ["make", "vulnerabilities", f"AUDIT_OPTIONS=--osv-url={osv}/osv", *options]
    environment = {**os.environ, "npm_config_registry": npm, "npm_config_fetch_retries": "0"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def test_vulnerabilities_of_all_pins_are_found(service: str) -> None:
    passed, said = audit(service, service)
    files = [*PROJECT.glob("requirements*.txt"), *PROJECT.glob("benchmarks/requirements-*.txt")]
    assert [text for text in (PILLOW, CDK, *(path.name for path in files)) if text not in said] == []
    assert not passed and len(files) == 4


def test_an_exception_lets_pass_what_it_names_and_no_service_is_no_success(service: str, tmp_path: Path) -> None:
    exceptions, clean, nowhere = tmp_path / "exceptions.toml", f"{service}/clean", "http://127.0.0.1:9"
    one, none = f"PINS={PROJECT}/requirements.txt", "PINS="
    for name, *where, passes in (
        ("CVE-2099-1", service, clean, one, True),
        ("CVE-2099-2", service, clean, one, False),
        ("CVE-2099-1", nowhere, clean, one, False),
        ("CVE-2099-1", service, nowhere, none, False),
        ("CVE-2099-1", service, clean, none, False),  # found nowhere
        ("", service, clean, none, True),
    ):
        exceptions.write_text(f'[[exception]]\nid = "{name}"\n' if name else "", encoding="utf-8")
        assert audit(*where, f"EXCEPTIONS={exceptions}")[0] is passes, (name, where)


def test_exceptions_have_a_reason_and_hold_until_their_last_day() -> None:
    text = (PROJECT / "tests/security/origin/vulnerability_exceptions.toml").read_text(encoding="utf-8")
    for entry in tomllib.loads(text).get("exception", []):
        assert len(entry["reason"]) > 30
        assert expiry(entry["id"], entry["until"]) is None
