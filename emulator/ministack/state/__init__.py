"""State that is saved before it is acknowledged."""
