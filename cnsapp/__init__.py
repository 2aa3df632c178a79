"""Label tissue images, train a network on them, see where it is wrong and why, apply it."""

__version__ = "0.1.0"
