"""`kennel classify`, `kennel evaluate`, `kennel image`."""
