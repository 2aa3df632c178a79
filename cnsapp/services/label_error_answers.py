"""Decisions about suspected labels as a browser sends them: some at once, again until answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cnsapp.domain.labels import MAX_EVENTS, claimed_key, read_act
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.images import get_image
from cnsapp.services.label_error_decisions import confirm, correct, leave_unsure
from cnsapp.services.label_settings import is_blind
from cnsapp.services.labels import Answer, ImageLabel, Receipt
from cnsapp.services.models import get_model
from db.session import Store


@dataclass(frozen=True)
class Answers:
    """What the database holds now of some decisions; of each image its label of today."""

    acked: tuple[tuple[str, int], ...]
    rejected: tuple[Answer, ...]
    images: tuple[ImageLabel, ...]
    as_of: int

    def as_json(self) -> dict[str, Any]:
        """Return the same as JSON, in the form of `labels.Receipt`."""
        return {
            "acked": [{"client": client, "seq": seq} for client, seq in self.acked],
            "rejected": [asdict(answer) for answer in self.rejected],
            "images": [asdict(image) for image in self.images],
            "counts": None,
            "as_of": self.as_of,
        }


def take_decisions(
    store: Store, *, project_id: int, who: str, events: Sequence[Mapping[str, Any]]
) -> Answers:
    """Store decisions one by one; what cannot be stored is told, and keeps none of the others off.

    An event is one of labelling (`domain.labels.read_act`) with `model_id`, `decision` (`confirm`,
    `correct` or `unsure`) and `rev` (of the image that the person saw).

    Raises
    ------
    InvalidInputError
        The project is read blindly, or there are more decisions than one message may carry.
    StoreError
        The database did not take them in time. They may be sent again.
    """
    refuse_blind(store, project_id=project_id)
    if len(events) > MAX_EVENTS:
        raise InvalidInputError(f"{len(events)} decisions in one message; {MAX_EVENTS} is most.")
    acked: list[tuple[str, int]] = []
    rejected: list[Answer] = []
    images: dict[int, ImageLabel] = {}
    as_of = 0
    for event in events:
        key = claimed_key(event)
        try:
            receipt = _take(store, project_id, who, event)
        except ValueError as error:  # what no browser of ours sends
            rejected.append(Answer(*key, str(error)))
        except (InvalidInputError, NotFoundError) as error:
            rejected.append(Answer(*key, str(error)))
        else:
            acked.append(key)
            images |= {image.id: image for image in receipt.images}
            as_of = receipt.as_of
    return Answers(tuple(acked), tuple(rejected), tuple(images.values()), as_of)


def refuse_blind(store: Store, *, project_id: int) -> None:
    """Raise InvalidInputError where nobody may see what others said: the list tells it."""
    if is_blind(store, project_id=project_id):
        raise InvalidInputError(
            "Label errors are not shown in a project that is labelled blindly.",
            "Each line of the list tells what somebody else called an image.",
            "When all have labelled, switch blind labelling off under Label, Labelling.",
        )


def _take(store: Store, project_id: int, who: str, event: Mapping[str, Any]) -> Receipt:
    act = read_act(event)
    model_id, rev = _whole(event, "model_id"), _whole(event, "rev")
    decision = event.get("decision")
    if act.kind not in ("label", "unsure") or decision not in ("confirm", "correct", "unsure"):
        raise ValueError("The decision neither confirms nor corrects a label.")
    get_model(store, model_id=model_id, project_id=project_id)
    image_id, client, seq = act.image_id, act.client, act.seq
    if not get_image(store, image_id=image_id).sha256.startswith(act.sha):
        raise ValueError("Another image has got the number of the one that was decided about.")
    if act.class_id is not None and decision == "correct":
        return correct(
            store, model_id=model_id, image_id=image_id, class_id=act.class_id, who=who,
            client=client, seq=seq, rev=rev,
        )  # fmt: skip
    stored = confirm if decision == "confirm" else leave_unsure
    return stored(
        store, model_id=model_id, image_id=image_id, who=who, client=client, seq=seq, rev=rev
    )


def _whole(event: Mapping[str, Any], name: str) -> int:
    value = event.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError(f"“{name}” is not a whole number.")
    return value
