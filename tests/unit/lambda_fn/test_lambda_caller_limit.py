"""The limit per caller: who is one caller, and what happens where DynamoDB does not count."""

import json
from types import SimpleNamespace

import pytest
from lambda_fakes import CREDENTIALS, aws_error, fake_server, reply

from lambda_fn.aws.caller_limit import CallerLimit
from lambda_fn.connection import Deadline
from lambda_fn.errors import ThrottledError

STS = "arn:aws:sts::123456789012"
USER = "arn:aws:iam::123456789012:user/team/ada"


def counted(requests):
    return reply(document={"Attributes": {"requests": {"N": str(requests)}, "expires": {"N": "0"}}})


def throttled(kind, **reasons):
    return aws_error(400, kind, **{name: [{"reason": f"TableWrite{reason}"}] for name, reason in reasons.items()})


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (counted(60), False), (counted(61), True), (aws_error(400, "AccessDeniedException"), False),
        (throttled("ProvisionedThroughputExceededException", ThrottlingReasons="KeyRangeThroughputExceeded"), True),
        (throttled("ThrottlingException", throttlingReasons="AccountLimitExceeded"), False),
        (aws_error(500, "InternalServerError"), False), (reply(raw=b"no JSON"), False), (reply(document={}), False),
    ],
)  # fmt: skip
def test_who_is_refused_until_the_minute_ends_without_asking_again(answer, refused, monkeypatch):
    with fake_server(answer) as server:
        limit = CallerLimit(server.settings(caller_table="t"), CREDENTIALS)
        for now, asked in ((59, 1), (59.9, 1 if refused else 2), (60, 2 if refused else 3)):
            monkeypatch.setattr("lambda_fn.aws.caller_limit.time", SimpleNamespace(time=lambda now=now: now))
            if refused:
                with pytest.raises(ThrottledError) as caught:
                    limit.count(USER, Deadline(5))
                assert caught.value.headers["retry-after"] == ("60" if now == 60 else "1")
            else:
                limit.count(USER, Deadline(5))
            assert len(server.requests) == asked
    assert server.requests[0].headers["x-amz-target"] == "DynamoDB_20120810.UpdateItem"


def test_whoever_chooses_names_is_one_caller_and_users_are_not():
    with fake_server(counted(1)) as server:
        limit = CallerLimit(server.settings(caller_table="t"), CREDENTIALS)
        names = ("assumed-role/web/one", "assumed-role/web/two", "federated-user/ada", "federated-user/bob")
        for caller in (*(f"{STS}:{name}" for name in names), USER):
            limit.count(caller, Deadline(5))
    keys = [json.loads(request.body)["Key"]["caller_and_minute"]["S"].rpartition(" ")[0] for request in server.requests]
    assert keys == [f"{STS}:assumed-role/web"] * 2 + [f"{STS}:federated-user"] * 2 + [USER]
