"""The labelled images of the shortcut alarm, and those whose label can be guessed."""

from __future__ import annotations

import numpy as np

from cnsapp.domain.findings import plural
from cnsapp.domain.resampling import Ints
from cnsapp.services.audit_rows import AuditRows
from cnsapp.tasks.audit_cues import Cue

MOST = 3000  # labelled images that are looked at
FEWEST_OF_CLASS = 10  # images of a class
FEWEST_UNITS = 5  # groups in all


class Sample:
    """The labelled images that are looked at.

    Attributes
    ----------
    places, labels
        (n,) place of each image among all, and its class as an index into `classes`.
    classes
        Class ids, ascending.
    kept
        Which of them are of classes that can be guessed: 10 images or more of two groups or more.
    """

    def __init__(self, audit: AuditRows, seed: int) -> None:
        places = audit.labelled
        if len(places) > MOST:
            chosen = np.random.default_rng(seed).choice(places, MOST, replace=False)
            places = np.sort(chosen)
        classes, of = np.unique(audit.labels[places], return_inverse=True)
        self.n_labelled = len(audit.labelled)
        self.places, self.labels, self.classes = places, of.astype(np.int64), classes
        self._units = audit.units[places]
        self.kept: Ints = self._enough(np.arange(len(places)))
        self.n_classes = len(np.unique(self.labels[self.kept]))
        self.n_units = len(np.unique(self._units[self.kept]))

    def _enough(self, keep: Ints) -> Ints:
        """Return those of these images whose class has enough of them, from two groups."""
        labels, units = self.labels[keep], self._units[keep]
        enough = [
            c for c in np.unique(labels)
            if (labels == c).sum() >= FEWEST_OF_CLASS and len(np.unique(units[labels == c])) > 1
        ]  # fmt: skip
        found: Ints = keep[np.isin(labels, enough)]
        return found

    def of_classes_that_can_be_guessed(self, cue: Cue) -> Ints:
        """Return the images that a cue can be asked about: numbers have to be known.

        A class of which it is hardly known is left out: it must not hide the others.
        """
        if cue.numbers is None:
            return self.kept
        return self._enough(self.kept[cue.known[self.kept]])

    def why_not(self, has_groups: bool) -> str | None:
        """Return in words why no label can be guessed, or None."""
        if self.n_classes < 2:
            return (
                f"Classes with {FEWEST_OF_CLASS} labelled images or more, from two groups or more: "
                f"{self.n_classes}; two are needed."
            )
        if has_groups and self.n_units < FEWEST_UNITS:
            return (
                f"The labelled images come from {plural(self.n_units, 'group')}; {FEWEST_UNITS} "
                "are needed to tell a habit of the images from one of these groups."
            )
        return None
