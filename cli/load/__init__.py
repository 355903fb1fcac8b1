"""Load on a deployed model: the generator, and `kennel load-test`."""
