"""One training: epochs, optimisation, checkpoints, evaluation."""
