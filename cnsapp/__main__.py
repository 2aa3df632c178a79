"""`python -m cnsapp ...`."""

from __future__ import annotations

import sys

from cnsapp.cli import main

if __name__ == "__main__":
    sys.exit(main())
