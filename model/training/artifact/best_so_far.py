"""The best model so far, in the model folder while the training goes on.

SageMaker stops what its toolkit runs without a signal that the program could notice (StopTrainingJob, early stopping,
time limits), and uploads what lies in the model folder then. So a model that can be packaged lies there from the first
epoch on: one file, replaced as a whole, until the finished artifact takes its place.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...core.archives import write_archive
from ...core.artifact import CARD_FILE
from ...core.packaging import BEST_FILE, METRICS_FILE
from ..config import TrainingConfig
from ..loop.metrics import Evaluation
from ..loop.state import Fit
from ..whole_files import write_whole
from .finishing import Trained, write_model

log = logging.getLogger(__name__)

# Of the time since the start: what writing models may take. The first one is written whatever that takes.
SHARE_OF_TIME = 0.1
# As many validation images show that the exported graph is the network; the finished artifact is compared on more.
CHECKED_IMAGES = 8


class BestSoFar:
    """Writes the model of the best epoch after it has become that, or as soon as that does not take too much time.

    `write` is called with the outcome so far and with the weights of its best epoch (`best_writer`).
    """

    def __init__(self, write: Callable[[Fit, Mapping[str, Any]], None]) -> None:
        self._write = write
        self._began = time.monotonic()
        self._written: Evaluation | None = None
        self._spent = self._last = 0.0

    def __call__(self, outcome: Fit, weights: Callable[[], Mapping[str, Any]]) -> None:
        """Take note of an outcome; call it after every epoch, with what gives the best epoch's weights."""
        now = time.monotonic()
        too_early = self._spent + self._last > SHARE_OF_TIME * (now - self._began)
        if outcome.best is self._written or (too_early and self._written is not None):
            return
        try:
            self._write(outcome, weights())
        except OSError as error:
            log.warning(
                "the best model so far could not be written (%s); the training goes on", error.strerror or error
            )
        self._written = outcome.best
        self._last = time.monotonic() - now
        self._spent += self._last


def best_writer(
    config: TrainingConfig, trained: Trained, *, started: float
) -> Callable[[Fit, Mapping[str, Any]], None]:
    """Return what writes the model of an unfinished training into the model folder, in one file.

    The network of `trained` is a copy, whose weights are replaced; its outcome is ignored. `started` is
    `time.perf_counter()` when the training began.
    """

    def write(outcome: Fit, weights: Mapping[str, Any]) -> None:
        trained.network.load_state_dict(weights)
        current = dataclasses.replace(trained, outcome=outcome)
        content = io.BytesIO()
        with tempfile.TemporaryDirectory(prefix="best-") as name:
            write_model(config, current, Path(name), started=started, checked_images=CHECKED_IMAGES)
            write_archive(Path(name), content, compression=0)
            metrics = Path(name, METRICS_FILE).read_bytes()
        write_whole(config.model_dir / BEST_FILE, content.getbuffer())
        # From now on an artifact that an earlier training has left there is not the newest model any more.
        (config.model_dir / CARD_FILE).unlink(missing_ok=True)
        write_whole(config.output_data_dir / METRICS_FILE, metrics)

    return write
