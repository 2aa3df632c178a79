"""How whole slides are cut, as options of the commands `import` and `predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cnsapp.imaging.tiling import TileSettings

SLIDES = "Whole slides"
TileSize = Annotated[
    int | None, typer.Option(help="Side of a tile in pixels; 512.", rich_help_panel=SLIDES)
]
UmPerPx = Annotated[
    float | None,
    typer.Option(
        help="Micrometres a pixel of a tile; 0.5. 0: the slide's own pixels.",
        rich_help_panel=SLIDES,
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(help="Share that neighbouring tiles have in common; 0.", rich_help_panel=SLIDES),
]
MinTissue = Annotated[
    float | None,
    typer.Option(help="Least share of a tile that is tissue; 0.25.", rich_help_panel=SLIDES),
]
SlideUmPerPx = Annotated[
    float | None,
    typer.Option(help="Micrometres a pixel of slides that do not say it.", rich_help_panel=SLIDES),
]


def tile_settings(
    base: TileSettings,
    tile_size: int | None,
    um_per_px: float | None,
    overlap: float | None,
    min_tissue: float | None,
    slide_um_per_px: float | None,
) -> TileSettings:
    """Return the settings with what was given on the command line instead."""
    from dataclasses import replace

    given: dict[str, Any] = {
        "tile_px": tile_size,
        "overlap": overlap,
        "min_tissue": min_tissue,
        "slide_um_per_px": slide_um_per_px,
    }
    changed = replace(base, **{k: v for k, v in given.items() if v is not None})
    if um_per_px is not None:
        changed = replace(changed, um_per_px=um_per_px or None)
    return changed.checked()
