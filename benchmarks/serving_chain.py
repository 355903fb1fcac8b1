"""The whole chain: the function URL of the real stacks, deployed on a local AWS of the benchmark's own."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.load import Expected, run_load
from benchmarks.measuring import tree_cpu_seconds
from benchmarks.serving_systems import Plan, Served, Turn, loads_of
from cli.aws import Stage
from cli.load.generator import Call
from cli.local import commands as local
from cli.operating.deploying import deploy_stacks
from cli.serving.function_client import signed_headers
from emulator.platform.settings import free_port
from model.core.packaging import package

# Each caller at once needs an execution environment of the function, and each of those starts once.
_WARM_UP_SECONDS = 10.0
# Of one vCPU; measured over a second.
_IDLE_SHARE = 0.05
_SETTLING_SECONDS = 60.0


@contextlib.contextmanager
def deployed(served: Served, plan: Plan, folder: Path) -> Iterator[Callable[[], Turn]]:
    """Deploy the storage and the inference stack on a new local AWS, which is gone afterwards; give what has the turns.

    The function is always running, so a turn is without start-up and memory.
    """
    state, artifact = folder / "local-aws", folder / "model.tar.gz"
    shutil.rmtree(state, ignore_errors=True)
    package(served.folder, artifact)
    try:
        status = local.start(state, free_port())
        local.enter(state)
        stage = Stage("local")
        deploy_stacks(stage, ["storage", "inference"], log=folder / "cdk.log", artifact=artifact)
        # A second instance would run on the same processors: what is measured is one.
        scaling = stage.client("application-autoscaling")
        for target in scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]:
            named = {name: target[name] for name in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
            scaling.register_scalable_target(**named, MinCapacity=1, MaxCapacity=1)
        url = stage.output("inference", "FunctionUrl")

        def calls() -> list[tuple[Call, Expected]]:
            # Signed before the load, by which the callers save the hashing; a signature outlasts a turn.
            signed = (Call(url, signed_headers(stage, url, image, "image/jpeg"), image) for image in plan.images)
            return list(zip(signed, served.expected, strict=True))

        run_load(calls(), max(plan.clients), 0.0, _WARM_UP_SECONDS)
        _wait_until_idle(status.pid)
        yield lambda: Turn(loads_of(calls(), plan, status.pid))
    finally:
        local.down(state)
        shutil.rmtree(state, ignore_errors=True)


def _wait_until_idle(pid: int) -> None:
    """Wait until execution environments that were still starting have done so: others are measured meanwhile."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    used, before = _IDLE_SHARE, tree_cpu_seconds(pid)
    while used >= _IDLE_SHARE and time.monotonic() < deadline:
        time.sleep(1)
        now = tree_cpu_seconds(pid)
        used, before = now - before, now
