"""docs/function.md: its error table is the code's, and its examples run as printed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
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
    """Compute what the signature must be, from what arrived."""
    names = re.search(r"SignedHeaders=([^,]+)", request.headers["authorization"])[1].split(";")
    url = f"http://{request.headers['host']}{request.path}"
    headers = {name: request.headers[name] for name in names if name != "host"}
    covered = AWSRequest("POST", url, headers=headers, data=request.body)
    covered.context["timestamp"] = request.headers["x-amz-date"]
    keys = Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    signer = SigV4Auth(keys, "lambda", "us-east-1")
    expected = signer.signature(signer.string_to_sign(covered, signer.canonical_request(covered)), covered)
    assert request.headers["authorization"].endswith(f"Signature={expected}")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    assert request.headers["x-amz-security-token"] == CREDENTIALS["AWS_SESSION_TOKEN"]
    assert request.body == DOG and request.headers["content-type"] == "image/jpeg"


def test_the_error_table_is_the_codes():
    def subclasses(error):
        return [kind for child in error.__subclasses__() for kind in (child, *subclasses(child))]

    documented = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    classes = sorted((str(error.status), error.code) for error in subclasses(ServiceError))
    assert sorted(documented) == classes


def test_the_example_with_requests_runs(tmp_path):
    with fake_server(reply()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        done = run(tmp_path, sys.executable, "-c", example("python", "requests.post"), FUNCTION_URL=url)
    assert done.returncode == 0, done.stderr
    assert "75.0%  Carolina Dog" in done.stdout
    assert_signed_for_lambda(server.requests[0])


def test_the_example_with_boto3_runs(tmp_path):
    answer = {"statusCode": 200, "headers": {}, "body": json.dumps(ANSWER)}
    alias = "arn:aws:lambda:us-east-1:123456789012:function:f:live"
    with fake_server(reply(document=answer)) as server:
        environ = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "FUNCTION_ALIAS_ARN": alias}
        done = run(tmp_path, sys.executable, "-c", example("python", ".invoke("), **environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("200 [{'label': 'Carolina Dog'")
    assert json.loads(server.requests[0].body) == {"url": "https://example.com/dog.jpg", "top_k": 3}


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
