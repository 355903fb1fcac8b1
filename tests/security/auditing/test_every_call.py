"""An audit reads every page, and no call that AWS does not answer makes an account clean."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import botocore.exceptions as errors
import pytest
import urllib3
import yaml
from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session
from botocore.retries.bucket import TokenBucket
from fake_account import refusal
from fake_stage import FakeStage

from cli.auditing.account import Account
from cli.auditing.command import audit
from cli.auditing.findings import attempt
from cli.auditing.unused import unused_policies
from cli.aws import Stage
from cli.errors import KennelError
from infra.constructs.audit_role import READS

if TYPE_CHECKING:
    import typer

TABLE = yaml.safe_load(Path(__file__).with_name("every_call.yaml").read_text(encoding="utf-8"))
ANSWERS, LOST = TABLE["answers"], TABLE["lost"]
#: Of those of which one thing is looked at after the other.
LISTS = ("s3 list_buckets", "lambda list_functions", "kms list_keys", "sns list_topics", "logs describe_log_groups")
LISTED = "<ListPoliciesResponse><ListPoliciesResult><Policies/></ListPoliciesResult></ListPoliciesResponse>"
UNREACHABLE = {"endpoint_url": "https://nowhere"}
FAILURES = [
    refusal("AccessDeniedException", "not authorized to perform: the role was not found"),
    refusal("ServiceUnavailable"),
    refusal("OptInRequired", "You are not subscribed to this service."),
    errors.ReadTimeoutError(**UNREACHABLE),
    errors.EndpointConnectionError(**UNREACHABLE, error="no such host"),
]


def numbered(value: Any, number: int | str) -> Any:
    if isinstance(value, dict):
        return {key: numbered(each, number) for key, each in value.items()}
    if isinstance(value, list):
        return [numbered(each, number) for each in value]
    return value.replace("§", str(number)) if isinstance(value, str) else value


class LargeStage(FakeStage):
    """An account with so many things of each kind, each on a page of its own; calls of a name, or a number, fail."""

    def __init__(self, things: int, error: Exception | None = None, failing: str | int | None = None) -> None:
        super().__init__("dev")
        self.__dict__.update(things=things, error=error, failing=failing, calls=[])

    def client(self, service: str, **_: Any) -> Any:
        made = SimpleNamespace(
            get_paginator=lambda name: SimpleNamespace(paginate=partial(self.pages, f"{service} {name}"))
        )
        for key in (key for key in ANSWERS if key.startswith(f"{service} ")):
            setattr(made, key.partition(" ")[2], partial(self.answer, key))
        return made

    def answer(self, key: str, **request: Any) -> Any:
        self.calls.append(key)
        if self.failing in (key, len(self.calls) - 1):
            raise self.error
        if key == "iam get_credential_report":
            rows = (ANSWERS[key]["Row"].replace("§", str(number)) for number in range(self.things))
            return {"Content": "\n".join((ANSWERS[key]["Head"], *rows)).encode()}
        return numbered(ANSWERS[key], "".join(re.findall(r"-(\d+)\b", str(request))[-1:]) or 0)

    def pages(self, key: str, **request: Any) -> Iterator[Any]:
        inner = {"FunctionName", "ResourceArn", "analyzerArn", "policyDocument"} & request.keys()
        for number in range(2 if inner else self.things):
            self.answer(key, **request)
            yield numbered(ANSWERS[key], number)
            yield {}


def audited(stage: LargeStage) -> tuple[int, set[tuple[str, str]], list[dict[str, Any]]]:
    """The exit code, and findings and what is not checked of the JSON report."""
    exit_code, context = 0, cast("typer.Context", SimpleNamespace(obj=stage))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            audit(context, "json")
        except KennelError as error:
            exit_code = error.exit_code
    report = json.loads(printed.getvalue() or '{"findings": [], "not_checked": []}')
    return exit_code, {(each["rule"], each["resource"]) for each in report["findings"]}, report["not_checked"]


@pytest.mark.parametrize("things", [2, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_page_of_every_list_is_read(things: int, record_property: Callable[[str, object], None]) -> None:
    began = time.process_time()
    exit_code, found, not_checked = audited(stage := LargeStage(things))
    assert (exit_code, not_checked, set(stage.calls)) == (6, [], set(ANSWERS))
    kinds = Counter((rule, re.sub(r"-\d+|:1\d$", "§", name)) for rule, name in found)
    for (_, name), count in kinds.items():
        inner = 2 if re.search("seen|alias|:url", name) else 2 * things if name.endswith("§§") else things
        assert count == (1 if name == "root" else inner), name
    assert all(any(re.fullmatch(lost, rule) for rule, _ in kinds) for lost in LOST.values() if lost != "nothing")
    assert ("policy-escalation", "arn:aws:iam::123456789012:user/user§") in kinds, "of user and group together"
    assert not any(re.search("of-aws|other|(?<!policy-invalid )arn.*bounds", f"{rule} {name}") for rule, name in kinds)
    record_property(f"processor seconds of an audit of {things} of each kind", round(time.process_time() - began, 1))


def test_what_iam_does_not_say_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, answer in TABLE["unsaid"].items():
        monkeypatch.setitem(ANSWERS, key, answer)
    _, found, not_checked = audited(LargeStage(2))
    assert ("root-key", "root") in found
    assert [each["check"] for each in not_checked] == ["unused roles", "unused permissions", "sign in"]


def test_what_aws_does_not_answer_is_not_checked_and_all_else_is() -> None:
    _, everything, _ = audited(whole := LargeStage(2))
    named = set[str]()
    for number, key in enumerate(whole.calls):
        one = FAILURES[number % len(FAILURES)]
        for always in (False, True) if whole.calls.index(key) == number else (False,):
            error = FAILURES[0] if always else one
            stage = LargeStage(2, error, key if always else number)
            exit_code, found, not_checked = audited(stage)
            if key.startswith("sts"):
                assert (exit_code, found) == (4, set())
                continue
            rights = {each["reason"].partition(": ")[0] for each in not_checked}
            lost = "|".join(LOST[right] for right in rights)
            assert (exit_code, bool(rights)) == (6, True), (key, error)
            assert all("bounds" in name for _, name in found - everything), "what only bounds is unknown"
            assert all(re.fullmatch(lost, rule) for rule, _ in everything - found), (key, error)
            if isinstance(error, errors.ClientError):
                assert len(rights) == 1, (key, error)
                named |= rights
            else:
                later = [each for each in stage.calls[number + 1 :] if each.split()[0] == key.split()[0]]
                assert all(re.search(" (list|describe)_.*s$", each) for each in later)  # begun before
            if whole.calls[:number].count(key) == 1 and key in LISTS:  # what was on the page before stays
                assert not any("-0" in name for _, name in everything - found)
    assert named == {f"{service}:{action}" for service, actions in READS.items() for action in actions.split()}


@pytest.mark.parametrize("times", [3, 1_000_000])
def test_throttling_is_waited_out_for_a_while(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, slept = [], list[float]()

    def send(_: Any, request: Any) -> AWSResponse:
        sent.append(request)
        status, body = (400, "<A><Error><Code>Throttling</Code></Error></A>") if len(sent) <= times else (200, LISTED)
        raw = urllib3.HTTPResponse(io.BytesIO(body.encode()), preload_content=False)
        return AWSResponse(request.url, status, {}, raw)

    monkeypatch.setattr(URLLib3Session, "send", send)
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(TokenBucket, "acquire", lambda *_, **__: 0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    results = [str(each) for each in attempt(Account(Stage("dev")), unused_policies)]
    assert (len(sent), sum(slept) < 200) == (min(times + 1, 11), True)
    assert [each.split(": ")[1] for each in results] == ["iam:ListPolicies"] * (times > 10)
