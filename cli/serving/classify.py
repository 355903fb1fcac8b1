"""`kennel classify` and `kennel evaluate`: ask the deployed function, and measure how often it is right."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from cli.aws import Stage
from cli.console import AsJson, console, error_console, progress_bar, show
from cli.data.commands import SAMPLE_DIR
from cli.data.dataset import find_data_set
from cli.errors import NotReadyError, WorkFailedError
from cli.parallel import map_unordered
from cli.serving.function_client import Answer, FunctionClient
from model.core.artifact import ArtifactError
from model.training.data.image_folder import ImageFile
from model.training.data.listing import some, split_of

if TYPE_CHECKING:
    from model.core.predictor import Predictor

_CALLS_AT_ONCE = 4
_AT_FAULT = (413, 415)  # HTTP: the image is too large, or none that the model reads


def classify(
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Files, or public https addresses.")],
    top_k: Annotated[int, typer.Option(min=1, help="How many breeds to name.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON answer a line.")] = False,
) -> None:
    """Name the breed in images."""
    for name in images:
        if not _is_url(name) and not (Path(name).is_file() and os.access(name, os.R_OK)):
            raise NotReadyError(f"There is no image at {name} that can be read.")
    client = FunctionClient(context.obj, say=error_console.print)
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
    found = ", ".join(f"{one['label']} {one['probability']:.1%}" for one in answer.body["predictions"])
    return f"probably none of these: {found}" if answer.body.get("known") is False else found


def _is_url(name: str) -> bool:
    return name.lower().startswith(("https://", "http://"))


@dataclass(frozen=True)
class Evaluation:
    """The function's answers on a test set beside those of the same artifact, run here; accuracies are from 0 to 1."""

    images: list[ImageFile]  # of the test set, without the others
    answers: list[Answer]  # in the same order
    right: list[bool]  # whether the function's first answer was the image's class
    left_out: dict[str, str]  # the images that cannot be read or are too large, with the reasons, by path
    unanswered: dict[str, str]  # those that are not at fault themselves
    lost: list[str]  # the classes of which no image is left
    online: float  # accuracy through the function URL
    offline: float  # accuracy of the artifact's own predictor on this machine
    largest_difference: float  # between any online and offline probability

    def figures(self) -> dict[str, Any]:
        """The measured figures for a program to read."""
        accuracy = {"accuracy_online": self.online, "accuracy_offline": self.offline}
        named = {name: getattr(self, name) for name in ("left_out", "unanswered", "largest_difference")}
        return {"test_images": len(self.images), "lost_classes": self.lost, **accuracy, **named}


def evaluate(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="The data set whose test/ is used.")] = SAMPLE_DIR,
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of the deployed model.

    It is measured through the function URL, and beside that with the same artifact on this machine. Images that are
    too large or cannot be read are left out and listed. Exit code 3: a class is left without images; 5: images got no
    answer.
    """
    stage: Stage = context.obj
    evaluation = evaluate_deployment(stage, directory)
    show(evaluation.figures(), evaluation_table(evaluation))
    if evaluation.unanswered:
        raise WorkFailedError(f"{len(evaluation.unanswered)} images got no answer.", "Try again.")
    if evaluation.lost:
        raise NotReadyError(
            f"No image in {directory}/test could be used of {some([repr(label) for label in evaluation.lost])}."
        )


def evaluation_table(evaluation: Evaluation) -> Table:
    """The figures of an evaluation for a person."""
    table = Table(Column(), Column(overflow="fold"), show_header=False, box=None)  # no name is cut
    table.add_row("test images", str(len(evaluation.images)))
    for what, images in (("left out", evaluation.left_out), ("no answer", evaluation.unanswered)):
        for path, reason in images.items():
            table.add_row(what, f"{path}: {reason}")
    for label in evaluation.lost:
        table.add_row("class without images", label)
    table.add_row("accuracy through the function URL", f"{evaluation.online:.2%}")
    table.add_row("accuracy of the same artifact offline", f"{evaluation.offline:.2%}")
    table.add_row("largest difference of a probability", f"{evaluation.largest_difference:.1e}")
    return table


def evaluate_deployment(stage: Stage, directory: Path) -> Evaluation:
    """Send every test image through the function URL and through the artifact's predictor on this machine.

    Images that cannot be read, are too large or get no answer are left out of both accuracies, and named. A
    NotReadyError says that there is no test set, no artifact, a class that it lacks, or that the endpoint serves
    another model than the artifact; a WorkFailedError that there is no answer to any image, or one without scores.
    """
    import numpy as np  # as what `load_predictor` imports: not needed by `classify`

    folder = find_data_set(directory)
    test = [image for image in folder.images if image.split == "test"]
    if not test:
        raise NotReadyError(
            f"{directory} has no images in test/.",
            "Add test/<class>/ with images that the model was not trained on, or name a folder of classes: a part of "
            "them is held out.",
        )
    predictor = load_predictor(stage.artifact)
    labels, version = predictor.card.labels, predictor.card.version
    if unknown := sorted({image.label for image in test} - set(labels)):
        raise NotReadyError(
            f"{directory}/test has classes that the model lacks: {some([repr(label) for label in unknown])}.",
            "A model can only name what it was trained on: remove them, or train and deploy one that has them.",
        )
    client = FunctionClient(stage, connections=_CALLS_AT_ONCE)

    def ask(image: ImageFile) -> Answer | str:
        try:
            return client.classify_bytes(image.path.read_bytes(), scores=True)
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"

    with progress_bar("Classifying", len(test)) as report:
        answers = dict(map_unordered(ask, test, threads=_CALLS_AT_ONCE, report=report))
    pairs: list[tuple[ImageFile, Answer]] = []
    beside = {place: why for place, why in folder.left_out.items() if split_of(place.partition("/")[0]) == "test"}
    left_out, unanswered = {str(directory / place): why for place, why in beside.items()}, dict[str, str]()
    for image in test:
        answer = answers[image]
        if isinstance(answer, str):
            left_out[str(image.path)] = answer
        elif answer.error:
            (left_out if answer.status in _AT_FAULT else unanswered)[str(image.path)] = answer.error
        else:
            pairs.append((image, answer))
    if not pairs:
        path, reason = next(iter({**unanswered, **left_out}.items()))
        kind = WorkFailedError if unanswered else NotReadyError
        raise kind(f"None of {len(test)} images could be classified; {path}: {reason}")
    if other := {answer.body["model"]["version"] for _, answer in pairs} - {version}:
        message = f"The endpoint serves {min(other)[:19]}…, the artifact here is {version[:19]}…."
        raise NotReadyError(message, "Deploy it: kennel deploy")
    if wrong := [image.path for image, answer in pairs if len(answer.body.get("scores", ())) != len(labels)]:
        raise WorkFailedError(f"{len(wrong)} of {len(test)} answers have no score for each breed; {wrong[0]}")
    online = np.array([answer.body["scores"] for _, answer in pairs])
    with progress_bar("Classifying on this machine", len(pairs)) as report:
        here = []
        for image, _ in pairs:
            here.append(predictor.predict(image.path.read_bytes()).scores)
            report(len(here))
    offline = np.array(here)
    truth = [labels.index(image.label) for image, _ in pairs]
    classes = {image.label for image in test} | {part for place in beside for part in place.split("/")} & set(labels)
    right = online.argmax(axis=1) == truth
    return Evaluation(
        images=[image for image, _ in pairs],
        answers=[answer for _, answer in pairs],
        right=right.tolist(),
        left_out=left_out,
        unanswered=unanswered,
        lost=sorted(classes - {image.label for image, _ in pairs}),
        online=float(right.mean()),
        offline=float((offline.argmax(axis=1) == truth).mean()),
        largest_difference=float(abs(online - offline).max()),
    )


def load_predictor(artifact: Path) -> Predictor:
    """Load a model.tar.gz; a NotReadyError says why it cannot be."""
    from model.core import packaging
    from model.core.predictor import Predictor

    with tempfile.TemporaryDirectory() as folder:
        try:
            packaging.unpack(artifact, Path(folder))
            return Predictor.load(Path(folder))
        except ArtifactError as error:
            raise NotReadyError(f"{artifact} cannot be loaded: {error}") from error
