"""Where real images may lie; tests and benchmarks both do without."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """Return where real images may lie: beside the project, or where CNS_TEST_DATA says."""
    return Path(os.environ.get("CNS_TEST_DATA", ROOT.parent / "shared" / "data"))
