"""The examples of docs/function.md run as printed, and sign what they send."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from lambda_fakes import ANSWER, CREDENTIALS, fake_server, reply

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "function.md").read_text(encoding="utf-8")
DOG = b"\xff\xd8\xff\xe0\x00 dog \x00\r\n"


def run_example(folder, language, needle, **environ):
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    (example,) = [text for text in blocks if needle in text]
    (folder / "dog.jpg").write_bytes(DOG)
    always = {"PATH": os.environ["PATH"], "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", **CREDENTIALS}
    command = ["sh" if language == "bash" else sys.executable, "-c", example]
    done = subprocess.run(command, cwd=folder, env=always | environ, capture_output=True, text=True, timeout=60)
    if "curl: not found" in done.stderr or "option --aws-sigv4" in done.stderr:
        pytest.skip("there is no curl here that signs")
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    assert (request.body, request.headers["content-type"]) == (DOG, "image/jpeg")


@pytest.mark.parametrize(
    ("language", "needle", "path", "printed"),
    [
        ("bash", "curl", "/?top_k=3", json.dumps(ANSWER)),
        ("python", "requests.post", "/", " 75.0%  Carolina Dog\n 25.0%  Köter\n"),
    ],
)
def test_the_examples_of_the_url_run(tmp_path, language, needle, path, printed):
    with fake_server(reply()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        assert run_example(tmp_path, language, needle, FUNCTION_URL=url, PYTHONUTF8="1") == printed
    assert server.requests[0].path == path
    assert_signed_for_lambda(server.requests[0])


def test_the_example_with_boto3_runs(tmp_path):
    answer = {"statusCode": 200, "headers": {}, "body": json.dumps(ANSWER)}
    alias = "arn:aws:lambda:us-east-1:123456789012:function:f:live"
    with fake_server(reply(document=answer)) as server:
        environ = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "FUNCTION_ALIAS_ARN": alias}
        printed = run_example(tmp_path, "python", ".invoke(", **environ)
    assert printed.startswith("200 [{'label': 'Carolina Dog'")
    assert json.loads(server.requests[0].body) == {"url": "https://example.com/dog.jpg", "top_k": 3}


def test_every_documented_query_is_in_the_order_that_old_curls_sign_rightly():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    queries = [
        query for page in pages for query in re.findall(r"[?]([\w-]+=[^\s`\"')]*)", page.read_text(encoding="utf-8"))
    ]
    assert "scores=true&top_k=3" in queries
    assert [query for query in queries if query.split("&") != sorted(query.split("&"))] == []
