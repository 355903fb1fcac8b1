"""The simulator of `kennel plan` beside the local AWS: the same traffic, instance-minutes and late requests.

    python -m benchmarks.planning [--clock 20] [--traces step spike ramp]

Each trace of 30 minutes of AWS is sent, in an open loop, to an endpoint that target tracking scales, on a local AWS
whose clock runs faster; then it is simulated. The model server sleeps instead of computing, so that instances do not
share processors. The simulator counts in seconds of AWS, in which all that is real is slower by the clock.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.measuring import Goal, add_result_options, finish, markdown_table, positive
from benchmarks.serving_systems import free_port
from cli.aws import ROOT, Stage
from cli.console import console
from cli.load.generator import Call, open_loop
from cli.local import commands as local
from cli.planning.simulator import Fleet, simulate
from cli.planning.traffic import Series
from cli.serving.function_client import signed_headers

_STATE = ROOT / "build" / "benchmarks" / "planning"
_SERVICE_SECONDS, _GOAL_SECONDS = 0.05, 0.3  # real ones
_RATE = 1 / _SERVICE_SECONDS
# Starts and cooldowns end between two looks of the alarms: else it is chance which of them is first.
_MOST, _START_SECONDS, _COOLDOWN, _SAFETY = 4, 140, 60, 0.5
_NAME = "planning-benchmark"
#: By trace: minutes of AWS, and the share of what the largest fleet is meant to bear.
_TRACES = {
    "step": ((0, 4, 4.01, 13, 13.01, 30), (0.2, 0.2, 0.9, 0.9, 0.2, 0.2)),
    "spike": ((0, 6, 6.5, 8.5, 9, 30), (0.2, 0.2, 1.4, 1.4, 0.2, 0.2)),
    "ramp": ((0, 2, 14, 30), (0.1, 0.1, 1.0, 0.6)),
}
_SERVER = f"""#!/usr/bin/env python3
import os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

worker = threading.Lock()

class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, -1

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "POST":
            with worker:
                time.sleep({_SERVICE_SECONDS})
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass

ThreadingHTTPServer.request_queue_size = 256
address = os.environ["SAGEMAKER_BIND_TO_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
ThreadingHTTPServer(address, Handler).serve_forever()
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark's command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clock", type=positive, default=20, help="how much faster the local AWS runs (%(default)s)")
    parser.add_argument("--traces", nargs="+", choices=_TRACES, default=list(_TRACES), help="(all)")
    add_result_options(parser)
    arguments = parser.parse_args(argv)
    clock, figures = arguments.clock, dict[str, tuple[float, float]]()
    policy = {
        "TargetValue": _RATE * _SAFETY * 60 / clock,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        "ScaleOutCooldown": _COOLDOWN,
        "ScaleInCooldown": _COOLDOWN,
    }
    shutil.rmtree(_STATE, ignore_errors=True)
    try:
        local.start(_STATE, free_port(), clock=clock, instance_start_seconds=_START_SECONDS)
        local.enter(_STATE)
        stage = Stage("local")
        _make_model(stage)
        for name in arguments.traces:
            console.print(f"{name}: {_TRACES[name][0][-1] * 60 / clock:.0f} s", style="dim")
            start_seconds = _deploy(stage, name, policy) * clock
            traffic = _traffic(name)
            measured = _measured(stage, name, traffic, clock)
            simulated = _simulated(traffic, policy, start_seconds, clock)
            figures[f"{name}: instance-minutes"] = measured[0], simulated[0]
            figures[f"{name}: late requests"] = measured[1], simulated[1]
    finally:
        local.down(_STATE)
        shutil.rmtree(_STATE, ignore_errors=True)
    rows = ((what, f"{real:.1f}", f"{simulated:.1f}") for what, (real, simulated) in figures.items())
    console.print(markdown_table("30 minutes of AWS each", ("", "local AWS", "simulator"), rows))
    goals = [
        Goal(f"{what}, apart", 100 * abs(simulated / max(real, 1) - 1), 10, at_least=False, unit="%")
        for what, (real, simulated) in figures.items()
    ]
    return finish(arguments, {"clock": clock, "local AWS, simulator": figures}, goals)


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
    role = iam.create_role(RoleName=_NAME, AssumeRolePolicyDocument=_policy(trusted))["Role"]["Arn"]
    iam.put_role_policy(RoleName=_NAME, PolicyName=_NAME, PolicyDocument=_policy(allowed))
    image = f"{stage.account}.dkr.ecr.{stage.region}.amazonaws.com/runtime:1"
    container = {"Image": image, "ModelDataUrl": f"s3://{_NAME}/model.tar.gz"}
    sagemaker = stage.client("sagemaker")
    sagemaker.create_model(ModelName=_NAME, ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "main", "ModelName": _NAME, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=_NAME, ProductionVariants=[variant])


def _policy(statement: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


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


def _traffic(name: str) -> Series:
    """Return real requests per second, for every second of AWS."""
    minutes, shares = _TRACES[name]
    return np.interp(np.arange(minutes[-1] * 60) / 60, minutes, shares) * _MOST * _RATE * _SAFETY


def _simulated(traffic: Series, policy: dict[str, Any], start_seconds: float, clock: float) -> tuple[float, float]:
    fleet = Fleet(
        rate=_RATE / clock,
        workers=1,
        queue=1e6,
        initial=1,
        minimum=1,
        maximum=_MOST,
        policy=policy,
        start_seconds=start_seconds,
        metric_delay=0,
    )
    course = simulate(traffic / clock, fleet, _GOAL_SECONDS * clock)
    return float(course.serving.sum() / 60), float(course.late.sum())


def _measured(stage: Stage, endpoint: str, traffic: Series, clock: float) -> tuple[float, float]:
    """Send the traffic; return the minutes of instances in service, and how many requests were late."""
    url = f"{stage.client('sagemaker-runtime').meta.endpoint_url}/endpoints/{endpoint}/invocations"
    call = Call(url, signed_headers(stage, url, b"image", "image/jpeg", service="sagemaker"), b"image")
    until = np.concatenate(([0], np.cumsum(traffic / clock)))  # requests before each second
    chance = np.sort(np.random.default_rng(0).uniform(0, until[-1], round(until[-1])))
    times = np.interp(chance, until, np.arange(len(until)) / clock).tolist()
    sagemaker, counts, stop = stage.client("sagemaker"), list[int](), threading.Event()

    def count() -> None:
        while not stop.wait(5 / clock):
            (variant,) = sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"]
            counts.append(variant["CurrentInstanceCount"])

    minute, counter = 60 / clock, threading.Thread(target=count)
    time.sleep(minute - time.time() % minute)  # the simulator's minutes begin with those of the alarms
    counter.start()
    results = open_loop([call], times, lambda _, status, body: None if status == 200 else "no answer", 120)
    time.sleep(max(0, len(traffic) / clock - results[-1].ended))
    stop.set()
    counter.join()
    late = sum(result.fault is not None or result.latency_ms > _GOAL_SECONDS * 1000 for result in results)
    return float(np.mean(counts)) * len(traffic) / 60, float(late)


if __name__ == "__main__":
    sys.exit(main())
