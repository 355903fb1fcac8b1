"""From a trained network to the artifact that is served."""
