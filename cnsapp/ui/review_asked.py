"""What the views of the Review page are asked for, chosen in its top row."""

from __future__ import annotations

from dataclasses import dataclass

from cnsapp.services.models import ModelView
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.services.review import Part, Truth
from cnsapp.ui.frame import Here

TRUTH, TODAY = "review_truth", "Labels of today"  # in the address: which labels are looked at
SET_TRUTH = "review_truth_set"  # in the session, until they are drawn: a button has chosen TODAY


@dataclass(frozen=True)
class Reviewed:
    """A model of a project, and which of its predictions are held against which labels.

    `blind`: nothing is shown that tells what others called an image, or that moves with it.
    """

    here: Here
    project: ProjectView
    model: ModelView
    classes: list[ClassView]
    truth: Truth
    part: Part
    blind: bool = False
