"""`kennel train`, `kennel report`, `kennel package`."""
