"""Pictures that look the same, or are the same, and have different labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from cnsapp.domain.findings import HIGH, MEDIUM, MOST_IMAGES, Finding, Report, plural
from db.models import Image, NearPair
from db.queries import chunks

PART = "different labels"
MUCH = 0.05  # share of the pairs from which it is serious


def find_pairs(session: Session, project_id: int, class_names: dict[int, str]) -> Report:
    """Look for near-duplicates and exact copies whose labels differ.

    Pairs that somebody set apart (answer `apart`) do not count.
    """
    report = Report()
    n_near, near = _near_pairs(session, project_id)
    n_same, same = _same_bytes(session, project_id)
    pairs = {(p["image_a"], p["image_b"]): p for p in [*near, *same]}
    differing = sorted(pairs.values(), key=lambda p: (-p["similarity"], p["image_a"]))
    n = n_near + n_same
    report.checked.append({"part": PART, "name": PART, "n": n, "n_found": len(differing)})
    if not differing:
        return report
    for pair in differing:
        for side in "ab":
            pair[f"class_{side}"] = class_names.get(pair[f"class_id_{side}"], "")
    ids = dict.fromkeys(i for pair in differing for i in (pair["image_a"], pair["image_b"]))
    share = len(differing) / n
    report.findings.append(
        Finding(
            kind=PART,
            severity=HIGH if share >= MUCH else MEDIUM,
            title=f"{plural(len(differing), 'pair')} of look-alikes with different labels",
            sentence=(
                f"Of {plural(n, 'pair')} of labelled images that look the same, {len(differing):,} "
                f"({share:.1%}) have two different labels."
            ),
            advice=(
                "At most one label of such a pair is right, unless the two only seem alike. See "
                "both side by side; correct one label, or say that they are different pictures."
            ),
            figures={
                "n_pairs": n,
                "n_different": len(differing),
                "share": share,
                "pairs": differing[:MOST_IMAGES],
            },
            image_ids=list(ids)[:MOST_IMAGES],
            n_images=len(ids),
        )
    )
    return report


def _near_pairs(session: Session, project_id: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many near-duplicate pairs are labelled on both sides, and those that differ."""
    a, b = aliased(Image), aliased(Image)
    both = (
        select(NearPair.similarity, *_columns(a), *_columns(b))
        .join(a, a.id == NearPair.image_a)
        .join(b, b.id == NearPair.image_b)
        .where(
            NearPair.project_id == project_id, NearPair.answer != "apart",
            a.status == "ok", b.status == "ok",
            a.current_state == "label", b.current_state == "label", a.sha256 != b.sha256,
        )
    )  # fmt: skip
    n = session.scalar(select(func.count()).select_from(both.subquery())) or 0
    found = session.execute(both.where(a.current_class_id != b.current_class_id))
    return n, [_pair(row[0], row[1:6], row[6:11]) for row in found]


def _same_bytes(session: Session, project_id: int) -> tuple[int, list[dict[str, Any]]]:
    """Return the same of images of the same bytes: each with the first of its bytes."""
    labelled = (
        Image.project_id == project_id, Image.status == "ok", Image.current_state == "label",
    )  # fmt: skip
    repeated = session.scalars(
        select(Image.sha256).where(*labelled).group_by(Image.sha256).having(func.count() > 1)
    ).all()
    n, found = 0, []
    for part in chunks(repeated):
        rows = session.execute(
            select(Image.sha256, *_columns(Image))
            .where(*labelled, Image.sha256.in_(part))
            .order_by(Image.sha256, Image.id)
        )
        counted, differing = _against_first(rows)
        n += counted
        found += differing
    return n, found


def _against_first(rows: Iterable[Any]) -> tuple[int, list[dict[str, Any]]]:
    first: dict[str, Any] = {}
    n, found = 0, []
    for sha256, *row in rows:
        if sha256 not in first:
            first[sha256] = row
            continue
        n += 1
        if first[sha256][1] != row[1]:
            found.append(_pair(1.0, first[sha256], row))
    return n, found


def _columns(image: Any) -> tuple[Any, ...]:
    return (
        image.id, image.current_class_id, image.current_annotator, image.current_source,
        image.file_name,
    )  # fmt: skip


def _pair(similarity: float, a: Any, b: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"similarity": float(similarity)}
    for side, (image_id, class_id, who, source, name) in (("a", a), ("b", b)):
        found |= {
            f"image_{side}": image_id,
            f"class_id_{side}": class_id,
            f"labelled_by_{side}": who,
            f"source_{side}": source,
            f"file_{side}": name,
        }
    return found
