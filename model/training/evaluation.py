"""How good an artifact is, measured as its callers meet it: whole picture files through its own predictor."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path

from ..decoding import ImageError
from ..metrics import Evaluation
from ..predictor import Predictor
from .data import DataSet, DataSetError

log = logging.getLogger(__name__)


def evaluate_artifact(model_dir: Path, data_set: DataSet, split: str) -> tuple[Evaluation, dict[str, str]]:
    """Classify every picture of a split with an artifact's predictor.

    Parameters
    ----------
    model_dir : Path
        The artifact's folder.
    data_set : DataSet
        With the artifact's labels.
    split : str
        Its name.

    Returns
    -------
    Evaluation
    dict of str to str
        The unreadable files, each with the reason; they are not counted.

    Raises
    ------
    ArtifactError
        When the artifact does not load.
    DataSetError
        When the data set's classes are not the artifact's, or no picture of the split is readable.
    """
    predictor = Predictor.load(model_dir)
    if tuple(predictor.card.labels) != data_set.labels:
        raise DataSetError(
            f"the model in {model_dir} knows other classes than {data_set.root}: {', '.join(predictor.card.labels)}"
        )
    losses: list[float] = []
    truth: list[int] = []
    predicted: list[int] = []
    skipped: dict[str, str] = {}
    for path, target in data_set.splits[split].pictures():
        try:
            scores = predictor.predict(path.read_bytes(), top_k=1).scores
        except (ImageError, OSError) as error:
            name = str(path.relative_to(data_set.root))
            log.warning("skipped %s: %s", name, error)
            skipped[name] = str(error)
            continue
        # A probability that underflows to 0 would make the loss infinite, which JSON cannot hold.
        losses.append(-math.log(max(scores[target], sys.float_info.min)))
        truth.append(target)
        predicted.append(max(range(len(scores)), key=scores.__getitem__))
    if not truth:
        raise DataSetError(f"no picture of the {split} split is readable; the first: {next(iter(skipped.values()))}")
    return Evaluation.of(losses, truth, predicted, len(data_set.labels)), skipped
