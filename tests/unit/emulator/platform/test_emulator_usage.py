"""IAM's reports of use: which actions a statement is about."""

from types import SimpleNamespace

import pytest
from ministack.core import iam_evaluator

from emulator.ministack.door.enforcement import wildcards
from emulator.ministack.usage import _meant


@pytest.mark.parametrize("pattern", ["S3:get*", "s3:GetObjec?", "s*:*", "*", "nosuch:*", "s3:[gG]*"])
@pytest.mark.parametrize("kind", ["actions", "not_actions"])
def test_a_statement_is_about_what_iam_matches(kind, pattern):
    given = {"actions": [], "not_actions": [], kind: [pattern]}
    statement = SimpleNamespace(**given)
    for action in ("s3:GetObject", "s3:GetObjectAcl", "sns:Publish", "ec2:RunInstances"):
        assert (action in _meant(statement)) == iam_evaluator._action_matches(action, **given)


def test_many_wildcards_take_no_longer_and_stand_for_line_breaks():
    assert not wildcards("*a" * 30 + "*b", True).match("a" * 99)
    assert wildcards("[a]*?", False).match("[a]\n-") and not wildcards("A", False).match("a")
