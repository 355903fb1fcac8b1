"""The steps of docs/first-deploy.md, which cost money on a real account, rehearsed on the local AWS."""

from __future__ import annotations

import pytest
from first_deploy import Walk, first_deploy, refuse_other_accounts

from cli.aws import Stage

pytestmark = pytest.mark.slow


def test_every_step_does_what_the_page_says_and_nothing_is_left(project, monkeypatch):
    project.start_local_aws()
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    stage = Stage("local")
    for account, region in (("123456789012", "us-east-1"), ("000000000000", "eu-west-1")):
        with pytest.raises(ValueError, match="but the credentials are of 000000000000 in us-east-1"):
            refuse_other_accounts(stage, account, region)
    refuse_other_accounts(stage, "000000000000", "us-east-1")
    first_deploy(Walk(project.root, project.environment), stage)
