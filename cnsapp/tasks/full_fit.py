"""Train one network of a run, epoch by epoch, and keep what it says of the images held back."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.run_plan import Part
from cnsapp.errors import Cancelled, CnsError
from cnsapp.jobs.context import JobContext
from cnsapp.ml.bundle import write_atomically
from cnsapp.ml.finetune import Finetuner
from cnsapp.ml.finetune_types import EpochRecord, Floats
from cnsapp.ml.finetuned import FittedNetwork
from cnsapp.tasks.full_telling import Telling

T = TypeVar("T")


@dataclass(frozen=True)
class Answers:
    """What one network said of images that it neither learnt from nor was chosen by.

    Attributes
    ----------
    held, test
        (n, K) logits of the part's held rows and of the locked test set (no rows where it is not
        the published one).
    temperature
        Fitted to the validation rows.
    records
        Its epochs, the start first.
    facts
        Best epoch, validation score, notes: for the record of the model.
    """

    held: Floats
    test: Floats
    temperature: float
    records: list[EpochRecord]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write them, whole or not at all."""
        said = {
            "temperature": self.temperature,
            "records": [record.as_json() for record in self.records],
            "facts": self.facts,
        }
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(said).encode(), np.uint8)
        np.savez(buffer, held=self.held, test=self.test, said=text)
        try:
            write_atomically(path, buffer.getvalue())
        except OSError as error:
            raise CnsError(
                f"The answers of a network could not be written ({error.strerror or error}).",
                "Its epochs are kept.",
                "Free some space on the disk of the data folder, then start the training again.",
            ) from error

    @classmethod
    def load(cls, path: Path) -> Answers | None:
        """Return them, or None where they are missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as data:
                said = json.loads(data["said"].tobytes())
                return cls(
                    held=data["held"],
                    test=data["test"],
                    temperature=float(said["temperature"]),
                    records=[EpochRecord.from_json(record) for record in said["records"]],
                    facts=dict(said["facts"]),
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None


class Fitting:
    """The training of one network of a run."""

    def __init__(self, job: JobContext, part: Part, tuner: Finetuner, telling: Telling) -> None:
        self._job, self._part, self._tuner, self._telling = job, part, tuner, telling

    def test_once(self) -> None:
        """Learn one batch and say what the run will take; not again after a restart."""

        def work() -> dict[str, Any]:
            found = self._tuner.self_test()
            self._telling.tested(found)
            return found.as_json()

        self._stopping(lambda: self._job.step("self test", work))

    def epochs(self) -> list[EpochRecord]:
        """Return the records of all epochs; those that are done are not done again."""
        records: list[EpochRecord] = []
        while not records or not self._tuner.is_over(records):
            records.append(self._epoch(len(records)))
            self._telling.known(records[-1])
        return records

    def finish(self, records: list[EpochRecord]) -> FittedNetwork:
        """Return the network of the best epoch."""
        return self._stopping(lambda: self._tuner.finish(records))

    def answers(
        self,
        network: FittedNetwork,
        records: list[EpochRecord],
        pixels: NDArray[np.uint8],
        test: NDArray[np.int64],
    ) -> Answers:
        """Ask the network about what was held back, once."""

        def ask(rows: NDArray[np.int64]) -> Floats:
            if not len(rows):
                return np.zeros((0, len(network.class_ids)), np.float32)
            return network.logits(pixels, rows, self._job.is_stopping)

        return Answers(
            held=self._stopping(lambda: ask(self._part.held)),
            test=self._stopping(lambda: ask(test)),
            temperature=float(network.temperature),
            records=records,
            facts={
                "fold": self._part.fold,
                "best_epoch": network.best_epoch,
                "share": network.share,
                "validation_balanced_accuracy": network.validation_balanced_accuracy,
                "validation_loss": network.validation_loss,
                "n_train": len(self._part.train),
                "n_validation": len(self._part.validation),
                "notes": list(network.notes),
                "chosen": self._tuner.chosen,
            },
        )

    def _epoch(self, epoch: int) -> EpochRecord:
        def work() -> dict[str, Any]:
            record = self._tuner.run_epoch(epoch)
            self._telling.epoch(record)
            return record.as_json()

        name = f"{self._part.name} epoch {epoch}"
        return EpochRecord.from_json(self._stopping(lambda: self._job.step(name, work)))

    def _stopping(self, work: Callable[[], T]) -> T:
        """Run it; where it was stopped, say whether the job was paused or cancelled."""
        try:
            return work()
        except Cancelled:
            self._job.check_cancelled()
            raise
