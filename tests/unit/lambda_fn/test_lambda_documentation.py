"""docs/function.md: its error table is the code's, and its examples run as printed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lambda_fakes import ANSWER, CREDENTIALS, fake_server, reply

from lambda_fn.errors import ServiceError

DOCUMENT = (Path(__file__).parents[3] / "docs" / "function.md").read_text(encoding="utf-8")
DOG = b"\xff\xd8\xff\xe0\x00 dog \x00\r\n"


def example(language, needle):
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if needle in text]
    return found


def run(folder, *command, **environ):
    (folder / "dog.jpg").write_bytes(DOG)
    always = {"PATH": os.environ["PATH"], "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", **CREDENTIALS}
    return subprocess.run(command, cwd=folder, env=always | environ, capture_output=True, text=True, timeout=60)


def assert_signed_for_lambda(request):
    assert "/us-east-1/lambda/aws4_request" in request.headers["authorization"]
    assert request.headers["x-amz-security-token"] == CREDENTIALS["AWS_SESSION_TOKEN"]
    assert request.body == DOG and request.headers["content-type"] == "image/jpeg"


def test_the_error_table_is_the_codes():
    documented = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    classes = sorted((str(error.status), error.code) for error in ServiceError.__subclasses__())
    assert sorted(documented) == classes


def test_the_example_with_requests_runs(tmp_path):
    with fake_server(reply()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        done = run(tmp_path, sys.executable, "-c", example("python", "requests.post"), FUNCTION_URL=url)
    assert done.returncode == 0, done.stderr
    assert "75.0%  Carolina Dog" in done.stdout
    assert_signed_for_lambda(server.requests[0])


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_example_with_curl_runs(tmp_path):
    with fake_server(reply()) as server:
        done = run(tmp_path, "sh", "-c", example("bash", "curl"), FUNCTION_URL=f"http://127.0.0.1:{server.port}/")
    if "aws-sigv4" in done.stderr:
        pytest.skip("this curl cannot sign")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ANSWER
    assert server.requests[0].path == "/?top_k=3"
    assert_signed_for_lambda(server.requests[0])
