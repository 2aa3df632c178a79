"""A process that has torch loaded and forks workers: twenty of them must not take twenty imports.

It reads lines `JOB` or `JOB upgraded` and answers each with the number of the new process. An
"upgraded" worker has other code: one workflow more than the one that began the job.
"""

from __future__ import annotations

import os
import signal
import sys

from cnsapp.jobs import worker


def be_worker(job_id: int, upgraded: bool) -> int:
    """Serve one job as a worker of its own."""
    from dbos import DBOS

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if upgraded:

        @DBOS.workflow(name="of.a.later.version")
        def later(number: int) -> str:
            return f"new {number}"

    return worker.main(until_job=job_id)


def main() -> None:
    """Fork a worker for each line."""
    import cnsapp.jobs.engine
    import cnsapp.tasks.train_full  # noqa: F401 - loading them once is the point

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the killed ones leave no zombies
    for line in sys.stdin:
        words = line.split()
        pid = os.fork()
        if pid == 0:
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os._exit(be_worker(int(words[0]), "upgraded" in words))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
