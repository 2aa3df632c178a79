"""Review."""

from cnsapp.ui import frame

here = frame.current()
frame.page_header("Review")
