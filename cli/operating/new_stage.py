"""`kennel init`: writes the settings of a new stage from the answers to five questions."""

from __future__ import annotations

import json
import math
import os
import sys
import tomllib
from typing import Annotated, Any

import typer

from cli.console import console
from cli.costs.planned import planned_costs
from cli.costs.table import Total
from cli.errors import NotReadyError, UsageError
from infra.prices import HOURS_PER_MONTH, PRICE_LIST
from infra.settings import ENVIRONMENTS, Settings, stages
from infra.validation import SettingsError, read_table

_Answers = dict[str, Any]  # by place in the settings; "" is none
_KIND, _BUDGET = "serving.kind", "cost_guard.monthly_usd"
#: By place in the settings, in the order of the options: the question, its default, and the answer that it needs.
_QUESTIONS = {
    "stage": ("1 of 5: Name of the stage (2 to 16 lower-case letters or digits)", "", ""),
    "region": ("2 of 5: AWS region, such as eu-west-1 (empty: wherever the credentials point)", "", ""),
    "account": ("2 of 5: AWS account (12 digits)", "", "region"),
    _KIND: (
        "3 of 5: Endpoint: instance (steady traffic; at rest {:.2f} USD a month) or serverless (few calls; {:.2f}); "
        + PRICE_LIST,
        "serverless",
        "",
    ),
    "storage.retain": ("4 of 5: Keep bucket and data when the stage is destroyed (yes or no)", "no", ""),
    "alarms.email": ("5 of 5: E-mail address for alarms and the budget (empty: neither)", "", ""),
    _BUDGET: ("5 of 5: Monthly budget in whole USD", "", "alarms.email"),
}
_HEAD = "# What is not here has its default: infra/settings.py, infra/tables/, docs/infrastructure.md."
_SERVERLESS = {"serving.mode": "latency", "function.provisioned_concurrency": 0}
_COMMENTS = {
    "region": "with the account: nothing is deployed elsewhere by mistake",
    "storage.retain": "whether kennel destroy leaves the bucket with all data, and its key",
    _KIND: "billed by the call; the first one after a pause waits for a container",
    "serving.mode": "a container gets one request at a time, so all of its vCPUs are for that one",
    "function.provisioned_concurrency": "else the function would be billed around the clock",
    "alarms.email": "has to confirm AWS's first e-mail",
    _BUDGET: "e-mails at 80 and 100 percent of it (docs/cost-guard.md)",
}


def init(
    name: Annotated[str | None, typer.Option(help="Name of the stage.")] = None,
    region: Annotated[str | None, typer.Option(help="AWS region; with --account.")] = None,
    account: Annotated[str | None, typer.Option(help="AWS account; with --region.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="instance or serverless.")] = None,
    retain: Annotated[bool | None, typer.Option(help="Whether destroying the stage leaves its data.")] = None,
    email: Annotated[str | None, typer.Option(help="Who hears of alarms and costs.")] = None,
    monthly_usd: Annotated[str | None, typer.Option(help="Budget of a month; with --email.")] = None,
) -> None:
    """Ask five questions, and write the settings of a new stage.

    An option replaces its question; without a terminal the others have their defaults.
    """
    options = dict(zip(_QUESTIONS, (name, region, account, endpoint, retain, email, monthly_usd), strict=True))
    answers = _complete(options, ask=sys.stdin.isatty())
    if problems := _problems(answers):
        raise UsageError("\n  ".join([f"No stage is written, for {len(problems)} problem(s):", *problems]))
    path, stage = ENVIRONMENTS / f"{answers['stage']}.toml", f"kennel --stage {answers['stage']}"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(answers))
    except OSError as error:
        raise NotReadyError(f"{path} cannot be written: {error.strerror}.") from error
    costs = f"At rest the stage costs {_monthly(answers):.2f} USD a month ({PRICE_LIST})."
    console.print(f"Wrote {os.path.relpath(path)}. {costs}\nNext:\n  {stage} deploy\n  {stage} data push DIR")


def _complete(options: _Answers, *, ask: bool) -> _Answers:
    """Add the answers that no option gives; a person is asked again for those that the settings refuse."""
    answers: _Answers = {"stage": "", "storage.retain": False}
    for key, (question, default, needed) in _QUESTIONS.items():
        wanted, given = answers.get(needed) != "", options[key] is not None
        if key == _BUDGET and wanted and not _problems(answers):
            default = str(10 * math.ceil(_monthly(answers) / 5))  # twice the costs at rest
        answers[key] = _typed(key, options[key] if given else default if wanted else "")
        problems = [] if given or not wanted else [""]
        while ask and (problems or (problems := [line for line in _problems(answers) if line.startswith(f"{key}:")])):
            console.print("\n".join(problems), end="\n" if problems[0] else "")
            prices = [_monthly({**answers, key: kind}) for kind in ("instance", "serverless")] if key == _KIND else []
            answer = typer.prompt(question.format(*prices), default=default, show_default=default != "")
            answers[key], problems = _typed(key, answer), []
    return answers


def _typed(key: str, answer: Any) -> Any:
    """Return an answer in TOML's type; what cannot be of that type stays a text, which the settings refuse."""
    text = str(answer).strip()
    if key == "storage.retain":
        return {"yes": True, "True": True, "no": False, "False": False}.get(text, text)
    return int(text) if key == _BUDGET and text.isdecimal() else text


def _problems(answers: _Answers) -> list[str]:
    """Say all that is wrong with the answers, as ``setting: problem``."""
    problems = [f"{key}: cannot be printed" for key, answer in answers.items() if not str(answer).isprintable()]
    if answers["stage"] in stages(ENVIRONMENTS):
        problems.append(f"stage: {answers['stage']} has its settings already; choose another name, or edit that file")
    try:
        _settings(answers)
    except SettingsError as error:
        problems += str(error).splitlines()
    return problems


def _settings(answers: _Answers) -> Settings:
    return read_table(Settings, tomllib.loads(_text(answers)) | {"stage": answers["stage"]})


def _monthly(answers: _Answers) -> float:
    """Return what the stage costs in a month at rest, in US dollars."""
    return Total.of(planned_costs(_settings(answers))).usd * HOURS_PER_MONTH


def _text(answers: _Answers) -> str:
    """Write the answers that differ from the defaults as TOML."""
    kinds: dict[str, _Answers] = {"serverless": _SERVERLESS, "instance": {_KIND: ""}}  # the latter is the default
    settings = {**answers, "stage": "", **kinds.get(answers.get(_KIND, ""), {})}
    lines, table = [_HEAD], "?"
    for key, answer in sorted(settings.items(), key=lambda item: ("." in item[0], item[0])):
        above, _, name = key.rpartition(".")
        if answer == "":
            continue
        if above != table:
            lines += ["", f"[{above}]"] if above else [""]
            table = above
        value = json.dumps(answer, ensure_ascii=False).replace("\x7f", r"\u007f")  # else no TOML
        lines.append(f"{name} = {value}" + (f"  # {_COMMENTS[key]}" if key in _COMMENTS else ""))
    return "\n".join(lines) + "\n"
