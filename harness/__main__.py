"""`python -m harness`."""

import sys

from harness.cli import main

if __name__ == "__main__":  # multiprocessing's children import this file too
    sys.exit(main())
