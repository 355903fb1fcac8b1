"""Whether CloudWatch may tell a topic about an alarm: where it may not, on AWS too, nothing but the history says so."""

from __future__ import annotations

from typing import Any

from ministack.services import kms, sns

from emulator.ministack.door.enforcement import service_may
from emulator.ministack.functions.corrections import wrap_handlers

_PRINCIPAL = "cloudwatch.amazonaws.com"
_KEY_ACTIONS = ("kms:Decrypt", "kms:GenerateDataKey")
_KEY = "KmsMasterKeyId"


def install() -> None:
    """Keep the key of a template's topic, which MiniStack forgets."""
    wrap_handlers("AWS::SNS::Topic", after=_keep_key)


def _keep_key(arn: str, attributes: Any, properties: Any) -> Any:
    sns._topics[arn]["attributes"][_KEY] = properties.get(_KEY, "")
    return attributes


def refusal(topic_arn: str, alarm_arn: str) -> str | None:
    """Say in AWS's words why a topic cannot be told, None when it can."""
    topic = sns._topic_by_arn_any_scope(topic_arn)
    if topic is None:
        return "Topic does not exist"
    if not service_may(_PRINCIPAL, "sns:Publish", topic_arn, alarm_arn):
        return f"CloudWatch Alarms is not authorized to perform: SNS:Publish on resource: {topic_arn}"
    if not (name := topic["attributes"].get(_KEY)):
        return None
    key, context = kms._resolve_key(name), {"kms:encryptioncontext:aws:sns:topicarn": topic_arn}
    if key is None or not all(
        service_may(_PRINCIPAL, action, key["Arn"], alarm_arn, **context) for action in _KEY_ACTIONS
    ):
        return "CloudWatch Alarms does not have authorization to access the SNS topic encryption key."
    return None
