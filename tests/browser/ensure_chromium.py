"""Find Chromium for the browser tests; install Debian's where that is possible, else say how."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOW = (
    "No Chromium or Chrome was found, so the browser tests will be skipped. Install one "
    "(Debian, Ubuntu: sudo apt-get install chromium; Fedora: sudo dnf install chromium; macOS: "
    "brew install --cask chromium), or name its program in CNS_CHROMIUM."
)


def find_chromium() -> str | None:
    """Return the program to drive, or None."""
    named = os.environ.get("CNS_CHROMIUM")
    if named:
        return shutil.which(named)
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def install_with_apt() -> None:
    """Install Debian's package when we may; what apt says on failure goes to the screen."""
    if sys.platform != "linux" or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)


def main() -> int:
    """Make sure of a browser; a missing one skips tests, it does not fail the run."""
    if find_chromium() is None:
        install_with_apt()
    found = find_chromium()
    sys.stderr.write(f"Browser: {found}\n" if found else HOW + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
