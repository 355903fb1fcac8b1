"""`kennel data`."""
