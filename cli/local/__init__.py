"""`kennel local`, `kennel demo`."""
