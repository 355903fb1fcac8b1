"""`kennel batch`."""
