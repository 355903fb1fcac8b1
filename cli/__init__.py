"""The command line."""

import os
import sys


def start() -> None:
    """Import and run it; Ctrl-C before it is imported shows no stack trace, either."""
    try:
        from cli.main import main

        main()
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted\n")  # no console is imported yet
        sys.exit(130)
