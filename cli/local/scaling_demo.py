"""`kennel demo-scaling`: scaling, a rollout that goes back, cold starts and throttling, each seen to happen."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.table import Table

from cli.aws import ROOT, Stage
from cli.charts import draw_scaling
from cli.console import console, show
from cli.data.commands import draw_sample
from cli.errors import KennelError, NotReadyError, WorkFailedError
from cli.load.generator import Check, open_loop
from cli.load.stream import RIGHT, TRY_AGAIN, Stream, labels_of, tally
from cli.load.target import Target, check_labels
from cli.local import commands as local
from cli.local.bad_model import make_bad_model
from cli.local.watching import Watch
from cli.operating.deploying import deploy_stacks
from cli.serving.classify import load_predictor
from cli.serving.function_client import FunctionClient
from cli.training.packaging import package_model
from emulator.platform.settings import free_port

_STAGES = ("demo", "prod", "serverless")
_FOLDER = ROOT / "build" / "demo-scaling"
_STATE = Path(".kennel/demo-scaling")
_CDK_LOG = Path(".kennel/demo-scaling-cdk.log")
#: A minute of AWS takes two seconds, and an instance takes four until its server starts.
_CLOCK, _INSTANCE_START = 30.0, 120.0
#: Requests per second, and the instances that the stage demo then wants.
_STEPS = {7.0: 2, 15.5: 4}
_CANARY_RATE = 8.0
_CANARY_SHARE = 0.5  # prod's settings
_BY_ALARM = "these alarms are in the ALARM state"
_BURST = 24
#: After so long without a call the local AWS stops a serverless container; a little more.
_IDLE_SECONDS = 360 / _CLOCK
_WARM_CALLS = 20
_LONGEST_SECONDS = 90.0


class NotShownError(KennelError):
    """A step did not show what it is there for (exit code 1)."""


def show_scaling() -> None:
    """Tell the story on a local AWS of its own, then draw what was seen; a NotShownError says what was not."""
    watch, evidence = Watch(), dict[str, str]()
    for stage in map(Stage, _STAGES):
        if stage.settings.account:
            message = f"{stage.settings_file} names an account, and the demo deploys that stage on a local AWS."
            raise NotReadyError(message, "Run it in a copy of the project where no stage names one.")
    if _STATE.exists():
        local.down(_STATE, delete_state=True)
    try:
        _tell(watch, evidence)
    except KennelError as error:
        raise NotShownError(str(error), error.hint or f"The CDK's output is in {_CDK_LOG}.") from error
    finally:
        local.down(_STATE, delete_state=False)
        if watch.samples:
            draw_scaling(watch, _FOLDER / "scaling.png")
            console.print(f"Chart: {_FOLDER / 'scaling.png'}")
        table = Table("step", "evidence", "seconds", title="What was shown", title_justify="left")
        for name, (begin, end) in watch.steps.items():
            table.add_row(name, evidence.get(name, "NOT SHOWN"), f"{end - begin:.0f}")
        table.add_row("all", "", f"{watch.now():.0f}", style="bold")
        show({"evidence": evidence, "begin_and_end_seconds": watch.steps}, table)


def _tell(watch: Watch, evidence: dict[str, str]) -> None:
    story = _Story(watch)
    steps: dict[str, Callable[[], str]] = {
        "Start and deploy the stage demo": story.begin,
        "Load: more instances": story.scale_out,
        "No load: back to the minimum; deploy prod meanwhile": story.scale_in,
        "A bad model's canary in prod": story.roll_back,
        "Reserved concurrency of the function": story.throttle,
        "Serverless: cold and warm": story.start_cold,
    }
    with ExitStack() as stack:
        for name, step in steps.items():
            if len(evidence) == 1:  # the first step has progress bars of its own
                stack.enter_context(watch.shown())
            with watch.step(name):
                evidence[name] = step()
            console.print(f"Shown: {evidence[name]}.")


def _require(shown: bool, otherwise: str) -> None:
    if not shown:
        raise NotShownError(otherwise)


def _wait(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not ready():
        _require(time.monotonic() < deadline, f"{what}: not within {_LONGEST_SECONDS:.0f} s.")
        time.sleep(0.2)


class _Story:
    """The steps, in this order; each returns its evidence."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._demo, self._prod, self._serverless = map(Stage, _STAGES)
        self._images = _FOLDER / "data" / "test"
        self._model, self._bad_model = _FOLDER / "model.tar.gz", _FOLDER / "bad-model.tar.gz"

    def begin(self) -> str:
        local.start(_STATE, free_port(), clock=_CLOCK, instance_start_seconds=_INSTANCE_START)
        local.enter(_STATE)
        with ThreadPoolExecutor(1) as pool:
            deployed = pool.submit(deploy_stacks, self._demo, ["storage"], log=_CDK_LOG)
            self._make_models()
            deployed.result()
        deploy_stacks(self._demo, ["inference"], log=_CDK_LOG, artifact=self._model)
        return f"a small model, trained and deployed by cdk; the clock runs {_CLOCK:g} times as fast"

    def _make_models(self) -> None:
        data, trained = _FOLDER / "data", _FOLDER / "trained"
        draw_sample(data, seed=1, breeds=4, per_class=(16, 4, 8))
        places = {"--data-dir": data, "--model-dir": trained, "--output-data-dir": _FOLDER / "output"}
        command = [sys.executable, "-m", "model.train", "--epochs", "12"]
        command += [str(word) for option in places.items() for word in option]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkFailedError(f"The training failed:\n{done.stderr}")
        package_model(self._demo, self._model, source=trained)
        make_bad_model(self._model, self._bad_model)

    def scale_out(self) -> str:
        target, check = self._target(self._demo)
        with self._watch.loaded(self._demo, Stream(target, min(_STEPS), check)) as load:
            for load.rate, instances in _STEPS.items():
                self._wait_for(instances)
        found = tally(load.results)
        _require(set(found) == {RIGHT}, f"Requests failed while instances were added: {dict(found)}.")
        by_alarm = [cause for cause, _ in self._activities() if "AlarmHigh" in cause]
        _require(len(by_alarm) >= len(_STEPS), "No alarm had instances added.")
        counts = " → ".join(map(str, (1, *_STEPS.values())))
        return f"{counts} instances by the alarms of the policy; {found[RIGHT]} requests, all right"

    def scale_in(self) -> str:
        with ThreadPoolExecutor(1) as pool:
            stacks = ["storage", "inference"]
            deployed = pool.submit(deploy_stacks, self._prod, stacks, log=_CDK_LOG, artifact=self._model)
            self._wait_for(1)
            deployed.result()
        _wait(lambda: self._activities()[0][1] == "Successful", "the end of the scaling activity")
        cause, _ = self._activities()[0]
        _require("AlarmLow" in cause, f"No alarm took instances away: {cause}.")
        return "1 instance again, by the policy's low alarm (15 of AWS's minutes)"

    def roll_back(self) -> str:
        target, check = self._target(self._prod)
        sagemaker, name = self._prod.client("sagemaker"), self._prod.settings.endpoint_name
        before = sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
        with self._watch.loaded(self._prod, Stream(target, _CANARY_RATE, check)) as load:
            try:
                deploy_stacks(self._prod, ["inference"], log=_CDK_LOG, artifact=self._bad_model)
            except WorkFailedError as error:
                _require(_BY_ALARM in str(error), f"The deployment failed, but not by an alarm: {error}")
            else:
                raise NotShownError("A model that fails was deployed.")
            gone_back = len(load.results)
            time.sleep(3)
        now = sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
        _require(now == before, f"The endpoint has {now}, not {before}, which it had before.")
        found, failed = tally(load.results), [result.scheduled for result in load.results if result.status == 424]
        _require(set(found) <= {RIGHT, TRY_AGAIN, "HTTP 424"}, f"Requests were lost: {dict(found)}.")
        _require(set(tally(load.results[gone_back:])) == {RIGHT}, "Requests failed after the rollback.")
        of_all = _total(self._prod, "Invocation5XXErrors", "Sum")
        of_old = _total(self._prod, "Invocation5XXErrors", "Sum", EndpointConfigName=before)
        asked_old = _total(self._prod, "Invocations", "Sum", EndpointConfigName=before)
        counts = f"{len(failed)} requests failed; CloudWatch has {of_all:g} 5xx, {of_old:g} of the old model"
        _require(bool(failed) and asked_old > 0 and (of_all, of_old) == (len(failed), 0), counts)
        during = sum(min(failed) <= result.scheduled <= max(failed) for result in load.results)
        most = _CANARY_SHARE * during + 1.5 * during**0.5  # three standard deviations of so many draws
        _require(len(failed) <= most, f"{len(failed)} of {during} requests failed, more than the canary's share.")
        return (
            f"{len(failed)} of {during} requests failed while the canary had half of them, none in the old model; "
            "by its 5xx the alarm rang and the deployment went back; "
            f"in all {found[RIGHT]} right, {found[TRY_AGAIN]} to be repeated, 0 lost"
        )

    def throttle(self) -> str:
        target, check = self._target(self._demo)
        function, name = self._demo.client("lambda"), self._demo.output("inference", "FunctionName")

        def burst() -> Counter[str]:
            return tally(open_loop(target.calls(), [0.0] * _BURST, check, _LONGEST_SECONDS))

        function.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
        limited = burst()
        function.delete_function_concurrency(FunctionName=name)
        free = burst()
        _require(limited.keys() == {RIGHT, "HTTP 429"}, f"With a concurrency of 1: {dict(limited)}.")
        _require(free.keys() == {RIGHT}, f"Without a limit: {dict(free)}.")
        return f"{limited['HTTP 429']} of {_BURST} at once got 429 with a concurrency of 1, none without"

    def start_cold(self) -> str:
        deploy_stacks(self._serverless, ["storage", "inference"], log=_CDK_LOG, artifact=self._model)
        self._watch.stage = self._serverless
        client, image = FunctionClient(self._serverless), next(self._images.rglob("*.jpg")).read_bytes()
        time.sleep(_IDLE_SECONDS)

        def seconds() -> float:
            begin = time.monotonic()
            answer = client.classify_bytes(image)
            _require(answer.error is None, f"The serverless endpoint does not answer: {answer.error}")
            return time.monotonic() - begin

        def cold_starts() -> float:
            return _total(self._serverless, "ModelSetupTime", "SampleCount")

        before = cold_starts()
        cold, warm = seconds(), statistics.median(seconds() for _ in range(_WARM_CALLS))
        _wait(lambda: cold_starts() == before + 1, "one more cold start in CloudWatch")
        _require(cold > 3 * warm, f"The first call after a pause took {cold:.2f} s, the others {warm:.2f} s.")
        return f"cold {cold:.2f} s, warm {1000 * warm:.0f} ms; CloudWatch has the start (ModelSetupTime)"

    def _target(self, stage: Stage) -> tuple[Target, Check]:
        target = Target.of(stage, self._images, direct=False)
        labels = labels_of(self._model, target.images)
        bad = load_predictor(self._bad_model).card.version  # answers, too, where there is little colour
        return target, check_labels(labels | {(bad, image): label for (_, image), label in labels.items()})

    def _wait_for(self, instances: int) -> None:
        def in_service() -> bool:
            return any(sample.wanted == sample.running == instances for sample in self._watch.samples[-1:])

        _wait(in_service, f"{instances} instance(s) in service")

    def _activities(self) -> list[tuple[str, str]]:
        """Return the causes and states of what scaling did, the newest first."""
        found = self._demo.client("application-autoscaling").describe_scaling_activities(ServiceNamespace="sagemaker")
        return [(each["Cause"], each["StatusCode"]) for each in found["ScalingActivities"]]


def _total(stage: Stage, metric: str, statistic: str, **dimensions: str) -> float:
    """Return the sum of a statistic of an endpoint's metric, of the last ten minutes."""
    settings, now = stage.settings, datetime.now(UTC)
    dimensions |= {"EndpointName": settings.endpoint_name, "VariantName": settings.serving.variant_name}
    found = stage.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=[statistic],
    )
    return float(sum(point[statistic] for point in found["Datapoints"]))
