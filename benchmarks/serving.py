"""Serving: our server and the whole chain beside the limit of their engine and beside LitServe and BentoML.

    python -m benchmarks.serving [--quick] [--clients 1 8 32] [--rounds 3] [--seconds 4] [--no-peers] [--no-chain]

One run measures, in turns, the same JPEG images and the same network: classified in processes of their own without
any server (the limit); by the artifact's own server through `/invocations`; through the function URL of the real stacks
on a local AWS; and by LitServe and BentoML with the network in PyTorch, a one-thread worker per vCPU like ours. Every
answer is compared with the reference. Only the system whose turn it is works; the others are idle or not running.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import serving_systems as systems
from benchmarks.load import WrongAnswerError
from benchmarks.measuring import Goal, finish, interleaved, machine, make_parser, markdown_table, paired_ratio, positive
from benchmarks.serving_systems import BrokenSystemError, ModelError, Plan, Served, Turn
from cli.aws import ROOT
from cli.console import console, error_console
from cli.errors import KennelError
from model.core.machine import available_vcpus
from model.core.network import NetworkError

FOLDER = ROOT / "build" / "benchmarks"
_QUICK_ROUNDS, _QUICK_SECONDS = 1, 2
_WARM_UP_SECONDS = 0.5
# What the goals are about.
_BUSY_CLIENTS = 8

Results = Mapping[str, list[Turn]]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    # A stop leaves nothing running either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.quick:
        arguments.rounds, arguments.seconds = _QUICK_ROUNDS, _QUICK_SECONDS
    try:
        return _run(arguments)
    except (BrokenSystemError, ModelError, NetworkError, WrongAnswerError, KennelError) as error:
        error_console.print(f"Stopped: {error}", markup=False)
        return 1
    except KeyboardInterrupt:
        error_console.print("Interrupted. What was started has been stopped; there are no results.")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("serving", __doc__, rounds=3)
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 8, 32], help="callers at once (1 8 32)")
    parser.add_argument("--seconds", type=positive, default=4, help="of each load (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of 2 seconds: indicative only")
    parser.add_argument(
        "--network", default="resnet50", help="resnet9 or any of torchvision's with a linear last layer (%(default)s)"
    )
    parser.add_argument("--input-size", type=positive, default=224, help="pixels (%(default)s)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="JPEG files to send in place of drawn ones")
    for name, what in (("peers", "LitServe and BentoML"), ("chain", "the function URL on a local AWS")):
        option = argparse.BooleanOptionalAction
        parser.add_argument(f"--{name}", action=option, default=True, help=f"measure {what} (by default)")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    # Not above: the processes of the limit import this module, too, and PyTorch is not for them.
    from benchmarks import serving_model

    description = machine(["onnxruntime", "torch", "uvicorn"])
    folder = FOLDER / "serving"
    peers = systems.install_peers(FOLDER / "peers", console.print) if arguments.peers else None
    images = serving_model.read_images(arguments.images) if arguments.images else serving_model.draw_images()
    size = statistics.mean(map(len, images))
    console.print(
        f"{len(images)} images, {size / 1000:.0f} KB on average. Exporting and quantising {arguments.network}."
    )
    fp32, int8, decision = serving_model.make_artifacts(folder, arguments.network, arguments.input_size, images)
    console.print(f"Ours runs as {decision.precision}: {decision.reason}.")
    plan = Plan(images, tuple(arguments.clients), arguments.seconds, _WARM_UP_SECONDS, available_vcpus())
    with contextlib.ExitStack() as stack:
        turns = _systems(plan, fp32, int8, folder, peers)
        if arguments.chain:
            from benchmarks.serving_chain import deployed

            served = int8 or fp32
            console.print("Deploying the stacks on a local AWS.")
            turns[f"function URL, {served.precision}"] = stack.enter_context(deployed(served, plan, folder))
        results = interleaved(turns, arguments.rounds)
    _print_results(results)
    figures = {
        "machine": description,
        "network": arguments.network,
        "input_size": arguments.input_size,
        "images": len(images),
        "mean_image_bytes": size,
        "precision": asdict(decision),
        "systems": {name: [_figures(turn) for turn in turns] for name, turns in results.items()},
    }
    return finish(arguments, figures, goals(results, int8 or fp32))


def _systems(
    plan: Plan, fp32: Served, int8: Served | None, folder: Path, peers: Path | None
) -> dict[str, Callable[[], Turn]]:
    """Return what takes turns, by its name in the tables; what ships comes first."""
    ours = [served for served in (int8, fp32) if served is not None]
    found: dict[str, Callable[[], Turn]] = {}
    for served in ours:
        kind = served.precision
        found[f"no server, {kind}"] = functools.partial(systems.in_process, served, plan)
        log = folder / f"server-{kind}.log"
        found[f"our server, {kind}"] = functools.partial(systems.our_server, served, plan, log)
    log, mode = folder / "server-latency.log", f"our server, {ours[0].precision}, latency mode"
    found[mode] = functools.partial(systems.our_server, ours[0], plan, log, MODEL_SERVER_MODE="latency")
    if peers is not None:
        found[_LITSERVE] = functools.partial(systems.litserve, fp32, plan, folder / "litserve.log", peers)
        found[_BENTOML] = functools.partial(systems.bentoml, fp32, plan, folder / "bentoml.log", peers)
    return found


_LITSERVE, _BENTOML = "LitServe, PyTorch", "BentoML, PyTorch"


def goals(results: Results, shipped: Served) -> list[Goal]:
    """Compare the results with what was promised of the artifact that ships."""
    server = results[f"our server, {shipped.precision}"]
    busy = _throughput(server, _BUSY_CLIENTS)
    limit = _throughput(results[f"no server, {shipped.precision}"])
    found = [Goal(f"our server / no server, {_BUSY_CLIENTS} callers", _ratio(busy, limit), 0.9, at_least=True)]
    for peer in (_LITSERVE, _BENTOML):
        slow = _throughput(results.get(peer, []), _BUSY_CLIENTS)
        name = f"our server / {peer}, {_BUSY_CLIENTS} callers"
        found.append(Goal(name, _ratio(busy, slow), 4, at_least=True))
    alone = _latency(server, 1)
    faster = _ratio(_latency(results.get(_LITSERVE, []), 1), alone)
    found += [
        Goal("p50 with one caller", statistics.median(alone) if alone else None, 36, at_least=False, unit=" ms"),
        Goal(f"p50 with one caller, {_LITSERVE} / our server", faster, 5, at_least=True),
        Goal("first answer after start", _start_seconds(server), 2, at_least=False, unit=" s"),
        Goal("memory (PSS) of server and workers", _most_mb(server, "pss"), 250, at_least=False, unit=" MB"),
    ]
    return found


def _throughput(turns: Sequence[Turn], clients: int | None = None) -> list[float]:
    """Return the answers per second of every round; without `clients`, of a system with one load."""
    loads = [turn.loads.get(clients) if clients else next(iter(turn.loads.values())) for turn in turns]
    return [load.per_second for load in loads if load]


def _latency(turns: Sequence[Turn], clients: int) -> list[float]:
    loads = [turn.loads[clients] for turn in turns if clients in turn.loads]
    return [statistics.median(load.latencies_ms) for load in loads if load.latencies_ms]


def _ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float | None:
    return paired_ratio(numerators, denominators) if numerators and denominators else None


def _start_seconds(turns: Sequence[Turn]) -> float | None:
    return statistics.median(seconds) if (seconds := [t.start_seconds for t in turns if t.start_seconds]) else None


def _most_mb(turns: Sequence[Turn], kind: str) -> float | None:
    return max(memory) if (memory := [getattr(turn.memory, kind) / 1e6 for turn in turns if turn.memory]) else None


def _figures(turn: Turn) -> dict[str, Any]:
    return {
        "loads": {str(clients): load.figures() for clients, load in turn.loads.items()},
        "start_seconds": turn.start_seconds,
        "memory": asdict(turn.memory) if turn.memory else None,
    }


def _print_results(results: Results) -> None:
    loads: list[tuple[str, ...]] = []
    programs: list[tuple[str, ...]] = []
    for name, turns in results.items():
        for clients in turns[0].loads:
            rounds = [turn.loads[clients] for turn in turns]
            rate = statistics.median(load.per_second for load in rounds)
            share = statistics.median(load.generator_share for load in rounds)
            # A round in which every caller waited for one answer all the time has no latencies.
            latencies = [load.latencies_ms for load in rounds if load.latencies_ms]
            p50, p95 = (
                f"{statistics.median(np.percentile(found, percent) for found in latencies):.1f}" if latencies else "–"
                for percent in (50, 95)
            )
            cpu = [load.cpu_ms for load in rounds if load.cpu_ms is not None]
            cpu_ms = f"{statistics.median(cpu):.1f}" if cpu else "–"
            loads.append((name, str(clients), f"{rate:.1f}", p50, p95, cpu_ms, f"{share:.1%}"))
        start, pss, uss = _start_seconds(turns), _most_mb(turns, "pss"), _most_mb(turns, "uss")
        if start and pss and uss:
            programs.append((name, f"{start:.2f}", f"{pss:.0f}", f"{uss:.0f}"))
    title = f"Medians of {len(next(iter(results.values())))} rounds"
    columns = ("system", "callers", "answers/s", "p50 ms", "p95 ms", "CPU ms/answer", "load generator, of a vCPU")
    console.print(markdown_table(title, columns, loads))
    title = "Start (median) and memory of all processes (largest)"
    console.print(markdown_table(title, ("system", "first answer s", "PSS MB", "USS MB"), programs))


if __name__ == "__main__":
    logging.getLogger("model").setLevel(logging.ERROR)
    sys.exit(main())
