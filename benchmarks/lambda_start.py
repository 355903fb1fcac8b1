"""The function: how long it takes to start, and its own time per call, beside the usual handler around boto3's client.

    python -m benchmarks.lambda_start [--rounds 9] [--calls 15]

Each handler is loaded in a fresh process per round, in turns, from files without bytecode, as Lambda finds a deployed
asset; the libraries that the runtime brings have theirs. What is called is an endpoint on the loopback interface that
answers at once, over plain HTTP (encryption costs both the same). A handler's own time is that of a call less that of
sending the same bytes to this endpoint and getting its answer.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore

from benchmarks.measuring import Goal, finish, interleaved, machine, make_parser, markdown_table, positive
from cli.aws import ROOT
from cli.console import console, error_console

# A photograph of 500 x 375 pixels; a larger one; and the most that a function URL takes.
SIZES = (124_000, 1_000_000, 4_400_000)
OURS, BOTO3 = "lambda_fn.handler", "boto3_handler"
_PYTHON = "Python itself, not in the others"
_CALLER = ROOT / "benchmarks" / "lambda_caller.py"
_ANSWER = json.dumps(
    {
        "predictions": [{"label": f"Class {index}", "probability": 0.2} for index in range(5)],
        "model": {"name": "dogs", "version": f"sha256:{'0' * 64}"},
    }
).encode()


class CallError(Exception):
    """A handler failed; the message holds what it printed."""


@dataclass(frozen=True)
class Start:
    """One fresh process."""

    init_ms: float  # importing the module and what it does then; of Python itself, starting and ending
    own_ms: dict[int, float]  # by the image's size in bytes, the median own time of a call


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("lambda_start", __doc__, rounds=9)
    parser.add_argument("--calls", type=positive, default=15, help="of each size, in each process (%(default)s)")
    arguments = parser.parse_args(argv)
    description = machine(["boto3", "botocore"])
    try:
        with tempfile.TemporaryDirectory(prefix="lambda-start-") as folder, endpoint() as address:
            asset = Path(folder)  # both handlers, as they are deployed: without bytecode
            shutil.copytree(ROOT / "lambda_fn", asset / "lambda_fn", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "benchmarks" / "peers" / f"{BOTO3}.py", asset)
            systems: dict[str, Callable[[], Start]] = {_PYTHON: python_start}
            for module in (OURS, BOTO3):
                start = functools.partial(call_handler, asset, module)
                systems[f"{module}, start"] = start
                systems[f"{module}, calls"] = functools.partial(start, calls=arguments.calls, address=address)
            measured = interleaved(systems, arguments.rounds)
    except CallError as error:
        error_console.print(f"Stopped: {error}", markup=False)
        return 1
    except KeyboardInterrupt:
        error_console.print("Interrupted; there are no results.")
        return 130
    return _report(arguments, description, measured)


def _report(arguments: argparse.Namespace, description: dict[str, Any], measured: dict[str, list[Start]]) -> int:
    modules = {OURS: "our function", BOTO3: 'boto3.client("sagemaker-runtime")'}
    python_ms = statistics.median(start.init_ms for start in measured[_PYTHON])
    inits = {module: statistics.median(start.init_ms for start in measured[f"{module}, start"]) for module in modules}
    own = {
        module: {
            size: statistics.median(start.own_ms[size] for start in measured[f"{module}, calls"]) for size in SIZES
        }
        for module in modules
    }
    rows = [(_PYTHON, f"{python_ms:.0f}", *[""] * len(SIZES))]
    for module, name in modules.items():
        rows.append((name, f"{inits[module]:.0f}", *(f"{own[module][size]:.2f}" for size in SIZES)))
    columns = ("", "start", *(f"own time, {size // 1000:,} KB" for size in SIZES))
    console.print(markdown_table(f"Milliseconds, medians of {arguments.rounds} rounds", columns, rows))
    smallest = SIZES[0]
    goals = [
        Goal("start, net of Python", inits[OURS], 400, at_least=False, unit=" ms"),
        Goal(f"own time of a call with {smallest // 1000} KB", own[OURS][smallest], 5, at_least=False, unit=" ms"),
    ]
    figures = {"machine": description, "python_ms": python_ms, "start_ms": inits, "own_ms": own}
    return finish(arguments, figures, goals)


def python_start() -> Start:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    return Start((time.perf_counter() - began) * 1000, {})


def call_handler(asset: Path, module: str, *, calls: int = 0, address: str = "") -> Start:
    """Load a handler of the asset in a fresh process and call it at the address, so many times with each size.

    Without calls it is loaded for AWS's own address, and so with all that TLS needs.
    """
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        # What the asset holds, what the runtime brings, and for the caller what it measures with.
        "PYTHONPATH": os.pathsep.join(map(str, (asset, Path(botocore.__file__).parents[1], ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ENDPOINT_NAME": "dogs",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_EC2_METADATA_DISABLED": "true",
        **({"AWS_ENDPOINT_URL": address} if address else {}),
    }
    sizes = [str(size) for size in SIZES] if calls else []
    # Without `site`, which would import for the virtual environment what a handler then has for nothing.
    command = [sys.executable, "-S", str(_CALLER), module, str(calls), *sizes]
    done = subprocess.run(command, cwd=asset, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CallError(f"{module} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    own = {
        int(size): statistics.median(found["calls_ms"]) - statistics.median(found["exchange_ms"])
        for size, found in result["sizes"].items()
    }
    return Start(result["init_ms"], own)


@contextlib.contextmanager
def endpoint() -> Iterator[str]:
    """Answer every POST on the loopback interface at once; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one write

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(_ANSWER)))
            self.end_headers()
            self.wfile.write(_ANSWER)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    sys.exit(main())
