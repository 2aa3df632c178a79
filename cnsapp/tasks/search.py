"""Find the best: candidates tried in rounds on the same folds, the winner trained in full.

Every trial is a step: a search that is killed goes on with the next one. The labels are settled
once, at the start. The locked test set takes part in no choice; only the winner is scored on it, by
its own training.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.domain.compare import compare
from cnsapp.domain.recipe import make_recipe
from cnsapp.domain.search import (
    FIRST,
    KEPT_BACK,
    MUCH_TOO_LONG,
    Candidate,
    Round,
    allotment,
    choose,
    go_on,
    nested_answers,
    plan_rounds,
)
from cnsapp.errors import Cancelled, CnsError
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.jobs.running import in_words
from cnsapp.services.images import reading_rule
from cnsapp.services.run_folders import remove_run_folder, run_folder
from cnsapp.services.searching import FAILED, NO_TIME, TRIED
from cnsapp.tasks.full_run import FullRun, load_run, save_run, settle
from cnsapp.tasks.keep_model import find_result
from cnsapp.tasks.search_trials import (
    NOT_JUDGED,
    Clock,
    Course,
    OutOfTime,
    answers_of,
    can_share,
    lay_out,
    pack,
    unpack,
)
from cnsapp.tasks.snapshot import take_snapshot
from db.models import Model

Trial = dict[str, Any]
N_FOLDS = 5
TRIALS_UNTIL = 0.8  # part of the progress that the trials take


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Search and return ``{"model_id", "metrics", "winner", "trials", "outcome"}``."""
    try:
        made = _Search(app, job).run()
    except Cancelled:
        if job.is_unwanted:
            remove_run_folder(app.store, job.id)
        raise
    remove_run_folder(app.store, job.id)
    return made


class _Search:
    """One search, from the labels to the record of its winner."""

    def __init__(self, app: App, job: JobContext) -> None:
        self._app, self._job = app, job
        self._seed = int(job.payload.get("seed", 0))
        self._budget = 60.0 * float(job.payload["minutes"])
        self._candidates = [Candidate(**c) for c in job.payload["candidates"]]
        self._folder: Path = run_folder(app.store, job.id) / "search"
        self._trials: list[Trial] = []

    def run(self) -> dict[str, Any]:
        """Try, choose, train the winner, and write down how it was chosen."""
        run = self._settled()
        fine_tuned = any(c.is_fine_tuned for c in self._candidates)
        rounds = plan_rounds(
            len(self._candidates), N_FOLDS, fine_tuned=fine_tuned,
            can_share=can_share(run, self._seed),
        )  # fmt: skip
        courses = [lay_out(run, round_, self._seed, N_FOLDS) for round_ in rounds]
        rounds = [
            replace(round_, n_folds=len(course.judged))
            for round_, course in zip(rounds, courses, strict=True)
        ]
        left = list(range(len(self._candidates)))
        for at, course in enumerate(courses):
            if not course.judged:
                raise CnsError(
                    "The images cannot be cut into folds: no class has two groups.",
                    "Candidates can only be judged on images that they did not learn from.",
                    "Give the images more groups, or label images of other groups.",
                )
            tried = [
                self._trial(course, rounds, at, number, len(left) - k)
                for k, number in enumerate(left)
            ]
            scores = {t["candidate"]: t["score"] for t in tried if t["state"] == TRIED}
            if not scores:
                break  # nothing was finished: the round before decides
            left = go_on(scores, self._simple()) if at + 1 < len(rounds) else left
            if len(left) == 1:
                break  # nobody is left to hold it against
        winner, chosen = self._choose(courses)
        return self._keep(winner, chosen)

    def _settled(self) -> FullRun:
        """Return the labels of the search, which later labels do not change."""
        run = load_run(self._folder)
        if run is not None:
            return run
        self._job.progress(0.0, "Looking at the labels")
        project_id = int(self._job.project_id or 0)
        rule = reading_rule(self._app.store, project_id=project_id)
        snapshot = take_snapshot(self._app, project_id, rule)
        recipe = make_recipe("full", {"evaluate": "folds", "seed": self._seed})
        run = settle(snapshot, snapshot, recipe, rule, size=0, device="", seconds=0.0)
        self._folder.mkdir(parents=True, exist_ok=True)
        save_run(self._folder, run)
        return run

    def _trial(
        self, course: Course, rounds: list[Round], at: int, number: int, n_left: int
    ) -> Trial:
        """Return the trial of one candidate; what an earlier start of the job did is remembered."""
        usable = self._budget * (1 - KEPT_BACK[any(c.is_fine_tuned for c in self._candidates)])
        done = next((k for k, t in enumerate(self._trials) if t["state"] == TRIED), None)
        if done is None:  # without one that is finished there is no winner
            seconds = FIRST * max(0.0, usable - _sum(self._trials))
        else:
            in_round = [t for t in self._trials[done + 1 :] if t["round"] == at + 1]
            before = _sum(self._trials) - _sum(in_round)
            seconds = allotment(usable, before, _sum(in_round), len(rounds) - at, n_left)
        found: Trial = self._job.step(
            f"trial {at}.{number}", self._try, course, rounds, at, number, seconds
        )
        self._trials.append(found)
        return found

    def _try(
        self, course: Course, rounds: list[Round], at: int, number: int, seconds: float
    ) -> Trial:
        candidate = self._candidates[number]
        found: Trial = {
            "candidate": number, "title": candidate.title, "round": at + 1, "of": len(rounds),
            "score": None, "standard_error": None, "n": 0, "seconds": 0.0, "said": "",
            "answers": "",
        }  # fmt: skip
        clock = Clock(seconds)
        fraction = TRIALS_UNTIL * (at + number / len(self._candidates)) / len(rounds)
        self._job.progress(fraction, f"{candidate.title}: round {at + 1} of {len(rounds)}")
        expected = self._expected(rounds, at, number)
        if seconds <= 0 or expected > MUCH_TOO_LONG * seconds:
            why = f"it needs about {_span(expected)}, {_span(seconds)} were left for it."
            if seconds <= 0:
                why = "the time of this round was over."
            found |= {"state": NO_TIME, "said": f"Not tried: {why}"}
        else:
            found |= self._answered(course, rounds[at], candidate, number, clock, fraction)
        found["seconds"] = round(clock.seconds(), 2)
        shown = {k: v for k, v in found.items() if k != "answers"}
        self._job.point(f"{candidate.title}: round {at + 1}", trial=shown)
        return found

    def _answered(
        self, course: Course, round_: Round, candidate: Candidate, number: int, clock: Clock,
        fraction: float,
    ) -> Trial:  # fmt: skip
        name = f"trial-{round_.share:g}-{round_.epochs:g}-{number}"
        try:
            said = answers_of(
                self._app, self._job, course, candidate, round_, name, clock, self._seed, fraction
            )
        except OutOfTime as over:
            why = f"Stopped after {_span(clock.seconds())}: its share of the time was over."
            if over.expected:
                why = f"It needs about {_span(over.expected)}, {_span(clock.left())} were left."
            return {"state": NO_TIME, "said": why}
        except CnsError as error:
            return {"state": FAILED, "said": str(error)}
        except (RuntimeError, MemoryError) as error:
            return {"state": FAILED, "said": in_words("search", error)}
        rows = np.flatnonzero(said != NOT_JUDGED)
        if not len(rows):
            return {"state": FAILED, "said": "No image could be held out for it."}
        figures = _figures(course, said[rows][None], rows, self._seed)
        return {"state": TRIED, "answers": pack(said), **figures}

    def _expected(self, rounds: list[Round], at: int, number: int) -> float:
        """Return about how long a trial takes, by what its last one took; 0 when unknown."""
        mine = [t for t in self._trials if t["candidate"] == number and t["state"] == TRIED]
        if not mine:
            return 0.0
        last, tuned = mine[-1], self._candidates[number].is_fine_tuned
        then = int(last["round"]) - 1
        before = rounds[then - 1] if then else None
        did = rounds[then].work(tuned, before)
        return float(last["seconds"]) * rounds[at].work(tuned, rounds[then]) / max(did, 1e-9)

    def _simple(self) -> dict[int, float]:
        """Return how simple each candidate is: its preset, then its speed."""
        return {
            k: c.simplicity + min(0.9, self._seconds(k) / 1e5)
            for k, c in enumerate(self._candidates)
        }

    def _seconds(self, number: int) -> float:
        took = [t["seconds"] for t in self._trials if t["candidate"] == number]
        return float(took[-1]) if took else 0.0

    def _choose(self, courses: list[Course]) -> tuple[int, dict[str, Any]]:
        """Return the winner, and how it was chosen."""
        tried = [t for t in self._trials if t["state"] == TRIED]
        if not tried:
            reasons = " ".join(f"{t['title']}: {t['said']}" for t in self._trials[:4])
            raise CnsError(
                f"No candidate could be tried within {_span(self._budget)}.",
                reasons,
                "Give the search more time, or fewer candidates.",
            )
        last = max(t["round"] for t in tried)
        final = [t for t in tried if t["round"] == last]
        course = courses[last - 1]
        said = np.stack([unpack(t["answers"]) for t in final])
        rows = np.flatnonzero((said != NOT_JUDGED).all(0))
        true, said = course.labels[rows], said[:, rows]
        groups = course.groups
        mine = None if groups is None else [groups[int(i)] for i in rows]
        n_classes = len(course.run.class_ids)
        simple = [
            (float(self._candidates[t["candidate"]].simplicity), float(t["seconds"])) for t in final
        ]
        at = choose(true, said, n_classes, mine, simple, self._seed)
        figures = _figures(course, said[[at]], rows, self._seed)
        nested = nested_answers(
            true, said, n_classes, mine, course.plan.folds[rows], simple, self._seed
        )
        winner = int(final[at]["candidate"])
        best = max(final, key=lambda t: t["score"] or 0.0)
        chosen = {
            "job_id": self._job.id,
            "n_candidates": len(self._candidates),
            "candidates": [c.title for c in self._candidates],
            "chosen": self._candidates[winner].title,
            "score": figures["score"],
            "standard_error": figures["standard_error"],
            "n": figures["n"],
            "n_groups": figures["n_groups"],
            "round": last,
            "rounds": len(courses),
            "nested_score": None
            if nested is None
            else _figures(course, nested[None], rows, self._seed)["score"],
            "simpler": best["candidate"] != winner,
            "best_score": best["title"],
            "seconds": round(sum(t["seconds"] for t in self._trials), 1),
            "budget_seconds": self._budget,
        }
        return winner, chosen | {"said": _outcome(chosen, final, last, len(courses))}

    def _keep(self, winner: int, chosen: dict[str, Any]) -> dict[str, Any]:
        """Train the winner on everything that may be learnt from, and note how it was chosen."""
        candidate, app, job = self._candidates[winner], self._app, self._job
        began = time.monotonic()
        made = find_result(app.store, job.id)
        if made is None:
            name = f"Best of {chosen['n_candidates']}"
            job.payload = {
                "preset": candidate.preset,
                "backbone": candidate.backbone,
                "options": {**candidate.options, "seed": self._seed, "name": name},
            }
            job.progress(TRIALS_UNTIL, f"Training the winner: {candidate.title}")
            if candidate.is_fine_tuned:
                from cnsapp.tasks.train_full import run_full

                made = run_full(app, job)
            else:
                from cnsapp.tasks.train_quick import run_quick

                made = run_quick(app, job)
        chosen["final_seconds"] = round(time.monotonic() - began, 1)
        metrics = self._note(int(made["model_id"]), chosen)
        shown = [{k: v for k, v in t.items() if k != "answers"} for t in self._trials]
        return {
            "model_id": made["model_id"],
            "metrics": metrics,
            "winner": candidate.as_json(),
            "trials": shown,
            "outcome": chosen["said"],
            "search": chosen,
        }

    def _note(self, model_id: int, chosen: dict[str, Any]) -> dict[str, Any]:
        """Write into the model's record among how many it was chosen; once."""
        with self._app.store.writing() as session:
            row = session.get_one(Model, model_id)
            warnings = [*(row.metrics.get("warnings") or [])]
            line = _warning(chosen)
            if line not in warnings:
                warnings.append(line)
            metrics = {**row.metrics, "warnings": warnings, "chosen_among": chosen["n_candidates"]}
            session.execute(
                update(Model)
                .where(Model.id == model_id)
                .values(
                    metrics=as_json(metrics),
                    settings=as_json({**row.settings, "search": chosen}),
                )
            )
        return metrics


def _figures(
    course: Course, said: NDArray[np.integer], rows: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Return score, its standard error by group, and n of one candidate's answers (1, n)."""
    groups = course.groups
    mine = None if groups is None else [groups[int(i)] for i in rows]
    # a judge that is always wrong beside it: the difference to it is the score itself
    nobody = np.full(said.shape[1], -1, np.int64)
    found = compare(
        course.labels[rows], np.stack([said[0], nobody]), len(course.run.class_ids), mine,
        seed=seed, n_resamples=1000,
    )  # fmt: skip
    return {
        "score": found.scores[0],
        "standard_error": found.pairs[0].standard_error,
        "n": found.n,
        "n_groups": found.n_groups,
    }


def _outcome(chosen: dict[str, Any], final: list[Trial], last: int, n_rounds: int) -> str:
    """Return what came of the search, in sentences."""
    score, error = chosen["score"], chosen["standard_error"]
    spread = f" ± {error:.3f}" if error and error >= 0.0005 else ""  # all right: no spread seen
    said = [
        f"{chosen['chosen']} was chosen among {chosen['n_candidates']} candidates: "
        f"{score:.3f}{spread} in balanced accuracy on {chosen['n']:,} images that it had not "
        "learnt from."
    ]
    if chosen["simpler"]:
        said.append(
            f"{chosen['best_score']} scored a little higher, by less than one standard error of "
            "the difference: the simpler one is kept."
        )
    if last < n_rounds:
        why = "The time was over" if len(final) > 1 else "No other one was finished"
        said.append(f"{why} in round {last} of {n_rounds}.")
    if len(final) > 1 and chosen["nested_score"] is not None:
        said.append(
            f"Choosing costs some luck: chosen on the other folds each time, {_three(chosen)}."
        )
    return " ".join(said)


def _three(chosen: dict[str, Any]) -> str:
    return f"the score is {chosen['nested_score']:.3f}"


def _warning(chosen: dict[str, Any]) -> str:
    nested = chosen["nested_score"]
    fair = f" Chosen anew on the other folds each time, it would be {nested:.3f}." if nested else ""
    return (
        f"Chosen among {chosen['n_candidates']} candidates by its score on these folds, which is "
        f"therefore slightly too good.{fair} The locked test set is the fair judge."
    )


def _sum(trials: list[Trial]) -> float:
    return sum(float(t["seconds"]) for t in trials)


def _span(seconds: float) -> str:
    return f"{max(seconds, 0):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
