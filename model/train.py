"""Train an image classifier: one entry point for a laptop, an EC2 instance and a SageMaker training job.

On a laptop::

    python -m model.train --data-dir data/sample --model-dir build/model

By two processes, or by one for each GPU, which is what it does by itself where there are several::

    python -m model.train --data-dir data/sample --processes-per-host 2

On two machines, on each with its own --current-host (a SageMaker training job says all this by its SM_* variables)::

    python -m model.train --data-dir data --hosts '["one", "two"]' --current-host one

`docs/training.md` lists the arguments, what is written where, and the exit codes.
"""

from __future__ import annotations

import os

# OpenMP's threads spin while they wait for one another; torch's read this when they are started. On two cores that
# another process uses, too, training is four to nine times as fast when they sleep; on idle ones it is 0.9 times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import contextlib
import errno
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from .core.artifact import ArtifactError
from .core.network import NetworkError
from .training.arguments import ArgumentsError, parse_arguments
from .training.artifact.export import ExportError
from .training.data.listing import DataSetError
from .training.distributed.group import LOST_PEERS, DistributedError, LostPeersError, joined
from .training.distributed.launch import WorkerKilledError, is_worker, launch, processes_per_host
from .training.loop.checkpoints import CheckpointError
from .training.loop.state import DivergedError
from .training.loop.stopping import Stop
from .training.pipeline import train

log = logging.getLogger("model.train")

# SageMaker shows this much of the failure file as the job's FailureReason.
_FAILURE_LENGTH = 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Run the training's command line and return the exit code; see docs/training.md."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    argv = sys.argv[1:] if argv is None else argv
    stop = Stop()
    try:
        config = parse_arguments(argv)
        stop.limit = config.max_runtime or stop.limit
        if not is_worker():
            processes = processes_per_host(config.processes_per_host, config.num_gpus)
            if len(config.hosts) * processes > 1:
                return launch(["-m", "model.train", *argv], config, processes)
        # A worker that is still waiting for the others has nothing to save: a signal ends it at once.
        with joined(len(config.hosts), gpus=config.num_gpus) as group, stop.on_signals():
            if not group.is_main:
                logging.getLogger().setLevel(logging.ERROR)  # they have nothing to say that the first does not say
            train(config, stop, group)
    except ArgumentsError as error:
        return _fail(str(error), 2)
    except LostPeersError as error:
        log.error("%s", error)  # that one has said why
        return LOST_PEERS
    except OSError as error:
        advice = "; give the training a larger volume (volume_gb in the settings)"
        return _fail(f"the disk is full: {error}{advice}" if error.errno == errno.ENOSPC else str(error), 1)
    except (
        ArtifactError, CheckpointError, DataSetError, DistributedError, DivergedError, ExportError, NetworkError,
        WorkerKilledError,
    ) as error:  # fmt: skip
        return _fail(str(error), 1)
    except Exception as error:  # a bug: its stack trace belongs in the log, its first line in the job's FailureReason
        log.exception("the training failed")
        return _fail(f"{type(error).__name__}: {error}", 1)
    # To torchrun a worker that was asked to end has not failed; it gives the signal to its caller itself.
    return 0 if is_worker() else stop.exit_code


def _fail(message: str, exit_code: int) -> int:
    """Leave the reason in the log and where SageMaker looks for it, in SM_OUTPUT_DIR, if there is such a folder."""
    log.error("%s", message)
    output = os.environ.get("SM_OUTPUT_DIR")
    if output and Path(output).is_dir():
        with contextlib.suppress(OSError):  # on a full disk the log has to do
            Path(output, "failure").write_text(message[:_FAILURE_LENGTH], "utf-8", "replace")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
