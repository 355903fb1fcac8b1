"""`kennel classify` and `kennel evaluate`: ask the deployed function, and measure how often it is right."""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
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
from cli.serving.function_client import Answer, FunctionClient
from model.core.artifact import ArtifactError
from model.training.data.image_folder import ImageFile

if TYPE_CHECKING:
    from model.core.predictor import Predictor

_CALLS_AT_ONCE = 4
_UNREADABLE = 415  # HTTP: not a picture that the model reads


def classify(
    context: typer.Context,
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE…", help="Files, or public https addresses.")],
    top_k: Annotated[int, typer.Option(min=1, help="How many breeds to name.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON answer a line.")] = False,
) -> None:
    """Name the breed in pictures."""
    missing = [picture for picture in pictures if not _is_url(picture) and not Path(picture).is_file()]
    if missing:
        raise NotReadyError(f"There is no picture at {missing[0]}.")
    client = FunctionClient(context.obj)
    failures = 0
    for picture in pictures:
        if _is_url(picture):
            answer = client.classify_url(picture, top_k=top_k)
        else:
            answer = client.classify_bytes(Path(picture).read_bytes(), top_k=top_k)
        failures += answer.error is not None
        if as_json:
            typer.echo(json.dumps({"picture": picture, "status": answer.status, **answer.body}))
        else:
            console.print(f"{picture}: {describe(answer)}")
    if failures:
        raise WorkFailedError(f"{failures} of {len(pictures)} pictures could not be classified.")


def describe(answer: Answer) -> str:
    """An answer as one line for a person."""
    if answer.error:
        return answer.error
    return ", ".join(f"{found['label']} {found['probability']:.1%}" for found in answer.body["predictions"])


def _is_url(picture: str) -> bool:
    return picture.lower().startswith(("https://", "http://"))


@dataclass(frozen=True)
class Evaluation:
    """The function's answers on a test set beside those of the same artifact, run here."""

    pictures: list[ImageFile]
    answers: list[Answer]
    right: list[bool]  # whether the function's first answer was the picture's class
    unreadable: list[ImageFile]
    online: float  # accuracy through the function URL, 0…1
    offline: float  # accuracy of the artifact's own predictor on this machine, 0…1
    largest_difference: float  # between any online and offline probability

    def figures(self) -> dict[str, Any]:
        """The measured figures for a program to read."""
        return {
            "test_pictures": len(self.pictures),
            "unreadable": [str(picture.path) for picture in self.unreadable],
            "accuracy_online": self.online,
            "accuracy_offline": self.offline,
            "largest_difference": self.largest_difference,
        }


def evaluate(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="The data set whose test/ is used.")] = SAMPLE_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the deployed accuracy.

    Through the function URL, beside that of the same artifact run here.
    """
    stage: Stage = context.obj
    evaluation = evaluate_deployment(stage, directory)
    if as_json:
        typer.echo(json.dumps(evaluation.figures()))
    else:
        console.print(evaluation_table(evaluation))


def evaluation_table(evaluation: Evaluation) -> Table:
    """The figures of an evaluation for a person."""
    table = Table(show_header=False, box=None)
    table.add_row("test pictures", str(len(evaluation.pictures)))
    if evaluation.unreadable:
        table.add_row("left out: not readable", ", ".join(str(picture.path) for picture in evaluation.unreadable))
    table.add_row("accuracy through the function URL", f"{evaluation.online:.2%}")
    table.add_row("accuracy of the same artifact offline", f"{evaluation.offline:.2%}")
    table.add_row("largest difference of a probability", f"{evaluation.largest_difference:.1e}")
    return table


def evaluate_deployment(stage: Stage, directory: Path) -> Evaluation:
    """Send every test picture through the function URL and through the artifact's predictor on this machine.

    Images that the function cannot read (HTTP 415) are left out of both accuracies and listed in `unreadable`.

    Raises
    ------
    NotReadyError
        When there is no test set, no artifact, or the endpoint serves another model than the artifact.
    WorkFailedError
        When a picture got no answer.
    """
    test = [picture for picture in read_data_set(directory).images if picture.split == "test"]
    if not test:
        raise NotReadyError(f"{directory} has no pictures in test/.")
    answers = _classify_all(FunctionClient(stage, connections=_CALLS_AT_ONCE), [picture.path for picture in test])
    unreadable = [picture for picture, answer in zip(test, answers, strict=True) if answer.status == _UNREADABLE]
    answered = [
        (picture, answer) for picture, answer in zip(test, answers, strict=True) if answer.status != _UNREADABLE
    ]
    refused = [(picture, answer.error) for picture, answer in answered if answer.error]
    if refused or not answered:
        (example, reason), count = (refused[0], len(refused)) if refused else ((test[0], answers[0].error), len(test))
        raise WorkFailedError(f"{count} of {len(test)} pictures got no answer; {example.path}: {reason}")
    pictures = [picture for picture, _ in answered]
    predictor, offline = _classify_offline(stage.artifact, pictures)
    for picture, answer in answered:
        served, count = answer.body["model"]["version"], len(answer.body.get("scores", ()))
        if served != predictor.card.version:
            raise NotReadyError(
                f"The endpoint serves {served[:19]}…, the artifact here is {predictor.card.version[:19]}….",
                "Deploy it: kennel deploy",
            )
        if count != len(predictor.card.labels):
            raise WorkFailedError(
                f"{picture.path}: the answer has {count} scores, the artifact {len(predictor.card.labels)} labels."
            )
    truth = [predictor.card.labels.index(picture.label) for picture in pictures]
    online = [answer.body["scores"] for _, answer in answered]
    right = _is_right(online, truth)
    return Evaluation(
        pictures,
        [answer for _, answer in answered],
        right,
        unreadable,
        sum(right) / len(right),
        sum(_is_right(offline, truth)) / len(truth),
        max(abs(a - b) for one, other in zip(online, offline, strict=True) for a, b in zip(one, other, strict=True)),
    )


def _classify_all(client: FunctionClient, paths: list[Path]) -> list[Answer]:
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool, progress_bar("Classifying", len(paths)) as report:
        answers = []
        for answer in pool.map(lambda path: client.classify_bytes(path.read_bytes(), scores=True), paths):
            answers.append(answer)
            report(len(answers))
    return answers


def _classify_offline(artifact: Path, pictures: list[ImageFile]) -> tuple[Predictor, list[list[float]]]:
    from model.core import packaging  # numpy and the inference engine: not needed by `classify`
    from model.core.predictor import Predictor

    with tempfile.TemporaryDirectory() as folder:
        try:
            packaging.unpack(artifact, Path(folder))
            predictor = Predictor.load(Path(folder))
        except ArtifactError as error:
            raise NotReadyError(f"{artifact} cannot be loaded: {error}") from error
    predictions = [predictor.predict(picture.path.read_bytes()) for picture in pictures]
    return predictor, [[float(score) for score in prediction.scores] for prediction in predictions]


def _is_right(scores: list[list[float]], truth: list[int]) -> list[bool]:
    return [row.index(max(row)) == label for row, label in zip(scores, truth, strict=True)]
