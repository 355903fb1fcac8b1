"""`kennel demo`: the life of a model on the local AWS, start to finish, with the time of each step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic

from rich.table import Table
from rich.text import Text

from cli.aws import Stage
from cli.console import AsJson, console, progress_bar, show
from cli.data.commands import SAMPLE_DIR, draw_sample
from cli.data.dataset import read_data_set
from cli.data.push import data_set_name, push_data_set
from cli.errors import goes_on
from cli.local import commands as local
from cli.models.registry import register
from cli.operating.deploying import deploy_stacks
from cli.serving.classify import Evaluation, evaluate_deployment, evaluation_table
from cli.training.packaging import package_model
from cli.training.sagemaker import TrainingRequest, follow_training, start_training
from cli.tuning.commands import start_tuning
from cli.tuning.jobs import best_hyperparameters
from cli.tuning.request import TuningRequest
from cli.tuning.watching import watch_tuning

_CDK_LOG = Path(".kennel/demo-cdk.log")
_SHOWN = 12  # answers in the table
# A search that is short enough to be watched. Trainings of so few epochs prefer smaller learning rates than long ones
# do, and whatever batch makes the most steps. So the rates begin at train.py's default, and the batch stays at it:
# docs/measurements/tuning.md has the figures.
_TUNING_JOBS, _TUNING_EPOCHS = 4, 3
_LEARNING_RATES = (0.01, 0.03)
_BATCH_SIZE = 64
_EPOCHS = 32


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long a step takes."""
    console.rule(Text(name, style="bold"), align="left", style="dim")
    start = monotonic()
    yield
    seconds[name] = monotonic() - start


@goes_on("The local AWS goes on with all that runs on it; it costs nothing. Stop it: kennel local down")
def demo(port: local.Port = None, state_dir: local.StateDir = local.STATE_DIR, as_json: AsJson = False) -> None:
    """Draw images, tune, train, deploy, classify: on the local AWS."""
    seconds: dict[str, float] = {}
    step, directory = partial(_timed, seconds), SAMPLE_DIR
    with step("Start the local AWS"):
        started = local.start(state_dir, port)
        local.enter(state_dir)
        console.print(f"It answers at {started.endpoint_url} and enforces IAM. The CDK's output goes to {_CDK_LOG}.")
    stage = Stage("local")
    with step("cdk bootstrap and deploy: storage, training; draw a data set meanwhile"), ThreadPoolExecutor(1) as pool:
        deployed = pool.submit(deploy_stacks, stage, ["storage", "training"], log=_CDK_LOG)  # bootstraps first
        draw_sample(directory, seed=1, breeds=12, per_class=(120, 15, 15))
        with progress_bar("cdk deploy"):
            deployed.result()
    with step("Push the data set into the bucket"):
        data_set = read_data_set(directory)
        name = data_set_name(directory, None)
        result = push_data_set(stage, data_set, name)
        console.print(f"{result.uploaded} images uploaded, {result.unchanged} unchanged.")
    with step("Tune: a SageMaker tuning job"):
        tuning = watch_tuning(stage, start_tuning(stage, search_request(stage, name)))
    with step("Train with the best values: a SageMaker training job on two instances"):
        chosen = {"epochs": str(_EPOCHS), "precision": "auto"}
        best = best_hyperparameters(stage, tuning.name) | chosen
        job = start_training(stage, TrainingRequest(name, best, instances=2))
        follow_training(stage, job)
    with step("Package the model"):
        card = package_model(stage, stage.artifact, job=job)
        console.print(f"{card.architecture}, {len(card.labels)} classes, {stage.artifact.stat().st_size / 1e6:.1f} MB.")
        console.print(f"Registered as version {register(stage, stage.artifact, card, job)}.")
    with step("cdk deploy: endpoint, scaling, function"):
        with progress_bar("cdk deploy"):
            deploy_stacks(stage, ["inference"], log=_CDK_LOG)
        console.print(f"The function answers at {stage.output('inference', 'FunctionUrl')}")
    with step("Classify the test images through the function URL"):
        evaluation = evaluate_deployment(stage, directory)
    console.rule(style="dim")
    times = Table("step", "seconds", title="Time of each step", title_justify="left")
    for name, duration in {**seconds, "all": sum(seconds.values())}.items():
        times.add_row(name, f"{duration:.1f}")
    show({"seconds": seconds, **evaluation.figures()}, _answers_table(evaluation), evaluation_table(evaluation), times)
    console.print(
        "It is still running. Try it on an image of yours:\n"
        '  source .venv/bin/activate; eval "$(kennel local env)"; kennel classify IMAGE\n'
        "This model knows drawn dogs only. One that knows photographs takes three commands (133 breeds, 1.1 GB; or "
        "push a folder of yours, with a folder per class):\n"
        "  kennel data pull && kennel data push data/breeds\n"
        "  kennel train --data breeds --set architecture=resnet50 --set weights=default --set mode=head\n"
        "  kennel package && kennel deploy\n"
        "In the same shell: kennel destroy removes what was deployed, kennel local down stops the local AWS."
    )


def demo_scaling(as_json: AsJson = False) -> None:
    """See scaling, a rollback, cold starts and throttling happen.

    They happen on a local AWS of its own, whose clock runs fast. The stages demo, prod and serverless are deployed as
    their settings say. Exit code 1: something did not happen.
    """
    from cli.local.scaling_demo import show_scaling  # matplotlib, numpy, aiohttp: needed by few commands

    show_scaling()


def search_request(stage: Stage, data_set: str) -> TuningRequest:
    """The demo's search over a data set in the bucket; the stage's settings say what it leaves open."""
    low, high = _LEARNING_RATES
    # fp32: the models of a search are not served, so there is nothing to make faster.
    fixed = {"epochs": str(_TUNING_EPOCHS), "batch-size": str(_BATCH_SIZE), "precision": "fp32"}
    settings = replace(stage.settings.training.tuning, max_jobs=_TUNING_JOBS, parallel_jobs=2)
    settings = replace(settings, learning_rate_min=low, learning_rate_max=high)
    return TuningRequest(TrainingRequest(data_set, fixed), settings, seed=0)  # every demo alike


def _answers_table(evaluation: Evaluation) -> Table:
    """A few answers, spread evenly over the test set (and so over the classes)."""
    title = "Held-out images, answered by the function"
    table = Table("image", "answer", "probability", "", title=title, title_justify="left")
    count = len(evaluation.images)
    for index in range(0, count, -(-count // _SHOWN) or 1):
        best = evaluation.answers[index].body["predictions"][0]
        verdict = Text("right", style="green") if evaluation.right[index] else Text("wrong", style="red")
        table.add_row(evaluation.images[index].name, best["label"], f"{best['probability']:.1%}", verdict)
    return table
