"""Log groups, all of which expire."""

from typing import cast

from aws_cdk import RemovalPolicy
from aws_cdk import aws_logs as logs
from constructs import Construct


def log_group(scope: Construct, construct_id: str, *, days: int, retain: bool = False) -> logs.LogGroup:
    """Make a log group whose lines expire after so many days; `retain` it when its stack is deleted."""
    policy = RemovalPolicy.RETAIN if retain else RemovalPolicy.DESTROY
    group = logs.LogGroup(scope, construct_id, removal_policy=policy)
    # The L2 class has names for the periods (ONE_WEEK); the settings say days, as CloudWatch Logs does.
    cast(logs.CfnLogGroup, group.node.default_child).retention_in_days = days
    return group
