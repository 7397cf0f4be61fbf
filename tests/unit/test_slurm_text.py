"""Reading Slurm's output: lines that real Slurms printed, and lines that nobody ever should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterctl.adapters import slurm_text as text
from clusterctl.adapters.slurm_words import explain_reason, hint_for, is_ambiguous, refusal
from clusterctl.hardware import Gres
from clusterctl.model import JobRef, JobState

REF = JobRef("17", "tok", 1795416457.5, Path("/a b/run-1"))


def queue_line(**changes: str) -> str:
    """A running job of ours, as squeue on 22.05.8 prints it."""
    fields = {
        "id": "17",
        "state": "RUNNING",
        "status": "0",
        "restarts": "0",
        "submit": "1795416457",
        "start": "1795416458",
        "end": "1795420058",
        "limit": "1:00:00",
        "user": "ann",
        "nodes": "gpu-a800-[1-2]",
        "reason": "None",
        "folder": "/a b/run-1",
        "comment": "clusterctl:run-1:tok",
    }
    return text.SEPARATOR.join((fields | changes).values())


def record_line(**changes: str) -> str:
    """A failed job of ours, as sacct on 22.05.8 prints it."""
    fields = {
        "id": "17",
        "state": "FAILED",
        "status": "7:0",
        "submit": "1795416457",
        "start": "1795416458",
        "end": "1795416460",
        "minutes": "60",
        "user": "ann",
        "nodes": "cpu-1",
        "folder": "/a b/run-1",
        "comment": "",
    }
    return text.SEPARATOR.join((fields | changes).values())


def queue_row(**changes: str) -> text.Row:
    row = text.parse_queue_line(queue_line(**changes))
    assert row is not None
    return row


def record(**changes: str) -> text.Row:
    row = text.parse_record_line(record_line(**changes))
    assert row is not None
    return row


def test_a_running_job() -> None:
    job = queue_row().job
    assert (job.job_id, job.state, job.where, job.source) == ("17", JobState.RUNNING, "gpu-a800-[1-2]", "squeue")
    assert (job.submitted_at, job.started_at, job.ended_at) == (1795416457, 1795416458, None)
    assert (job.exit_code, job.signal, job.reason, job.time_limit) == (None, None, "", 3600)


def test_a_waiting_job_has_not_started_whatever_squeue_guesses() -> None:
    job = queue_row(state="PENDING", start="1795420000", nodes="", reason="ReqNodeNotAvail, UnavailableNodes:a,b").job
    assert job.started_at is None and job.where == ""
    assert job.reason == "ReqNodeNotAvail, UnavailableNodes:a,b"


def test_a_job_cancelled_before_it_began_did_not_start() -> None:
    job = queue_row(state="CANCELLED", nodes="", reason="JobHeldUser").job
    assert (job.started_at, job.ended_at, job.reason) == (None, 1795420058, "")
    assert record(state="CANCELLED by 0", nodes="None assigned").job.started_at is None
    orphan = queue_row(state="CANCELLED", nodes="", reason="DependencyNeverSatisfied").job
    assert orphan.reason == "DependencyNeverSatisfied"


@pytest.mark.parametrize(
    ("status", "code", "signal"),
    [("0", 0, None), ("1792", 7, None), ("9", 0, 9), ("15", 0, 15), ("7:0", 7, None), ("0:9", 0, 9), ("?", None, None)],
)
def test_exit_codes_of_squeue_and_sacct(status: str, code: int | None, signal: int | None) -> None:
    assert text.parse_exit(status) == (code, signal)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("CANCELLED by 1001", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("OUT_OF_MEMORY", JobState.OUT_OF_MEMORY),
        ("NODE_FAIL", JobState.NODE_FAIL),
        ("REQUEUE_HOLD", JobState.REQUEUED),
        ("SIGNALING", JobState.RUNNING),
        ("SPECIAL_EXIT", JobState.PENDING),
        ("REVOKED", JobState.UNKNOWN),
        ("A_NEW_WORD", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)
def test_states(word: str, state: JobState) -> None:
    assert text.parse_state(word) is state


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("7:00", 420), ("1:00:00", 3600), ("7-00:00:00", 604800), ("UNLIMITED", None), ("INVALID", None), ("", None)],
)
def test_durations(words: str, seconds: int | None) -> None:
    assert text.parse_duration(words) == seconds


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("gpu:a800:4(S:0-1)", (Gres("a800", 4),)),
        ("gpu:a800:3(IDX:0-2)", (Gres("a800", 3),)),
        ("gpu:a800:2(IDX:0,3),gpu:a40:1(IDX:5)", (Gres("a800", 2), Gres("a40", 1))),
        ("gpu:a800:2(S:0),gpu:a800:2(S:1)", (Gres("a800", 4),)),
        ("gpu:2", (Gres(None, 2),)),
        ("gpu", (Gres(None, 1),)),
        ("gres/gpu:a800:2", (Gres("a800", 2),)),
        ("gpu:1g.10gb:7(S:0),shard:8,mps:400", (Gres("1g.10gb", 7),)),
        ("gpu:nvidia_a100_3g.20gb:2", (Gres("nvidia_a100_3g.20gb", 2),)),
        ("gpu:a800:0(IDX:N/A)", ()),
        ("craynetwork:4", ()),
        ("(null)", ()),
        ("", ()),
    ],
)
def test_gres(gres: str, expected: tuple[Gres, ...]) -> None:
    assert text.parse_gres(gres) == expected


def test_sbatch_answers() -> None:
    assert text.parse_submitted("17\n") == "17"
    assert text.parse_submitted("17;cluster-b\n") == "17"
    assert text.parse_submitted("Welcome to HPC 2026\n17\n") == "17"
    assert text.parse_submitted("Submitted batch job 17\n") is None
    assert text.parse_submitted("") is None


def test_nodes_are_joined_over_their_partitions() -> None:
    n1 = ("n1", "mixed", "gpu:a800:4(S:0-1)", "gpu:a800:3(IDX:0-2)")
    lines = [
        (*n1, "a800*", "64", "1000", "infinite", "up", "a,b", "none"),
        (*n1, "debug", "64", "1000", "30:00", "down", "a,b", "none"),
        ("n2", "drained*", "(null)", "gpu:0", "cpu", "8", "?", "1-00:00:00", "up", "(null)", "bad | fan\x1f?"),
        ("n3", "mixed$", "gpu:2", "gpu:0", "cpu", "8", "500", "1-00:00:00", "up", "(null)", "none"),
    ]
    first, second, third = text.parse_nodes("\n".join(text.SEPARATOR.join(line) for line in lines) + "\nnoise\n")
    assert first.partitions == ("a800", "debug") and first.usable
    assert (first.gpus, first.gpus_used) == ((Gres("a800", 4),), (Gres("a800", 3),))
    assert (first.cpus, first.memory, first.features) == (64, 1000 * 1024**2, ("a", "b"))
    assert (first.max_times, first.closed, first.default_partition) == ((None, 1800), ("debug",), "a800")
    assert (second.memory, second.features, second.max_times) == (None, (), (86400,))
    assert not second.usable and second.reason == "bad | fan\x1f?"
    assert not third.usable, "it lies in a maintenance reservation"


def test_a_start_is_a_number_or_nothing() -> None:
    assert text.parse_start("sbatch: Job 7 to start at 1795456000 using 1 processors on nodes n1\n") == 1795456000
    assert text.parse_start("Welcome\nsbatch: Job 7 to start at 2026-11-23T14:00:00 using 1\n") is None
    assert text.parse_start("allocation failure: Job violates accounting policy\n") is None


def test_whose_job_it_is() -> None:
    assert queue_row().belongs_to(REF, "ann")
    assert queue_row(user="another", folder="/moved").belongs_to(REF, "ann"), "the token decides"
    assert not queue_row().belongs_to(replace(REF, token="other"), "ann")
    assert not queue_row(id="18").belongs_to(REF, "ann")
    assert queue_row(comment="clusterctl:run-1:tok;seen by admin").belongs_to(REF, "ann")

    bare = queue_row(comment="(null)")
    assert bare.belongs_to(REF, "ann")
    assert bare.belongs_to(replace(REF, run_dir=Path("/moved/to/run-1")), "ann")
    assert not bare.belongs_to(replace(REF, run_dir=Path("/a b/run-2")), "ann")
    assert not bare.belongs_to(REF, "bob")
    assert not bare.belongs_to(replace(REF, submitted_at=REF.submitted_at + 3600), "ann")
    assert queue_row(comment="", submit="1795420000").belongs_to(REF, "ann"), "a requeue is a later submission"
    assert not queue_row(comment="", submit="N/A").belongs_to(REF, "ann")


def test_the_newest_record_wins_and_those_before_it_were_requeues() -> None:
    old = record(state="REQUEUED", submit="1795416457")
    new = record(state="CANCELLED by 0", submit="1795416500")
    for rows in ([old, new], [new, old]):
        newest = text.newest_record(rows)
        assert newest and (newest.job.state, newest.job.restarts) == (JobState.CANCELLED, 1)
    assert text.newest_record([]) is None


line = st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x1f\n:;|,-_0123456789"))


@given(line)
def test_no_text_breaks_a_parser(words: str) -> None:
    text.parse_queue_line(words)
    text.parse_record_line(words)
    text.parse_nodes(words)
    text.parse_gres(words)
    text.parse_state(words)
    text.parse_exit(words)
    text.parse_duration(words)
    text.parse_submitted(words)
    text.parse_start(words)
    text.split_lines(words)
    assert "\n" not in refusal(words)
    explain_reason(words)
    is_ambiguous(words)
    hint_for(words)


@given(st.lists(line, min_size=13, max_size=13), st.lists(line, min_size=11, max_size=11))
def test_no_field_breaks_a_line(queue: list[str], records: list[str]) -> None:
    for row in (
        text.parse_queue_line(text.SEPARATOR.join(queue)),
        text.parse_record_line(text.SEPARATOR.join(records)),
    ):
        assert row is not None
        row.belongs_to(REF, "ann")


@given(line.filter(lambda words: "\n" not in words))
def test_a_hostile_comment_changes_no_other_field(comment: str) -> None:
    assert queue_row(comment=comment).job == queue_row().job
    assert record(comment=comment).job == record().job


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Resources", "waiting for free resources"),
        ("None", ""),
        ("", ""),
        ("DependencyNeverSatisfied", "will never start: the job before it did not succeed"),
        ("QOSMaxGRESPerUser", "you are using all the GPUs that the QOS allows per user"),
        ("QOSMaxWallDurationPerJobLimit", "asks for more wall time per job than the QOS allows"),
        ("QOSMaxJobsPerUserLimit", "you are using all the running jobs that the QOS allows per user"),
        ("QOSGrpGRES", "the QOS is using all the GPUs that it may"),
        ("AssocGrpCpuLimit", "the account is using all the CPUs that it may"),
        ("AssocMaxJobsLimit", "you are using all the running jobs that the account allows per user"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2],n7", "nodes that it needs are not available: n[1-2],n7"),
        ("ReqNodeNotAvail, UnavailableNodes:", "nodes that it needs are not available"),
        (
            "ReqNodeNotAvail, Reserved for maintenance",
            "nodes that it needs are not available: Reserved for maintenance",
        ),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "the nodes that could run it are down, drained or reserved",
        ),
        ("launch failed requeued held", "could not be launched and is held: `scontrol release` tries again"),
        ("RaisedSignal:9(Killed)", "was ended by signal 9(Killed)"),
        ("A_Reason_Of_2031", "A_Reason_Of_2031"),
    ],
)
def test_reasons_in_words(reason: str, words: str) -> None:
    assert explain_reason(reason) == words


@pytest.mark.parametrize(
    "stderr",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        "sbatch: error: Batch job submission failed: Unexpected message received",
        "sbatch: error: Batch job submission failed: Message receive failure",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.",
        "sbatch: error: Batch job submission failed: Protocol authentication error",
    ],
)
def test_errors_that_prove_nothing(stderr: str) -> None:
    assert is_ambiguous(stderr)


@pytest.mark.parametrize(
    ("stderr", "hint"),
    [
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "qos"),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, "
            "user's size and/or time limits)",
            "a limit of your account or QOS",
        ),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination", "account"),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid", "less time"),
        ("sbatch: error: Batch job submission failed: Job dependency problem", "not known to Slurm"),
    ],
)
def test_refusals_are_refusals(stderr: str, hint: str) -> None:
    assert not is_ambiguous(stderr)
    message = refusal(stderr)
    assert "sbatch" not in message and "\n" not in message
    assert hint in hint_for(message)
