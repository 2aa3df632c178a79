"""Commands for images by looks: looks, similar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, finish, opened, table, who

if TYPE_CHECKING:
    from db.session import Store


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("looks")(looks)
    cli.command("similar")(similar)


def looks(project: ProjectName, as_json: JsonFlag = False) -> None:
    """Sort the images of a project by looks and wait: similar images, clusters, the map."""
    from cnsapp.services.looks import queue_looks
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    job_id = queue_looks(app.store, project_id=view.id, requested_by=who(None))
    made = finish(app, job_id).result
    while "goes_on_as" in made:  # a training run came first
        job_id = int(made["goes_on_as"])
        made = finish(app, job_id).result
    lines = [
        f"{made['images']:,} images in {made['clusters']:,} clusters, {made['seconds']} s.",
        *([f"{made['without_features']:,} have no features."] if made["without_features"] else []),
        *(["UMAP cannot be used here: the map shows the first two principal components."]
          if made["map"] == "pca" else []),
    ]  # fmt: skip
    answer({"job_id": job_id, **made}, lines, as_json)


def similar(
    images: Annotated[
        list[str], typer.Argument(help="Files, names in the project, or image numbers.")
    ],
    project: ProjectName,
    n: Annotated[int, typer.Option("--n", min=1, max=10_000, help="How many are listed.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List the images of a project that look most like these; of several, like their middle."""
    from cnsapp.services.looks import list_items, similar
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    asked = [_image_of(app.store, view.id, name) for name in images]
    found = similar(app.store, project_id=view.id, image_ids=asked, n=n)
    items = list_items(app.store, image_ids=[match.image_id for match in found])
    facts = [
        {"image_id": m.image_id, "file": item.name, "sha256": item.sha256,
         "similarity": m.similarity}
        for m, item in zip(found, items, strict=True)
    ]  # fmt: skip
    rows = [(f"{f['similarity']:.3f}", f["image_id"], f["file"]) for f in facts]
    answer({"like": asked, "similar": facts}, table(rows, ("similarity", "image", "file")), as_json)


def _image_of(store: Store, project_id: int, name: str) -> int:
    from cnsapp.errors import NotFoundError
    from cnsapp.imaging.store import hash_file
    from cnsapp.services.looks import find_image

    path = Path(name)
    sha256 = hash_file(path)[0] if path.is_file() else None
    found = find_image(store, project_id=project_id, name=name, sha256=sha256)
    if found is None:
        raise NotFoundError(
            f"“{name}” is no image of this project.",
            "Only images of the project can be compared.",
            "Import it, or name an image by its file name or number.",
        )
    return found
