"""The command line."""

import sys


def start() -> None:
    """Import and run it; Ctrl-C before it is imported shows no stack trace, either."""
    try:
        from cli.main import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
