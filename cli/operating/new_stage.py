"""`kennel init`: writes the settings of a new stage from the answers to five questions."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tomllib
from functools import partial
from pathlib import Path
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
_ENDPOINTS = "instance (steady traffic; at rest {:.2f} USD a month) or serverless (few calls; {:.2f})"
#: By place in the settings, in the order of the options: the question, its default, and the answer that it needs.
_QUESTIONS = {
    "stage": ("1 of 5: Name of the stage (2 to 16 lower-case letters or digits)", "", ""),
    "region": ("2 of 5: AWS region, such as eu-west-1 (empty: wherever the credentials point)", "", ""),
    "account": ("2 of 5: AWS account (12 digits)", "", "region"),
    _KIND: (f"3 of 5: Endpoint: {_ENDPOINTS}; {PRICE_LIST}", "serverless", ""),
    "storage.retain": ("4 of 5: Keep bucket and data when the stage is destroyed (yes or no)", "no", ""),
    "alarms.email": ("5 of 5: E-mail address for alarms and the budget (empty: neither)", "", ""),
    _BUDGET: ("5 of 5: Monthly budget in whole USD", "", "alarms.email"),
}
_NOTHING: _Answers = dict.fromkeys(_QUESTIONS, "") | {"storage.retain": False}
_TEMPLATE = Path(__file__).with_suffix(".toml.jinja")


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
        message = "\n  ".join([f"No stage is written, for {len(problems)} problem(s):", *problems])
        raise UsageError(message, "Each answer has an option: kennel init --help")
    path, stage = ENVIRONMENTS / f"{answers['stage']}.toml", f"kennel --stage {answers['stage']}"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(answers))
    except OSError as error:
        raise NotReadyError(f"{path} cannot be written: {error.strerror}.") from error
    costs = f"At rest the stage costs {_monthly(answers):.2f} USD a month ({PRICE_LIST})."
    console.print(f"Wrote {os.path.relpath(path)}. {costs}\nNext:\n  {stage} deploy\n  {stage} data push DIR")


def _complete(options: _Answers, *, ask: bool) -> _Answers:
    """Add the answers that no option gives: a person's, or the defaults."""
    answers = _NOTHING
    for key, (question, default, needed) in _QUESTIONS.items():
        wanted = answers.get(needed) != ""
        if key == _BUDGET and wanted and not _problems(answers):
            default = str(10 * math.ceil(_monthly(answers) / 5))  # twice the costs at rest
        answer = options[key]
        if answer is None and ask and wanted:
            prices = [_monthly({**_NOTHING, "stage": "new", _KIND: kind}) for kind in ("instance", "serverless")]
            check = partial(_checked, answers, key)
            text = question.format(*prices)
            answer = typer.prompt(text, default=default, show_default=default != "", value_proc=check)
        answers = {**answers, key: _typed(key, answer if answer is not None else default if wanted else "")}
    return answers


def _checked(answers: _Answers, key: str, answer: str) -> str:
    """Return the answer to a question; one that the settings refuse is asked for again."""
    problems = _problems({**answers, key: _typed(key, answer)})
    if refused := [line for line in problems if line.startswith(f"{key}:")]:
        raise typer.BadParameter("\n".join(refused))
    return answer


def _typed(key: str, answer: Any) -> Any:
    """Return an answer in TOML's type; what cannot be of that type stays a text, which the settings refuse."""
    text = str(answer).strip()
    if key == "storage.retain":
        return {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}.get(text.lower(), text)
    return int(text) if key == _BUDGET and re.fullmatch("[0-9]{1,9}", text) else text


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
    import jinja2  # on first use: it costs 0.1 s

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 - no HTML
    # A text of JSON is one of TOML, but for this character.
    environment.filters["toml"] = lambda value: json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render({key.rpartition(".")[2]: answer for key, answer in answers.items()}) + "\n"
