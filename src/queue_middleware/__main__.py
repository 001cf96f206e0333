"""`python -m queue_middleware` runs the command `queue-middleware`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
