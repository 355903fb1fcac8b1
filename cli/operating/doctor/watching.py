"""Checks of what watches: alarms, their topic, logs, and the cost guard."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from cli.costs.planned import STACKS
from cli.operating.doctor.diagnosis import Diagnosis
from cli.operating.log_retention import sagemaker_log_groups

_STUCK = timedelta(minutes=15)


def alarms(found: Diagnosis) -> str:
    """Every alarm of the stack exists, tells the topic, and is OK."""
    settings = found.stage.settings
    if not settings.alarms:
        return found.add("warning", "there are no alarms", f"add the table [alarms] to {found.stage.settings_file}")
    topic, names = found.stage.output("inference", "AlarmTopicArn"), found.names("inference", "AWS::CloudWatch::Alarm")
    for name in names:
        if (alarm := found.alarms.get(name)) is None:
            found.problem(f"{name} is not there")
            continue
        if not alarm["ActionsEnabled"]:
            found.problem(f"{name} tells nobody", f"aws cloudwatch enable-alarm-actions --alarm-names {name}")
        if topic not in alarm["AlarmActions"]:
            found.problem(f"{name} does not tell {topic}")
        state, since = alarm["StateValue"], alarm["StateUpdatedTimestamp"]
        text = f"{name} is {state} since {since:%Y-%m-%d %H:%M}: {alarm.get('StateReason')}"
        if state == "ALARM":
            found.problem(text, f"look at the dashboard {settings.project}-{settings.stage}, then at the logs")
        elif state != "OK" and datetime.now(UTC) - since > _STUCK:
            found.add("warning", text, "look at its metric in CloudWatch")
    return f"{len(names)} alarms are there and tell {topic}"


def topic(found: Diagnosis) -> str:
    """The topic reaches somebody, and CloudWatch may use its key: what it cannot encrypt, it does not send."""
    if not found.stage.settings.alarms:
        return "There are no alarms."
    arn = found.stage.output("inference", "AlarmTopicArn")
    key = found.stage.client("sns").get_topic_attributes(TopicArn=arn)["Attributes"].get("KmsMasterKeyId")
    if key is None:
        return found.problem(f"{arn} is not encrypted")
    policy = json.loads(found.stage.client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    users = [str(each["Principal"]) for each in policy["Statement"] if "kms:GenerateDataKey" in str(each["Action"])]
    if not any("cloudwatch.amazonaws.com" in user for user in users):
        found.problem(f"the key {key} of {arn} does not let CloudWatch use it", found.restore("storage"))
    listed = found.stage.listed("sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=arn)
    confirmed = {each["Endpoint"]: each["SubscriptionArn"].startswith("arn:") for each in listed}
    if not any(confirmed.values()):
        fix = f"set alarms.email in {found.stage.settings_file}, {found.deploy}, and confirm AWS's first message"
        waiting = ", ".join(confirmed) or "nobody"
        return found.add("warning", f"{arn} reaches nobody; subscribed, not confirmed: {waiting}", fix)
    return f"{arn}, with the key {key}, reaches {', '.join(confirmed)}"


def logs(found: Diagnosis) -> str:
    """Every log group of the stacks, and those that SageMaker makes, expire."""
    own = found.stage.settings.function.log_retention_days
    groups: dict[str, int] = {name: own for kind in STACKS for name in found.names(kind, "AWS::Logs::LogGroup")}
    groups |= sagemaker_log_groups(found.stage, STACKS)
    for group, days in groups.items():
        listed = found.stage.listed("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=group)
        kept = next((each for each in listed if each["logGroupName"] == group), None)
        if kept is None:
            found.add("warning", f"{group} is not there, and would never expire", found.deploy)
        elif "retentionInDays" not in kept:
            command = f"aws logs put-retention-policy --log-group-name {group} --retention-in-days {days}"
            found.add("warning", f"{group} never expires", command)
    return f"{len(groups)} log groups expire"


def cost_guard(found: Diagnosis) -> str:
    """The budget exists, and the guard's rule is on and may call its function."""
    if not (guard := found.stage.settings.cost_guard):
        return found.add("warning", "there is none", f"add the table [cost_guard] to {found.stage.settings_file}")
    rules = found.names("inference", "AWS::Events::Rule")
    if guard.stops_something and not rules:
        found.problem("no rule starts it")
    for name in rules:
        rule = found.find("events", "describe_rule", Name=name) or {"State": "not there"}
        if rule["State"] != "ENABLED":
            fix = f"aws events enable-rule --name {name}" if "Arn" in rule else ""
            found.problem(f"the rule {name} is {rule['State']}", fix)
            continue
        for target in found.stage.listed("events", "list_targets_by_rule", "Targets", Rule=name):
            policy = found.find("lambda", "get_policy", FunctionName=target["Arn"])
            if rule["Arn"] not in (policy or {}).get("Policy", ""):
                found.problem(f"the rule {name} may not call {target['Arn']}")
    budgets = found.names("inference", "AWS::Budgets::Budget")
    for name in budgets:
        if not found.find("budgets", "describe_budget", AccountId=found.stage.account, BudgetName=name):
            found.problem(f"the budget {name} is not there")
    return f"budget {', '.join(budgets)}; rule {', '.join(rules) or 'none, nothing is stopped'}"
