"""What a fresh worker does before its first job: load torch, learn what the device is called."""

from __future__ import annotations

from cnsapp.bootstrap import App
from cnsapp.services.tidying import tidy


def run(app: App) -> str:
    """Clear old left-overs away, import what the first job needs; return the device in words."""
    tidy(app)
    from cnsapp.ml.device import describe_device
    from cnsapp.tasks import explain, predict, train  # noqa: F401 - loading them is the point
    from cnsapp.tasks.resources import device_of

    return describe_device(device_of(app))
