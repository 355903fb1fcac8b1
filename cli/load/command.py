"""`kennel load-test`: raise the rate of requests until the latency goal breaks."""

from __future__ import annotations

import re
import tomllib
from itertools import count, takewhile
from pathlib import Path
from typing import Annotated

import typer

from cli.aws import ROOT, Stage, announce
from cli.console import AsJson, Yes, ask, console
from cli.data.commands import SAMPLE_DIR
from cli.errors import NotReadyError, UsageError
from infra.prices import PRICE_LIST, UNIT, endpoint_usd_per_hour, price_note, serverless_usd_per_second
from infra.settings import Settings

_ASK_ABOVE_USD = 1.0
#: Target tracking takes an instance away after 15 minutes below its target.
_SCALE_IN_SECONDS = 15 * 60
_RATE_SETTING = re.compile(
    r"""(?P<before>^\[serving\.scaling\][^\n]*\n(?:(?!\s*\[)[^\n]*\n)*?\s*max_rps_per_instance\s*=\s*)[0-9_.eE+-]+""",
    re.MULTILINE,
)


def milliseconds(text: str | float) -> float:
    """Read a latency: 300ms, 0.3s, or 300, which are milliseconds."""
    found = re.fullmatch(r"([0-9.]+) *(m?s)?", str(text).strip().lower())
    try:
        value = float(found[1]) * (1000 if found[2] == "s" else 1) if found else 0.0
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
    seconds: Annotated[int, typer.Option(min=2, max=240, help="Of each step.")] = 15,
    images: Annotated[Path, typer.Option(metavar="FOLDER", help="Images to send.")] = SAMPLE_DIR / "test",
    endpoint: Annotated[bool, typer.Option("--endpoint", help="Call the endpoint, not the function URL.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Put an instance's rate into the stage's settings.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Find the most requests per second within a latency goal.

    Requests leave at their scheduled times whatever the answers do, and latency counts from then. The rate rises until
    the goal or the limit for errors (1%) breaks. Ctrl-C ends with what was measured. Exit code 5: no rate held.
    """
    # aiohttp and numpy: needed by no other command
    from cli.load.running import LEAD_SECONDS, measure, report
    from cli.load.target import Target

    stage: Stage = context.obj
    if most < rate:
        raise UsageError(f"--max-rate {most:g} is below --rate {rate:g}.")
    rates = list(takewhile(lambda one: one <= most, count(rate, step)))
    if write and stage.settings.serving.scaling is None:
        raise NotReadyError(f"{stage.settings_file} has no [serving.scaling], whose max_rps_per_instance is written.")
    target = Target.of(stage, images, direct=endpoint)
    announce(stage)
    duration = seconds + LEAD_SECONDS
    usd = _tell_cost(stage.settings, sum(rates) * duration, duration * len(rates), p95, direct=endpoint)
    if usd is None or usd > _ASK_ABOVE_USD:
        ask(f"Send this load to {target.url}?", yes=yes)
    steps = measure(target, rates, seconds, p95)
    per_instance = report(steps, p95, ROOT / "build" / "load-test" / f"{stage.name}.json")
    if write:
        if per_instance is None:
            raise NotReadyError("The endpoint is serverless: there is no instance whose rate could be written.")
        write_rate(ROOT / stage.settings_file, per_instance)
        console.print(f"Wrote max_rps_per_instance to {stage.settings_file}; {stage.kennel} deploy applies it.")


def _tell_cost(settings: Settings, requests: float, seconds: float, latency_ms: float, *, direct: bool) -> float | None:
    """Print and return the US dollars of so many requests, if each takes the latency that is allowed; None: unknown.

    The instances that the load makes scaling start are counted for its time, and until they are taken away again.
    """
    function, serving, (low, high) = settings.function, settings.serving, settings.serving.instances
    per_second = 0.0 if direct else function.memory_mb / 1024 * UNIT["lambda_arm64_gb_second"]
    if serving.kind == "serverless":
        per_second += serverless_usd_per_second(serving.serverless.memory_mb)
    calls = requests * (latency_ms / 1000 * per_second + (0 if direct else UNIT["lambda_million_calls"] / 1e6))
    price = endpoint_usd_per_hour(serving.instance_type) if high > low else 0.0
    instances = None if price is None else (high - low) * price * (seconds + _SCALE_IN_SECONDS) / 3600
    scaling = price_note(serving.instance_type) if instances is None else f"{instances:.2f} USD"
    console.print(
        f"At most {requests:,.0f} requests in {seconds / 60:.0f} minutes. On AWS ({PRICE_LIST}) the requests cost "
        f"{calls:.2f} USD if each takes {latency_ms:g} ms, and instances that scaling starts: {scaling}."
    )
    return None if instances is None else calls + instances


def write_rate(file: Path, requests_per_second: float) -> None:
    """Set max_rps_per_instance under [serving.scaling], and no other byte; NotReadyError where it stands otherwise."""
    text = file.read_text(encoding="utf-8")
    rate = float(f"{requests_per_second:.3g}")
    changed = _RATE_SETTING.sub(lambda found: f"{found['before']}{rate:g}", text, count=1)
    wanted, table = tomllib.loads(text), tomllib.loads(changed)
    wanted["serving"]["scaling"]["max_rps_per_instance"] = rate
    if table != wanted:
        raise NotReadyError(f"{file.name} could not be changed.", f"Set max_rps_per_instance = {rate:g} by hand.")
    file.write_text(changed, encoding="utf-8")
