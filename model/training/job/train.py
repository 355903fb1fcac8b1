"""What a training job runs: the training program, whose package `model` lies beside this file in the bundle."""

import os
import signal
import sys

if __name__ == "__main__":
    if "RANK" not in os.environ:  # torchrun ends what it has started
        # The kernel keeps signals without a handler from the first process of a container, which this program may be.
        # Until there is something to save, it ends at once; the imports take seconds.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    from model.train import main

    sys.exit(main())
