"""Known vulnerabilities are found, by a service that stands for those of OSV and npm, which no test reaches."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import vulnerabilities

PILLOW, CDK = "PYSEC-2099-1", "GHSA-aaaa-bbbb-cccc"
EVER = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
OF_PILLOW = [{"package": {"name": "pillow", "ecosystem": "PyPI"}, "ranges": EVER}]
OF_CDK = {"id": 1, "url": f"https://github.com/advisories/{CDK}", "severity": "high", "vulnerable_versions": "*"}


class Service(BaseHTTPRequestHandler):
    """Knows one vulnerability of Pillow, by two names, and one of the CDK's command line."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        answer: object = {"aws-cdk": [OF_CDK]}
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


def exception(name: str, expires: str = "2099-01-01") -> str:
    return f"[[exception]]\nid = '{name}'\nreason = 'unused here'\nexpires = {expires}\n"


@pytest.mark.parametrize(
    ("exceptions", "status", "said"),
    [
        ("", 1, [f"pillow is vulnerable: CVE-2099-1, {PILLOW}", f"aws-cdk is vulnerable: {CDK}"]),
        (exception("CVE-2099-1") + exception(CDK), 0, ["unused here"]),
        (exception(PILLOW) + exception(CDK, "2026-01-01"), 1, [f"{CDK}: this exception has expired"]),
        (exception(PILLOW) + exception(CDK) + exception("CVE-1"), 1, ["CVE-1: this exception covers nothing"]),
        (None, 3, ["NOT CHECKED: requirements.txt: ", "NOT CHECKED: Node's: "]),
    ],
    ids=["found", "excepted", "expired", "unused", "no service"],
)
def test_status_and_words(
    service: str, exceptions: str | None, status: int, said: list[str],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if exceptions != "":  # once with all files is enough
        monkeypatch.setattr(vulnerabilities, "AUDITED", [vulnerabilities.ROOT / "requirements.txt"])
    url = service if exceptions is not None else "http://127.0.0.1:9"
    monkeypatch.setenv("npm_config_registry", url)
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    assert vulnerabilities.main(exceptions or "", f"{url}/osv") == status
    printed = capsys.readouterr().out
    lines = [line for path in vulnerabilities.AUDITED for line in path.read_text(encoding="utf-8").splitlines()]
    pins = [line for line in lines if re.match(r"\S+==\S+$", line)]  # without a condition
    assert status == 3 or int(printed.split(maxsplit=1)[0]) >= len(pins) > 150
    assert [text for text in said if text not in printed] == []
