"""The entry point of the program's zip file."""

import sys

from training_instance.program import main

if __name__ == "__main__":
    sys.exit(main())
