"""Generated tissue: repeatable, of its patient's colour, and told apart by structure."""

from __future__ import annotations

import numpy as np
import pytest

from cnsapp.imaging.synthetic import ORGANS, make_stain, make_tissue


@pytest.mark.parametrize("organ", list(ORGANS))
def test_an_organ_is_drawn_the_same_each_time_and_fills_its_field(organ: str) -> None:
    first = make_tissue(organ, patient=2, number=3)
    assert first.shape == (224, 224, 3)
    assert first.dtype == np.uint8
    assert (first == make_tissue(organ, patient=2, number=3)).all()
    assert (first != make_tissue(organ, patient=2, number=4)).mean() > 0.5
    assert first.std() > 15
    green = first[..., 1].astype(float)
    assert green.mean() < first[..., 0].mean()  # both stains take green light
    assert all(part.std() > 4 for part in np.array_split(green, 4))  # nothing is left empty


def test_patients_differ_in_their_stain() -> None:
    assert make_stain(1) == make_stain(1)
    assert len({make_stain(patient) for patient in range(6)}) == 6
    means = [make_tissue("liver", patient, 0).mean((0, 1)) for patient in range(1, 7)]
    assert np.std(means, axis=0).max() > 8


def test_other_sizes_can_be_drawn() -> None:
    assert make_tissue("kidney", 1, 0, size=96).shape == (96, 96, 3)
