"""Pictures whose bytes stand in the project more than once."""

from __future__ import annotations

from pathlib import Path

from cnsapp.tasks.resources import Source
from cnsapp.tasks.snapshot import Labelled, one_of_each


def labelled(image_id: int, sha256: str, class_id: int) -> Labelled:
    source = Source(image_id, sha256, Path(f"{image_id}.png"), f"{image_id}.png")
    return Labelled(source, class_id, event_id=image_id, group=None)


def test_a_picture_is_learnt_from_once_however_many_names_it_has() -> None:
    images = [labelled(1, "a", 1), labelled(2, "b", 2), labelled(3, "a", 1), labelled(4, "a", 1)]
    kept, warnings = one_of_each(images)
    assert [i.source.image_id for i in kept] == [1, 2]
    assert "2 copies" in " ".join(warnings)


def test_a_picture_with_two_labels_is_left_out_and_named() -> None:
    kept, warnings = one_of_each([labelled(1, "a", 1), labelled(2, "a", 2), labelled(3, "b", 2)])
    assert [i.source.image_id for i in kept] == [3]
    assert "1.png and 2.png" in " ".join(warnings)


def test_pictures_of_their_own_need_no_word() -> None:
    assert one_of_each([labelled(1, "a", 1), labelled(2, "b", 1)])[1] == []
