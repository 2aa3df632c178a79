"""Explain."""

from cnsapp.ui import frame

here = frame.current()
frame.page_header("Explain")
