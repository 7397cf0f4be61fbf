"""A job of about a minute that looks at its nodes, handed over and waited for like any run."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clusterctl.adapters import store
from clusterctl.adapters.scheduler import Scheduler
from clusterctl.adapters.slurm_words import explain_reason
from clusterctl.doctor import node
from clusterctl.doctor.check import Check, State
from clusterctl.durations import words
from clusterctl.errors import ClusterctlError, Interrupted, Unavailable, UsageProblem
from clusterctl.model import Job, JobRef, JobState, SchedulerName, Submission
from clusterctl.plan import make
from clusterctl.runs import schedulers
from clusterctl.schema import Profile, Site

TIME_LIMIT = 300
"""Seconds that the job asks for: short, so that the queue lets it in early, and enough for PyTorch to be read from a
slow file system. Its work takes about one minute."""

FOLDER = ".doctor"
"""Below the output root, which nodes and login node share. No run directory: it has no record."""

_LATE = 10.0
"""Seconds that a network file system may take to show a node's last lines here."""

_Said = Iterator[str | tuple[Check, ...]]


def look(profile: Profile, site: Site, root: Path, scheduler: SchedulerName, wait: float) -> _Said:
    """Progress in words, then the checks of all nodes.

    Raises:
        Interrupted: Ctrl-C; the job is cancelled.
    """
    try:
        folder = _prepare(profile, site, root, scheduler)
    except ClusterctlError as e:
        yield (Check("job", "fail", f"not submitted: {e.message}", e.hint),)
        return
    adapter = schedulers.get(scheduler)
    wanted = replace(make.resources(profile, site), time_limit=TIME_LIMIT, signal_lead=30)
    ref = JobRef("", secrets.token_hex(8), time.time(), folder)
    over = False
    with _ctrl_c_is_noted() as pressed:
        try:
            job_id = adapter.submit(Submission(folder.name, folder, "clusterctl-doctor", ref.token, wanted))
            ref = replace(ref, job_id=job_id)
            yield f"job {job_id} ({scheduler}) is submitted"
            for said in _follow(adapter, ref, wait, pressed):
                if isinstance(said, str):
                    yield said
                else:
                    over = said is None or said.state.final
                    yield tuple(_findings(folder, said, profile.nodes, job_id))
        except KeyboardInterrupt:
            over = True
            raise _interrupted(adapter, ref) from None
        except ClusterctlError as e:
            if pressed.is_set():  # it has ended sbatch, too
                over = True
                raise _interrupted(adapter, ref) from None
            over = not e.maybe_queued
            failed = Check("job", "fail", f"not submitted: {e.message}", e.hint)
            yield (failed if over else Check("job", "unknown", e.message, e.hint),)
        finally:
            if not over:
                _cancel(adapter, ref)
            # A job that starts all the same finds nothing to do, and fails at once.
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # another examination is under way
                folder.parent.rmdir()


@contextlib.contextmanager
def _ctrl_c_is_noted() -> Iterator[threading.Event]:
    """Ctrl-C sets the event: it may come while somebody prints what we said, who could not cancel the job."""
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _prepare(profile: Profile, site: Site, root: Path, scheduler: SchedulerName) -> Path:
    """The job's folder with ``job.sh`` and ``asked.json``.

    Raises:
        UsageProblem, Unavailable: the output root cannot be written.
    """
    folder = root.absolute() / FOLDER / f"{time.strftime('%Y%m%d')}-{secrets.token_hex(2)}"
    plan = node.plan(
        scheduler,
        replace(make.resources(profile, site), time_limit=TIME_LIMIT, signal_lead=30),
        make.activation(profile, site, sys.executable),
        profile.processes,
    )
    text = node.script(plan)
    try:
        (folder / "logs").mkdir(parents=True)
    except OSError as e:
        raise UsageProblem(f"{folder} cannot be made: {e.strerror}", hint="mend the check `output root` first") from e
    try:
        store.write_atomic(folder / "job.sh", text, mode=0o755)
        store.write_atomic(folder / "asked.json", node.asked(root, site, profile))
    except ClusterctlError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _follow(adapter: Scheduler, ref: JobRef, wait: float, pressed: threading.Event) -> Iterator[str | Job | None]:
    """Each change of the job in words, then the job as it was last seen: ended, forgotten (None), or given up.

    Raises KeyboardInterrupt when Ctrl-C was pressed.
    """
    started, shown, told, began, last = time.monotonic(), "", 0.0, 0.0, None
    while True:
        with contextlib.suppress(Unavailable):  # a controller that is busy will answer the next time
            job = adapter.jobs([ref], max_age=2).get(ref.token)
            if job is None and last is not None:
                yield None
                return
            last = job or last
        now = time.monotonic()
        if last is not None:
            reason = explain_reason(last.reason) if last.state.waiting else ""
            line = f"{last.state}" + (f": {reason}" if reason else "") + (f" on {last.where}" if last.where else "")
            if line != shown or now - told > 60:
                yield f"job {ref.job_id} is {line} ({words(now - started)})"
                shown, told = line, now
            if last.state.final:
                yield last
                return
            if not last.state.waiting:
                began = began or now
        # Once it runs, its own time limit ends it.
        if now - started > wait if not began else now - began > TIME_LIMIT + 60:
            yield f"giving up after {words(now - started)}: the job is cancelled"
            silent = Job(ref.job_id, JobState.UNKNOWN, "the scheduler does not answer")
            yield replace(last, reason=shown) if last else silent
            return
        # Seconds at first; a queue of hours is asked every ten.
        if pressed.wait(min(10.0, 0.5 + (now - started) / 20)):
            raise KeyboardInterrupt


def _findings(folder: Path, job: Job | None, nodes: int, job_id: str) -> Iterator[Check]:
    """What the job wrote, and whether all of its nodes came to an end."""
    if job is not None and (job.state.waiting or job.state is JobState.UNKNOWN):
        remedy = "wait longer (--wait 2:00:00), or name a profile whose queue is shorter"
        yield Check("job", "unknown", f"{job_id} did not start in time: {job.reason}", remedy)
        return
    said = node.read(_text(folder / "logs" / "job.out"))
    deadline = time.monotonic() + _LATE
    while len(said.done) < nodes and not _text(folder / "logs" / "job.err") and time.monotonic() < deadline:
        time.sleep(0.2)
        list(folder.joinpath("logs").iterdir())  # over NFS this is what brings attributes up to date
        said = node.read(_text(folder / "logs" / "job.out"))
    how = f"{job.state}" if job else "forgotten by the scheduler"
    if len(said.done) >= nodes:
        yield Check("job", "ok", f"{job_id} looked at {nodes} node{'s' if nodes > 1 else ''}")
    else:
        reason = f" ({explain_reason(job.reason)})" if job and explain_reason(job.reason) else ""
        errors = _text(folder / "logs" / "job.err")
        evidence = f"{job_id} is {how}{reason}; {len(said.done)} of {nodes} nodes answered"
        [cause] = node.why(errors, job.exit_code or 1 if job else 1)
        state: State = "fail" if job and job.state.final else "unknown"
        yield Check("job", state, evidence, f"mend what is named below; {cause.remedy}")
        if not said.checks or errors:
            yield cause
    yield from said.checks


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _interrupted(adapter: Scheduler, ref: JobRef) -> Interrupted:
    said = _cancel(adapter, ref)
    return Interrupted(f"interrupted; {said}", hint="without --on, this machine alone is examined")


def _cancel(adapter: Scheduler, ref: JobRef) -> str:
    """Cancel the job, also when Ctrl-C came before its id did; says what came of it."""
    try:
        job_id = ref.job_id or adapter.find(ref.token)
        if not job_id:
            return "no job was submitted"
        adapter.cancel([replace(ref, job_id=job_id)])
    except ClusterctlError as e:
        return f"the job could not be cancelled: {e.message}"
    return f"job {job_id} is cancelled"
