"""Objects that are put without boto3: signed, with their checksum, and repeated by boto3 where S3 refuses."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config
from lambda_fakes import FakeServer, Send, fake_server, reply

from cli.data.fast_put import FastPut

STORED = reply(raw=b"", headers={"ETag": '"of the bytes"'})


@contextmanager
def bucket(monkeypatch: pytest.MonkeyPatch, *answers: Send) -> Iterator[tuple[FastPut, FakeServer]]:
    monkeypatch.setattr("cli.data.fast_put.getproxies", dict)
    session = boto3.session.Session("key", "secret", region_name="eu-west-1")
    config = Config(signature_version="s3v4", retries={"max_attempts": 3, "mode": "standard"}, proxies={})
    with fake_server(*answers) as server:
        s3 = session.client("s3", endpoint_url=f"http://127.0.0.1:{server.port}", config=config)
        yield FastPut(session, s3, "bucket", 2), server


def test_an_object_is_put_signed_and_with_its_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket(monkeypatch, STORED) as (put, server):
        assert put("dogs/a b/ü+1.jpg", b"bytes") == '"of the bytes"'
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("PUT", "/bucket/dogs/a%20b/%C3%BC%2B1.jpg", b"bytes")
    assert request.headers["x-amz-checksum-sha256"] == base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
    assert "x-amz-content-sha256" in request.headers["authorization"]


def test_what_is_refused_is_repeated_with_boto3_s_retries_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket(monkeypatch, reply(503, raw=b""), reply(503, raw=b""), STORED, reply(403, raw=b"")) as (put, server):
        assert put("a.jpg", b"bytes") == '"of the bytes"'
        with pytest.raises(botocore.exceptions.ClientError, match="403"):
            put("b.jpg", b"bytes")
    assert [request.path for request in server.requests] == ["/bucket/a.jpg"] * 3 + ["/bucket/b.jpg"] * 2
