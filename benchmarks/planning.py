"""The simulator of `kennel plan` beside the local AWS: the same traffic, instance-minutes and late requests.

    python -m benchmarks.planning [--clock 20] [--rounds 3]

Each trace of 30 minutes of AWS is sent, in an open loop, to an endpoint of its own that target tracking scales, on a
local AWS whose clock runs faster. Then it is simulated, in seconds of AWS. The model server sleeps instead of
computing, so that instances do not share processors, and says how long a request waited and was worked on: what a busy
machine adds on the way is no part of what is simulated.

When requests arrive is chance, and decides much: a ramp may set off the alarm a minute sooner or later. The mean of few
rounds says little, so their arrivals are a control variate: each round is compared with a simulation by events of the
very same arrivals, and the mean difference added to the mean of that simulation over many arrivals. The result is
without bias, whether or not the simulation by events is right; it varies less the better it is.
"""

from __future__ import annotations

import io
import json
import shutil
import statistics
import sys
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.measuring import Goal, finish, make_parser, markdown_table, positive
from cli.aws import ROOT, Stage
from cli.console import console
from cli.load.generator import Call, open_loop
from cli.local import commands as local
from cli.planning.simulator import Fleet, simulate, tracking
from cli.planning.traffic import Series
from cli.serving.function_client import signed_headers
from emulator.platform.settings import free_port
from emulator.quotas.service import ALL_ENDPOINTS

_STATE = ROOT / "build" / "benchmarks" / "planning"
_SERVICE_SECONDS, _GOAL_SECONDS = 0.05, 0.3  # real ones
_RATE = 1 / _SERVICE_SECONDS
# Starts and cooldowns end between two looks of the alarms: else it is chance which of them is first.
_MOST, _START_SECONDS, _COOLDOWN, _SAFETY = 4, 140, 60, 0.5
_NAME = "planning-benchmark"
_SECONDS = 1800  # of AWS, each trace
_QUOTAS = ("ml.m5.large for endpoint usage", ALL_ENDPOINTS)
_ARRIVALS = 200  # that are simulated by events
#: By trace: minutes of AWS, and the share of what the largest fleet is meant to bear.
_TRACES = {
    "step": ((0, 4, 4.01, 13, 13.01, 30), (0.2, 0.2, 0.9, 0.9, 0.2, 0.2)),
    "spike": ((0, 6, 6.5, 8.5, 9, 30), (0.2, 0.2, 1.4, 1.4, 0.2, 0.2)),
    "ramp": ((0, 2, 14, 30), (0.1, 0.1, 1.0, 0.6)),
}
_SERVER = f"""#!/usr/bin/env python3
import os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

worker, free = threading.Lock(), 0.0

class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize, log_message = "HTTP/1.1", True, -1, lambda *_: None

    def do_GET(self, said=b""):
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        global free
        received = time.monotonic()
        with worker:  # one after the other, and none the longer for a late wake-up of the one before
            free = max(free, received) + {_SERVICE_SECONDS}
            until = free
        time.sleep(max(until - time.monotonic(), 0))
        self.do_GET(str(until - received).encode())

ThreadingHTTPServer.request_queue_size = 256
ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("planning", __doc__, rounds=3)
    parser.add_argument("--clock", type=positive, default=20, help="how much faster the local AWS runs (%(default)s)")
    arguments = parser.parse_args(argv)
    clock, found = arguments.clock, list[dict[str, tuple[float, float]]]()
    shutil.rmtree(_STATE, ignore_errors=True)
    try:
        quotas = dict.fromkeys(_QUOTAS, 2 * _MOST * arguments.rounds * len(_TRACES))  # endpoints stay until the end
        local.start(_STATE, free_port(), clock=clock, instance_start_seconds=_START_SECONDS, quotas=quotas)
        local.enter(_STATE)
        stage = Stage("local")
        policy = tracking("InvocationsPerInstance", _RATE * _SAFETY * 60 / clock, _COOLDOWN, _COOLDOWN)
        _make_model(stage)
        for number in range(arguments.rounds):
            console.print(f"round {number + 1}: {_SECONDS / clock:.0f} s", style="dim")
            start_seconds = clock * statistics.mean(_deploy(stage, f"{name}{number}", policy) for name in _TRACES)
            begin = time.time() // (60 / clock) * 60 / clock + 60 / clock  # minutes begin with those of the alarms
            given = stage, stage.client("sagemaker")
            with ThreadPoolExecutor() as pool:
                measured = [pool.submit(_measured, *given, name, number, begin, clock) for name in _TRACES]
            found.append({name: future.result() for name, future in zip(_TRACES, measured, strict=True)})
    finally:
        local.down(_STATE)
        shutil.rmtree(_STATE, ignore_errors=True)
    rows, goals = [], []
    fleet = Fleet(
        rate=_RATE / clock, workers=1, queue=1e6, minimum=1, maximum=_MOST, policy=policy, start_seconds=start_seconds
    )
    for name in _TRACES:
        course = simulate(_traffic(name, clock), fleet, _GOAL_SECONDS * clock)
        simulated = float(course.serving.sum() / 60), float(course.late.sum())
        expected = np.mean([_by_events(name, number, fleet, clock) for number in range(_ARRIVALS)], axis=0)
        rounds = np.array([measured[name] for measured in found])
        adjusted = rounds - [_by_events(name, number, fleet, clock) for number in range(len(rounds))] + expected
        errors = adjusted.std(axis=0, ddof=1) / len(rounds) ** 0.5 if len(rounds) > 1 else (np.nan, np.nan)
        for index, what in enumerate((f"{name}: instance-minutes", f"{name}: late requests")):
            mean, real = adjusted.mean(axis=0)[index], rounds[:, index]
            spread = f"{real.min():.1f}–{real.max():.1f}"
            rows.append((what, spread, f"{mean:.1f} ± {errors[index]:.1f}", f"{simulated[index]:.1f}"))
            apart = 100 * abs(simulated[index] / float(mean) - 1)
            goals.append(Goal(f"{what}, apart", apart, 10, at_least=False, unit="%"))
    columns = ("", "local AWS, its rounds", "mean ± standard error, adjusted for the arrivals", "simulator")
    console.print(markdown_table("30 minutes of AWS", columns, rows))
    return finish(arguments, {"clock": clock, "columns": columns, "rows": rows}, goals)


def _make_model(stage: Stage) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("code/serve")
        member.size, member.mode = len(_SERVER), 0o755
        tar.addfile(member, io.BytesIO(_SERVER.encode()))
    s3, iam = stage.client("s3"), stage.client("iam")
    s3.create_bucket(Bucket=_NAME)
    s3.put_object(Bucket=_NAME, Key="model.tar.gz", Body=archive.getvalue())
    trusted = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    allowed = {"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"}
    trust, access = (json.dumps({"Version": "2012-10-17", "Statement": [each]}) for each in (trusted, allowed))
    role = iam.create_role(RoleName=_NAME, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.put_role_policy(RoleName=_NAME, PolicyName=_NAME, PolicyDocument=access)
    image = f"{stage.account}.dkr.ecr.{stage.region}.amazonaws.com/runtime:1"
    container = {"Image": image, "ModelDataUrl": f"s3://{_NAME}/model.tar.gz"}
    sagemaker = stage.client("sagemaker")
    sagemaker.create_model(ModelName=_NAME, ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "main", "ModelName": _NAME, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=_NAME, ProductionVariants=[variant])


def _deploy(stage: Stage, endpoint: str, policy: dict[str, Any]) -> float:
    """Make an endpoint of one instance that scales; return the real seconds that the instance took to start."""
    began = time.monotonic()
    sagemaker, scaling = stage.client("sagemaker"), stage.client("application-autoscaling")
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=_NAME)
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=endpoint, WaiterConfig={"Delay": 0.05, "MaxAttempts": 1200}
    )
    seconds = time.monotonic() - began
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/main",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=_MOST)
    kind = {"PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": policy}
    scaling.put_scaling_policy(**target, PolicyName=_NAME, **kind)
    return seconds


def _traffic(name: str, clock: float) -> Series:
    """Return requests per second of AWS, for every second of AWS."""
    minutes, shares = _TRACES[name]
    return np.interp(np.arange(_SECONDS) / 60, minutes, shares) * _MOST * _RATE * _SAFETY / clock


def _arrivals(name: str, number: int, clock: float) -> Series:
    """Return when the requests of a round arrive, in seconds of AWS."""
    until = np.concatenate(([0], np.cumsum(_traffic(name, clock))))  # requests before each second
    chance = np.sort(np.random.default_rng(number).uniform(0, until[-1], round(until[-1])))
    times: Series = np.interp(chance, until, np.arange(len(until)))
    return times


def _by_events(name: str, number: int, fleet: Fleet, clock: float) -> tuple[float, float]:
    """Simulate a round's arrivals one by one; return the same as `_measured`."""
    times, goal = _arrivals(name, number, clock), _GOAL_SECONDS * clock
    counts = np.bincount(times.astype(int), minlength=_SECONDS).astype(float)
    serving = simulate(counts, fleet, goal).serving
    free, late = [0.0] * _MOST, 0
    for at, chosen in zip(times, np.random.default_rng([number, 1]).random(len(times)), strict=True):
        instance = int(chosen * serving[int(at)])
        free[instance] = max(free[instance], at) + 1 / fleet.rate
        late += free[instance] - at > goal
    return float(serving.sum() / 60), float(late)


def _late(_: Call, status: int, body: bytes) -> str | None:
    return None if status == 200 and float(body) <= _GOAL_SECONDS else "late"


def _measured(stage: Stage, sagemaker: Any, name: str, number: int, begin: float, clock: float) -> tuple[float, float]:
    """Send the traffic; return the minutes of instances in service, and how many requests were late."""
    endpoint = f"{name}{number}"
    url = f"{sagemaker.meta.endpoint_url}/endpoints/{endpoint}/invocations"
    call = Call(url, signed_headers(stage, url, b"image", "image/jpeg", service="sagemaker"), b"image")
    times = (_arrivals(name, number, clock) / clock).tolist()

    def count() -> float:
        """Watch the instances for the length of the trace; return their mean."""
        counts = []
        while time.time() < begin + _SECONDS / clock:
            (variant,) = sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"]
            counts.append(variant["CurrentInstanceCount"])
            time.sleep(5 / clock)
        return float(statistics.mean(counts))

    time.sleep(begin - time.time())
    with ThreadPoolExecutor() as pool:
        mean = pool.submit(count)
        results = open_loop([call], times, _late, 120)
    late = sum(result.fault is not None for result in results)
    return mean.result() * _SECONDS / 60, float(late)


if __name__ == "__main__":
    sys.exit(main())
