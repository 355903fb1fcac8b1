"""`kennel classify` and `kennel evaluate`: ask the deployed function, and measure how often it is right."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.data.commands import SAMPLE_DIR
from cli.data.dataset import read_data_set
from cli.errors import NotReadyError, WorkFailedError
from cli.parallel import map_unordered
from cli.serving.function_client import Answer, FunctionClient
from model.core.artifact import ArtifactError
from model.training.data.image_folder import ImageFile

if TYPE_CHECKING:
    from model.core.predictor import Predictor

_CALLS_AT_ONCE = 4
_UNREADABLE = 415  # HTTP: not an image that the model reads


def classify(
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Files, or public https addresses.")],
    top_k: Annotated[int, typer.Option(min=1, help="How many breeds to name.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON answer a line.")] = False,
) -> None:
    """Name the breed in images."""
    for name in images:
        if not _is_url(name) and not Path(name).is_file():
            raise NotReadyError(f"There is no image at {name}.")
    client = FunctionClient(context.obj)
    failures = 0
    for name in images:
        if _is_url(name):
            answer = client.classify_url(name, top_k=top_k)
        else:
            answer = client.classify_bytes(Path(name).read_bytes(), top_k=top_k)
        failures += answer.error is not None
        if as_json:
            typer.echo(json.dumps({"image": name, "status": answer.status, **answer.body}))
        else:
            console.print(f"{name}: {describe(answer)}")
    if failures:
        raise WorkFailedError(f"{failures} of {len(images)} images could not be classified.")


def describe(answer: Answer) -> str:
    """An answer as one line for a person."""
    if answer.error:
        return answer.error
    return ", ".join(f"{found['label']} {found['probability']:.1%}" for found in answer.body["predictions"])


def _is_url(name: str) -> bool:
    return name.lower().startswith(("https://", "http://"))


@dataclass(frozen=True)
class Evaluation:
    """The function's answers on a test set beside those of the same artifact, run here; accuracies are from 0 to 1."""

    images: list[ImageFile]  # of the test set
    answers: list[Answer]  # in the same order
    right: list[bool]  # whether the function's first answer was the image's class
    unreadable: list[ImageFile]  # by the function
    online: float  # accuracy through the function URL
    offline: float  # accuracy of the artifact's own predictor on this machine
    largest_difference: float  # between any online and offline probability

    def figures(self) -> dict[str, Any]:
        """The measured figures for a program to read."""
        return {
            "test_images": len(self.images),
            "unreadable": [str(image.path) for image in self.unreadable],
            "accuracy_online": self.online,
            "accuracy_offline": self.offline,
            "largest_difference": self.largest_difference,
        }


def evaluate(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="The data set whose test/ is used.")] = SAMPLE_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the deployed accuracy, through the function URL, beside that of the same artifact run here."""
    stage: Stage = context.obj
    evaluation = evaluate_deployment(stage, directory)
    if as_json:
        typer.echo(json.dumps(evaluation.figures()))
    else:
        console.print(evaluation_table(evaluation))


def evaluation_table(evaluation: Evaluation) -> Table:
    """The figures of an evaluation for a person."""
    table = Table(show_header=False, box=None)
    table.add_row("test images", str(len(evaluation.images)))
    if evaluation.unreadable:
        table.add_row("left out: not readable", ", ".join(evaluation.figures()["unreadable"]))
    table.add_row("accuracy through the function URL", f"{evaluation.online:.2%}")
    table.add_row("accuracy of the same artifact offline", f"{evaluation.offline:.2%}")
    table.add_row("largest difference of a probability", f"{evaluation.largest_difference:.1e}")
    return table


def evaluate_deployment(stage: Stage, directory: Path) -> Evaluation:
    """Send every test image through the function URL and through the artifact's predictor on this machine.

    Images that the function cannot read (HTTP 415) are left out of both accuracies and listed in `unreadable`. A
    NotReadyError says that there is no test set, no artifact, or that the endpoint serves another model than the
    artifact; a WorkFailedError that an image got no answer.
    """
    import numpy as np  # as what `_load` imports: not needed by `classify`

    test = [image for image in read_data_set(directory).images if image.split == "test"]
    if not test:
        raise NotReadyError(f"{directory} has no images in test/.")
    client = FunctionClient(stage, connections=_CALLS_AT_ONCE)

    def ask(image: ImageFile) -> Answer:
        return client.classify_bytes(image.path.read_bytes(), scores=True)

    with progress_bar("Classifying", len(test)) as report:
        answers = dict(map_unordered(ask, test, threads=_CALLS_AT_ONCE, report=report))
    pairs = [(image, answers[image]) for image in test]
    unreadable = [image for image, answer in pairs if answer.status == _UNREADABLE]
    pairs = [(image, answer) for image, answer in pairs if answer.status != _UNREADABLE] or pairs
    if refused := [f"{image.path}: {answer.error}" for image, answer in pairs if answer.error]:
        raise WorkFailedError(f"{len(refused)} of {len(test)} images got no answer; {refused[0]}")
    predictor = _load(stage.artifact)
    labels, version = predictor.card.labels, predictor.card.version
    if other := {answer.body["model"]["version"] for _, answer in pairs} - {version}:
        message = f"The endpoint serves {min(other)[:19]}…, the artifact here is {version[:19]}…."
        raise NotReadyError(message, "Deploy it: kennel deploy")
    if wrong := [image.path for image, answer in pairs if len(answer.body.get("scores", ())) != len(labels)]:
        raise WorkFailedError(f"{len(wrong)} of {len(test)} answers have no score for each breed; {wrong[0]}")
    online = np.array([answer.body["scores"] for _, answer in pairs])
    offline = np.array([predictor.predict(image.path.read_bytes()).scores for image, _ in pairs])
    truth = [labels.index(image.label) for image, _ in pairs]
    right = online.argmax(axis=1) == truth
    return Evaluation(
        images=[image for image, _ in pairs],
        answers=[answer for _, answer in pairs],
        right=right.tolist(),
        unreadable=unreadable,
        online=float(right.mean()),
        offline=float((offline.argmax(axis=1) == truth).mean()),
        largest_difference=float(abs(online - offline).max()),
    )


def _load(artifact: Path) -> Predictor:
    from model.core import packaging
    from model.core.predictor import Predictor

    with tempfile.TemporaryDirectory() as folder:
        try:
            packaging.unpack(artifact, Path(folder))
            return Predictor.load(Path(folder))
        except ArtifactError as error:
            raise NotReadyError(f"{artifact} cannot be loaded: {error}") from error
