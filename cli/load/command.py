"""`kennel load-test`: raise the rate of requests until the latency goal breaks."""

from __future__ import annotations

from itertools import count, takewhile
from pathlib import Path
from typing import Annotated

import typer

from cli.aws import ROOT, Stage, announce
from cli.console import ask, console
from cli.data.commands import SAMPLE_DIR
from cli.errors import NotReadyError, UsageError
from cli.load.cost import tell_cost
from cli.load.settings_file import write_rate

_ASK_ABOVE_USD = 1.0


def milliseconds(text: str | float) -> float:
    """Read a latency: 300ms, 0.3s, or 300, which are milliseconds."""
    number, factor = str(text).strip().lower(), 1.0
    if number.endswith("ms"):
        number = number.removesuffix("ms")
    elif number.endswith("s"):
        number, factor = number.removesuffix("s"), 1000.0
    try:
        value = float(number) * factor
    except ValueError:
        value = 0.0
    if not 1 <= value <= 60_000:
        raise typer.BadParameter(f"{text!r} is no latency from 1ms to 60s, such as 300ms or 0.3s")
    return value


Goal = Annotated[
    float,
    typer.Option(
        "--p95", parser=milliseconds, metavar="LATENCY", show_default="300ms", help="95% of responses come within this."
    ),
]


def load_test(
    context: typer.Context,
    p95: Goal = 300,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second to begin with.")] = 5,
    step: Annotated[float, typer.Option(min=0.1, help="How much more each step sends.")] = 5,
    most: Annotated[float, typer.Option("--max-rate", min=0.1, help="Where to stop at the latest.")] = 200,
    rates: Annotated[str, typer.Option(metavar="N,N…", help="These rates in place of a ramp; all are run.")] = "",
    seconds: Annotated[int, typer.Option(min=2, max=240, help="Of each step.")] = 15,
    images: Annotated[Path, typer.Option(metavar="FOLDER", help="Images to send.")] = SAMPLE_DIR / "test",
    endpoint: Annotated[bool, typer.Option("--endpoint", help="Call the endpoint, not the function URL.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Where to write the figures (.json) and the chart (.png).")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put the rate of one instance into the stage's settings file.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask about costs.")] = False,
) -> None:
    """Find out how many requests per second the deployed model bears within a latency goal.

    Requests leave at their scheduled times whatever the answers do, and latency counts from then. The rate rises until
    the goal or the limit for errors (1%) breaks. Ctrl-C ends with what was measured. Exit code 5: no rate held.
    """
    # aiohttp and numpy: needed by no other command
    from cli.load.running import LEAD_SECONDS, measure, report
    from cli.load.target import Target

    stage: Stage = context.obj
    planned = _fixed(rates) if rates else _ramp(rate, step, most)
    if write and stage.settings.serving.scaling is None:
        raise NotReadyError(f"{stage.settings_file} has no [serving.scaling], whose max_rps_per_instance is written.")
    target = Target.of(stage, images, direct=endpoint)
    announce(stage)
    duration = seconds + LEAD_SECONDS
    usd = tell_cost(stage.settings, sum(planned) * duration, duration * len(planned), p95, direct=endpoint)
    if usd > _ASK_ABOVE_USD and not yes:
        ask(f"Send this load to {target.url}?")
    steps = measure(target, planned, seconds, p95, until_broken=not rates)
    per_instance = report(steps, p95, output or ROOT / "build" / "load-test" / f"{stage.name}.json")
    if write and per_instance is None:
        raise NotReadyError("The endpoint is serverless: there is no instance whose rate could be written.")
    if write and per_instance:
        write_rate(ROOT / stage.settings_file, per_instance)
        console.print(f"Wrote max_rps_per_instance to {stage.settings_file}; {stage.kennel} deploy applies it.")


def _fixed(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = [0.0]
    if min(rates) < 0.1:
        raise UsageError(f"--rates {text}: must be numbers from 0.1, such as 5,10,20.")
    return rates


def _ramp(rate: float, step: float, most: float) -> list[float]:
    if most < rate:
        raise UsageError(f"--max-rate {most:g} is below --rate {rate:g}.")
    return list(takewhile(lambda one: one <= most, count(rate, step)))
