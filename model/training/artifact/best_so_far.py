"""The best model so far, in the model folder while the training goes on.

SageMaker stops what its toolkit runs without a signal, and uploads what lies in the model folder then. So a model that
can be packaged lies there from the first epoch on: one file, replaced as a whole, until the finished artifact is there.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import logging
import tempfile
import time
from pathlib import Path

from torch import nn

from ...core.archives import write_archive
from ...core.artifact import CARD_FILE
from ...core.packaging import BEST_FILE, METRICS_FILE
from ..config import TrainingConfig
from ..loop.metrics import Evaluation
from ..loop.state import Fit
from ..whole_files import write_whole
from .finishing import Trained, write_model

log = logging.getLogger(__name__)

# What writing models may take of the time. The first one is written at once.
SHARE_OF_TIME = 0.1
# As many validation images show that the exported graph is the network; the finished artifact is compared on more.
CHECKED_IMAGES = 8


class BestSoFar:
    """Writes the model of the best epoch after it has become that, or as soon as that does not take too much time.

    `part` is the part of the network that is trained, and that the outcomes have the weights of: all, or its head.
    """

    def __init__(self, config: TrainingConfig, trained: Trained, part: nn.Module, *, started: float) -> None:
        self._config, self._trained, self._started = config, trained, started
        self._network, self._part = copy.deepcopy((trained.network, part))  # together: one is a part of the other
        self._written: Evaluation | None = None
        self._next = 0.0

    def __call__(self, outcome: Fit) -> None:
        """Take note of what has been reached; call it after every epoch."""
        began = time.monotonic()
        if outcome.best is self._written or began < self._next:
            return
        try:
            self._write(outcome)
        except Exception as error:  # a full disk is one of many kinds to torch; the training is worth more
            log.warning("the best model so far could not be written (%s); the training goes on", error)
        self._written = outcome.best
        self._next = began + (time.monotonic() - began) / SHARE_OF_TIME

    def _write(self, outcome: Fit) -> None:
        self._part.load_state_dict(outcome.weights)
        trained = dataclasses.replace(self._trained, network=self._network, outcome=outcome)
        content = io.BytesIO()
        with tempfile.TemporaryDirectory(prefix="best-") as name:
            written = write_model(
                self._config, trained, Path(name), started=self._started, checked_images=CHECKED_IMAGES
            )
            if error := written["export"].get("error"):
                log.warning("the best model so far is not written: %s; the training goes on", error)
                return
            write_archive(Path(name), content, compression=0)
            metrics = Path(name, METRICS_FILE).read_bytes()
        write_whole(self._config.model_dir / BEST_FILE, content.getbuffer())
        # From now on an artifact that an earlier training has left there is not the newest model any more.
        (self._config.model_dir / CARD_FILE).unlink(missing_ok=True)
        write_whole(self._config.output_data_dir / METRICS_FILE, metrics)
