"""A table of requests by which somebody does more than they may: each is refused, and nothing has happened."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import yaml
from attack_targets import SECRET, account, make_targets
from local_aws_harness import LocalAws, policy

Row = dict[str, Any]
TABLE: dict[str, list[Row]] = yaml.safe_load(Path(__file__).with_name("attacks.yaml").read_text(encoding="utf-8"))


def statements(row: Row) -> list[dict[str, Any]]:
    return [{"Resource": "*", **({"Action": it} if isinstance(it, str) else it)} for it in row.get("may", [])]


def requests(row: Row) -> Iterator[Row]:
    """The requests of a row, as `LocalAws.send` takes them."""
    for wanted in row["send"]:
        choices = [value if isinstance(value, list) else [value] for value in wanted.values()]
        for one in (dict(zip(wanted, choice, strict=True)) for choice in product(*choices)):
            sign, method, path = one.pop("do").split(" ")
            if (body := one.pop("json", None)) is not None:
                one |= {"body": json.dumps(body), "content_type": "application/x-amz-json-1.1"}
            if (body := one.pop("form", None)) is not None:
                text = body if isinstance(body, str) else urlencode(body, quote_via=quote)
                one |= {"body": text, "content_type": "application/x-www-form-urlencoded"}
            yield {"body": b"", "sign": None if sign == "-" else sign, "method": method, "path": path, **one}


@pytest.fixture(scope="module")
def names(aws: LocalAws) -> dict[str, str]:
    return make_targets(aws)


@pytest.fixture(scope="module")
def before(aws: LocalAws, names: dict[str, str]) -> list[Any]:
    return account(aws)


@pytest.fixture
def send(aws: LocalAws, names: dict[str, str]) -> Callable[..., Any]:
    """Send a request as a user of its own."""
    users: dict[str, Any] = {}

    def fill(value: Any) -> Any:
        for name, text in names.items():
            value = value.replace(name, text) if isinstance(value, str) else value
        return value

    def send(allowed: list[dict[str, Any]], wanted: Row) -> Any:
        document = fill(json.dumps(policy(*allowed)))
        if allowed and document not in users:
            users[document] = aws.user(f"attacker-{uuid.uuid4()}", json.loads(document))
        filled = {name: fill(value) for name, value in wanted.items()}
        if filled["sign"] == "s3" and isinstance(filled["body"], str) and filled["body"]:
            filled["content_md5"] = base64.b64encode(hashlib.md5(filled["body"].encode()).digest()).decode()
        return aws.send(key=users.get(document), **filled)

    return send


@pytest.mark.parametrize("row", TABLE["attacks"])
def test_what_is_asked_of_iam_is_what_is_done(
    aws: LocalAws, before: list[Any], send: Callable[..., Any], row: Row
) -> None:
    for request in requests(row):
        answer = send(statements(row), request)
        assert answer.status in (400, 403), (request, answer.data)
        assert not any(text in answer.data.decode() for text in (SECRET, "SecretAccessKey")), request
    assert account(aws) == before


def test_what_would_act_without_asking_is_not_there(aws: LocalAws) -> None:
    for request in requests({"send": TABLE["absent"]}):
        answer = aws.send(**request)
        assert (answer.status, b"NotImplemented" in answer.data) == (501, True), request


@pytest.mark.parametrize("row", TABLE["allowed"])
def test_what_is_allowed_is_done(send: Callable[..., Any], row: Row) -> None:
    for request in requests(row):
        answer = send(statements(row), request)
        assert answer.status == 200 or b"Endpoint mine of account 000000000000 not found" in answer.data, answer.data
