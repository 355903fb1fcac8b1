"""The tables of the settings, one subject a file."""
