"""The limit per caller where DynamoDB does not count: it fails open, unless the counter itself is overrun."""

import json

import pytest
from lambda_fakes import CREDENTIALS, aws_error, fake_server, reply

from lambda_fn.aws.caller_limit import CallerLimit
from lambda_fn.connection import Deadline
from lambda_fn.errors import ThrottledError

ROLE = "arn:aws:sts::123456789012:assumed-role/web"
USER = "arn:aws:iam::123456789012:user/team/ada"


def counted(requests):
    return reply(document={"Attributes": {"requests": {"N": str(requests)}, "expires": {"N": "0"}}})


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (counted(60), False), (counted(61), True), (aws_error(400, "AccessDeniedException"), False),
        (aws_error(400, "ThrottlingException"), True), (aws_error(400, "ProvisionedThroughputExceededException"), True),
        (aws_error(500, "InternalServerError"), False), (reply(raw=b"no JSON"), False), (reply(document={}), False),
    ],
)  # fmt: skip
def test_who_is_refused(answer, refused, caplog):
    with fake_server(answer) as server:
        limit = CallerLimit(server.settings(caller_table="t"), CREDENTIALS)
        if refused:
            with pytest.raises(ThrottledError) as caught:
                limit.count(USER, Deadline(5))
            assert 1 <= int(caught.value.headers["retry-after"]) <= 60
        else:
            limit.count(USER, Deadline(5))
    assert server.requests[0].headers["x-amz-target"] == "DynamoDB_20120810.UpdateItem"


def test_sessions_of_a_role_are_one_caller_and_users_are_not():
    with fake_server(counted(1)) as server:
        limit = CallerLimit(server.settings(caller_table="t"), CREDENTIALS)
        for caller in (f"{ROLE}/one", f"{ROLE}/two", USER):
            limit.count(caller, Deadline(5))
    keys = [json.loads(request.body)["Key"]["caller_and_minute"]["S"].rpartition(" ")[0] for request in server.requests]
    assert keys == [ROLE, ROLE, USER]
