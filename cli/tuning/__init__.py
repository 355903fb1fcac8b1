"""`kennel tune`."""
