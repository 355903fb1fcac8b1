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


def examples(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def example(language, needle):
    (found,) = [text for text in examples(language) if needle in text]
    return found


def run(command, folder, **environ):
    return subprocess.run(
        command,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            **CREDENTIALS,
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def assert_signed_for_lambda(request):
    """Compute what the signature must be, from what arrived."""
    names = re.search(r"SignedHeaders=([^,]+)", request.headers["authorization"])[1].split(";")
    covered = AWSRequest(
        "POST",
        f"http://{request.headers['host']}{request.path}",
        headers={name: request.headers[name] for name in names if name != "host"},
        data=request.body,
    )
    covered.context["timestamp"] = request.headers["x-amz-date"]
    signer = SigV4Auth(
        Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]), "lambda", "us-east-1"
    )
    expected = signer.signature(signer.string_to_sign(covered, signer.canonical_request(covered)), covered)
    assert request.headers["authorization"].endswith(f"Signature={expected}")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    assert request.headers["x-amz-security-token"] == CREDENTIALS["AWS_SESSION_TOKEN"]


@pytest.fixture
def dog(tmp_path):
    (tmp_path / "dog.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00 dog \x00\r\n")
    return tmp_path


def test_the_error_table_is_the_codes():
    def subclasses(error):
        for subclass in error.__subclasses__():
            yield subclass
            yield from subclasses(subclass)

    documented = {
        (int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    }
    classes = list(subclasses(ServiceError))
    assert documented == {(error.status, error.code) for error in classes}
    assert len(documented) == len(classes)


def test_the_example_with_requests_runs(dog):
    with fake_server(reply()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        done = run([sys.executable, "-c", example("python", "requests.post")], dog, FUNCTION_URL=url)
    assert done.returncode == 0, done.stderr
    assert "75.0%  Carolina Dog" in done.stdout
    (request,) = server.requests
    assert request.body == (dog / "dog.jpg").read_bytes() and request.headers["content-type"] == "image/jpeg"
    assert_signed_for_lambda(request)


def test_the_example_with_boto3_runs(dog):
    answer = {"statusCode": 200, "headers": {}, "body": json.dumps(ANSWER)}
    with fake_server(reply(document=answer)) as server:
        done = run(
            [sys.executable, "-c", example("python", ".invoke(")],
            dog,
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.port}",
            FUNCTION_ALIAS_ARN="arn:aws:lambda:us-east-1:123456789012:function:f:live",
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("200 [{'label': 'Carolina Dog'")
    assert json.loads(server.requests[0].body) == {"url": "https://example.com/dog.jpg", "top_k": 3}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_example_with_curl_runs(dog):
    with fake_server(reply()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        done = run(["sh", "-c", example("bash", "curl")], dog, FUNCTION_URL=url)
    if "aws-sigv4" in done.stderr:
        pytest.skip("this curl cannot sign")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ANSWER
    (request,) = server.requests
    assert request.path == "/?top_k=3"
    assert request.body == (dog / "dog.jpg").read_bytes() and request.headers["content-type"] == "image/jpeg"
    assert_signed_for_lambda(request)
