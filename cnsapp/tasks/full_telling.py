"""How a fine-tuning run is told while it goes: the bar, the curves, the log and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cnsapp.domain.run_plan import Part
from cnsapp.jobs.context import JobContext
from cnsapp.ml.finetune_types import BatchReport, EpochRecord, SelfTest

SPAN = (0.06, 0.97)  # part of the bar that the epochs take
POINTS = 400  # about as many points of single batches as a run leaves


class Telling:
    """Knows how much of a run is done, however often it was interrupted."""

    def __init__(self, job: JobContext, parts: Sequence[Part], n_epochs: int) -> None:
        self._job, self._parts, self._n_epochs = job, list(parts), n_epochs
        self._of_part = [len(part.train) * n_epochs for part in parts]
        self._part, self._epoch = 0, 0
        self._seconds_per_image: float | None = None
        self._began = time.monotonic()
        self._next_point = 0.0

    def begin(self, part: int) -> None:
        """Say that this network comes now; all before it are done."""
        self._part, self._epoch = part, 0

    def tested(self, test: SelfTest) -> None:
        """Tell what one batch took, and so the whole run."""
        n_train = max(len(self._parts[self._part].train), 1)
        self._seconds_per_image = test.seconds_per_epoch / n_train
        memory = f", {test.memory_bytes / 1e9:.1f} GB" if test.memory_bytes else ""
        self._job.point(
            f"One batch of {test.batch_size} at {test.image_size} px: "
            f"{_seconds(test.seconds_per_batch)}{memory}; at most "
            f"{_seconds(self._seconds_per_image * sum(self._of_part))} in all",
            batch_size=test.batch_size,
            memory_gb=round(test.memory_bytes / 1e9, 3) if test.memory_bytes else None,
            seconds_left=self._seconds_left(0.0),
        )

    def batch(self, report: BatchReport) -> None:
        """Tell how an epoch goes; costs nothing most of the time."""
        done = report.batch / max(report.n_batches, 1)
        self._job.progress(
            self._fraction(report.epoch - 1 + done),
            f"{self._where()} {report.epoch} of {self._n_epochs}: batch {report.batch} of "
            f"{report.n_batches}, loss {report.loss:.3f}",
        )
        now = time.monotonic()
        if now >= self._next_point:
            self._next_point = now + max(1.0, (now - self._began) / POINTS)
            self._job.point(
                fold=self._part,
                epoch=report.epoch,
                batch=report.batch,
                n_batches=report.n_batches,
                loss=report.loss,
                learning_rate=report.learning_rate,
                images_per_second=report.images_per_second,
                seconds_left=self._seconds_left(report.epoch - 1 + done),
            )

    def epoch(self, record: EpochRecord) -> None:
        """Tell what an epoch came to."""
        self.known(record)
        self._next_point = 0.0
        score = record.validation_balanced_accuracy
        said = "not defined" if score is None else f"{score:.3f}"
        line = f"{self._where()} {record.epoch}: validation balanced accuracy {said}"
        if record.train_loss is not None:
            line += f", loss {record.train_loss:.3f} (validation {record.validation_loss:.3f})"
        values = record.as_json()
        notes = values.pop("notes")
        left = self._seconds_left(float(record.epoch))
        self._job.progress(self._fraction(record.epoch), line)
        self._job.point(line, fold=self._part, seconds_left=left, **values)
        for note in notes:
            self._job.point(f"{self._where()} {record.epoch}: {note}")

    def known(self, record: EpochRecord) -> None:
        """Learn how fast it goes from an epoch, also from one that was done before a restart."""
        self._epoch = record.epoch
        n_train = len(self._parts[self._part].train)
        if record.epoch and n_train and record.seconds > 0:
            self._seconds_per_image = record.seconds / n_train

    def _where(self) -> str:
        if len(self._parts) == 1:
            return "Epoch"
        return f"Network {self._part + 1} of {len(self._parts)}, epoch"

    def _fraction(self, epochs: float) -> float:
        done = sum(self._of_part[: self._part])
        done += int(self._of_part[self._part] * min(epochs / self._n_epochs, 1.0))
        return SPAN[0] + (SPAN[1] - SPAN[0]) * done / max(sum(self._of_part), 1)

    def _seconds_left(self, epochs: float) -> float | None:
        if self._seconds_per_image is None:
            return None
        rest = self._of_part[self._part] * max(1 - epochs / self._n_epochs, 0.0)
        rest += sum(self._of_part[self._part + 1 :])
        return round(rest * self._seconds_per_image, 1)


def _seconds(value: float) -> str:
    if value < 90:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} minutes" if value < 5400 else f"{value / 3600:.1f} hours"
