"""Train a picture classifier: one entry point for a laptop, an EC2 instance and a SageMaker training job.

On a laptop::

    python -m model.train --data-dir data/sample --model-dir build/model

By two processes, or by one for each GPU, which is what it does by itself where there are several::

    python -m model.train --data-dir data/sample --processes-per-host 2

On two machines, on each with its own --current-host (a SageMaker training job says all this by its SM_* variables)::

    python -m model.train --data-dir data --hosts '["one", "two"]' --current-host one

As a SageMaker training job the same file is run as a script (`python train.py --lr 0.002 …`): the places come from the
SM_* variables, the hyperparameters from the command line. `docs/training.md` lists them all, what is written where, and
the exit codes.
"""

from __future__ import annotations

if not __package__:
    # SageMaker unpacks this folder's files to /opt/ml/code and runs train.py as a script, so the folder has another
    # name there and Python does not know that it is a package. Register it under its own name, and take it off the
    # path: modules called `data` or `metrics` there would shadow those of libraries.
    import importlib.util
    import sys
    from pathlib import Path

    _folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _folder]
    _spec = importlib.util.spec_from_file_location(
        "model", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None and _spec.loader is not None
    sys.modules["model"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["model"])
    __package__ = "model"

import os
import signal
import sys

if __name__ == "__main__" and "RANK" not in os.environ:
    # The kernel keeps signals without a handler from the first process of a container, which this program may be. Until
    # there is something to save, it ends at once. What torchrun has started is ended by torchrun.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

# OpenMP's threads spin while they wait for one another; torch's read this when they are started. On two cores that
# another process uses, too, training is four to nine times as fast when they sleep; on idle ones it is 0.9 times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import contextlib
import errno
import logging
from collections.abc import Sequence
from pathlib import Path

from .core.artifact import ArtifactError
from .core.network import NetworkError
from .training.arguments import ArgumentsError, parse_arguments
from .training.artifact.export import ExportError
from .training.data.dataset import DataSetError
from .training.distributed.group import LOST_PEERS, DistributedError, LostPeersError, joined
from .training.distributed.launch import WorkerKilledError, is_worker, launch, processes_per_host
from .training.loop.checkpoints import CheckpointError
from .training.loop.engine import DivergedError
from .training.loop.stopping import Stop
from .training.pipeline import train

log = logging.getLogger("model.train")

# SageMaker shows this much of the failure file as the job's FailureReason.
FAILURE_LENGTH = 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Run the training's command line and return the exit code; see docs/training.md."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    argv = sys.argv[1:] if argv is None else argv
    stop = Stop()
    try:
        arguments = parse_arguments(argv)
        stop.limit = arguments.max_runtime or stop.limit
        if not is_worker():
            processes = processes_per_host(arguments.processes_per_host, arguments.num_gpus)
            if len(arguments.hosts) * processes > 1:
                return launch(
                    [str(Path(__file__).resolve()), *argv],
                    hosts=arguments.hosts,
                    host=arguments.current_host,
                    processes=processes,
                    address=arguments.master_addr,
                    port=arguments.master_port,
                    threads=arguments.num_cpus,
                )
        # A worker that is still waiting for the others has nothing to save: a signal ends it at once.
        with joined(len(arguments.hosts)) as group, stop.on_signals():
            if not group.is_main:
                logging.getLogger().setLevel(logging.ERROR)  # they have nothing to say that the first does not say
            train(arguments, stop, group)
    except ArgumentsError as error:
        return _fail(str(error), 2)
    except LostPeersError as error:
        log.error("%s", error)  # that one has said why
        return LOST_PEERS
    except OSError as error:
        return _fail(_with_advice(error), 1)
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


def _with_advice(error: OSError) -> str:
    if error.errno != errno.ENOSPC:
        return str(error)
    return f"the disk is full: {error}; give the training a larger volume (volume_gb in the settings)"


def _fail(message: str, exit_code: int) -> int:
    log.error("%s", message)
    output = os.environ.get("SM_OUTPUT_DIR")
    if output and Path(output).is_dir():
        with contextlib.suppress(OSError):  # on a full disk the log has to do
            (Path(output) / "failure").write_text(message[:FAILURE_LENGTH], "utf-8", "replace")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
