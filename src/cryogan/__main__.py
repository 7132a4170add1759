"""`python -m cryogan`."""

import sys

from cryogan.cli import main

if __name__ == "__main__":
    sys.exit(main())
