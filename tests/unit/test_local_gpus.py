"""Jobs that share the GPUs of a fake NVML library: leases, the waiting line, cards that others use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from clusterctl.adapters import procfs
from clusterctl.model import JobRef, JobState
from tests.fake_nvml.build import A40, A800, Card, fake_nvml_env
from tests.local_box import LocalBox, wait_until

HOLD = 'echo "$CUDA_VISIBLE_DEVICES"; until [[ -e go ]]; do sleep 0.05; done'
"""Tells which GPUs it got and keeps them until the test makes the file ``go``."""


@dataclass
class GpuBox(LocalBox):
    """A machine with the cards that ``cards`` last set."""

    def cards(self, *cards: Card) -> None:
        self.env = fake_nvml_env(self.root, cards)

    def gpu_job(
        self, script: str = HOLD, *, gpus: int = 1, env: dict[str, str] | None = None, **more: object
    ) -> JobRef:
        return self.submit_from_child(script, env=self.env | (env or {}), gpus_per_node=gpus, **more)

    def until_waiting(self, ref: JobRef, words: str) -> None:
        """Wait until the job waits for this reason."""
        job = self.job(ref)

        def waits() -> bool:
            nonlocal job
            job = self.job(ref)
            return words in job.reason

        try:
            wait_until(waits)
        except AssertionError:
            raise AssertionError(f"{words!r} is not in {job.reason!r}") from None
        assert job.state is JobState.PENDING

    def holds(self, ref: JobRef) -> list[int]:
        """The numbers of the GPUs that a running job got."""
        self.until(ref, JobState.RUNNING)
        log = ref.run_dir / "logs/job.out"
        wait_until(lambda: log.read_text().endswith("\n"))
        uuids = log.read_text().splitlines()[-1].split(",")
        assert tuple(uuids) == self.local_json(ref).gpus
        return [int(uuid[-12:], 16) for uuid in uuids]  # the fake library ends a UUID with the card's number

    def finish(self, *refs: JobRef) -> None:
        for ref in refs:
            (ref.run_dir / "go").touch()
        for ref in refs:
            assert self.until(ref).state is JobState.COMPLETED


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuBox]:
    root = tmp_path / "a'; echo foo"
    root.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
    monkeypatch.setenv("CLUSTERCTL_LEASE_DIR", str(root / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    box = GpuBox(root)
    yield box
    box.close()


def test_two_jobs_on_one_gpu_run_one_after_the_other(box: GpuBox) -> None:
    box.cards(A800)
    first = box.gpu_job()
    second = box.gpu_job()
    assert box.holds(first) == [0]
    box.until_waiting(second, "waiting for 1 GPU: 0 free of 1")
    assert not (second.run_dir / "logs/job.out").exists()
    box.finish(first)
    assert box.holds(second) == [0]
    box.finish(second)


def test_a_later_job_does_not_overtake_but_takes_what_nobody_waits_for(box: GpuBox) -> None:
    box.cards(A800, A800, A40)
    first = box.gpu_job(gpu_type="a800")
    big = box.gpu_job(gpus=2)
    box.until_waiting(big, "waiting for 2 GPUs: 1 free of 2")
    small = box.gpu_job(gpu_type="a800")
    box.until_waiting(small, "0 free of 2, 1 ahead in line")
    other = box.gpu_job()
    assert (box.holds(first), box.holds(other)) == ([0], [2])
    box.finish(first)
    assert box.holds(big) == [0, 1]
    assert box.job(small).state is JobState.PENDING
    box.finish(big, other)
    assert box.holds(small) == [0]
    box.finish(small)


def test_a_cancelled_or_killed_job_leaves_the_line(box: GpuBox) -> None:
    box.cards(A40)
    first = box.gpu_job()
    second, third, fourth = box.gpu_job(), box.gpu_job(), box.gpu_job()
    box.until_waiting(fourth, "2 ahead in line")
    box.local.cancel([second])
    os.kill(box.local_json(third).runner.pid, signal.SIGKILL)
    box.until_waiting(fourth, "waiting for 1 GPU: 0 free of 1")
    wait_until(lambda: "ahead" not in box.job(fourth).reason)
    box.finish(first)
    assert box.holds(fourth) == [0]
    box.finish(fourth)


def test_the_lease_outlives_a_killed_runner(box: GpuBox) -> None:
    box.cards(A40)
    first = box.gpu_job()
    assert box.holds(first) == [0]
    runner = box.local_json(first).runner
    os.kill(runner.pid, signal.SIGKILL)
    wait_until(lambda: not procfs.alive(runner))
    second = box.gpu_job()
    box.until_waiting(second, "0 free of 1")
    assert box.job(first).state is JobState.RUNNING
    (first.run_dir / "go").touch()
    assert box.holds(second) == [0]
    box.finish(second)


def test_a_restarted_attempt_gets_the_same_type_and_lets_others_go_first(box: GpuBox) -> None:
    box.cards(A40, A800)
    script = "[[ -e saved ]] || { touch saved; until [[ -e stop ]]; do sleep 0.05; done; exit 85; }"
    first = box.gpu_job(f"{script}; {HOLD}")
    box.until(first, JobState.RUNNING)
    second = box.gpu_job(gpu_type="a40")
    box.until_waiting(second, "0 free of 1")
    (first.run_dir / "stop").touch()
    assert box.holds(second) == [0]
    box.until_waiting(first, "0 free of 1")
    assert box.job(first).restarts == 1
    box.finish(second)
    assert box.holds(first) == [0]
    box.finish(first)


def test_a_card_that_others_use_is_left_to_them(box: GpuBox) -> None:
    used = replace(A40, used=2000, processes={1: 2000})
    box.cards(used, A40)
    first = box.gpu_job()
    assert box.holds(first) == [1]
    second = box.gpu_job()
    box.until_waiting(second, "waiting for 1 GPU: 0 free of 2; GPU 0 is used without a lease by pid 1 (root)")
    box.cards(A40, replace(A40, used=2000, processes={procfs.myself().pid: 2000}))
    assert box.holds(second) == [0]
    box.finish(first, second)


def test_the_driver_is_asked_rarely_while_a_job_waits(box: GpuBox) -> None:
    box.cards(A40)
    first = box.gpu_job()
    second = box.gpu_job()
    box.until_waiting(second, "0 free of 1")
    calls = box.root / "nvml-calls"
    before = len(calls.read_text().splitlines())
    third = box.gpu_job()
    box.until_waiting(third, "1 ahead")
    # The third job's own: at submission and when it joined the line, each an init and a shutdown.
    assert len(calls.read_text().splitlines()) == before + 4
    box.finish(first)
    box.local.cancel([second, third])


def test_broken_cards_are_never_chosen(box: GpuBox) -> None:
    box.cards(replace(A800, faults="ecc=3"), A800, replace(A800, faults="lost"), replace(A800, faults="mig=2"))
    ref = box.gpu_job()
    assert box.holds(ref) == [1]
    box.finish(ref)
    with pytest.raises(RuntimeError, match="2 GPUs of one type wanted, and this machine has 1 x a800"):
        box.gpu_job(gpus=2)


def test_gpus_named_by_hand(box: GpuBox) -> None:
    box.cards(A800, A800, A40)
    ref = box.gpu_job(gpus=0, gpu_ids=("2", "0"), mixed=True)
    assert box.holds(ref) == [2, 0]
    box.finish(ref)


def test_cuda_visible_devices_of_the_submitter_is_respected(box: GpuBox) -> None:
    box.cards(A800, A800, A800)
    ref = box.gpu_job(env={"CUDA_VISIBLE_DEVICES": "2"})
    assert box.holds(ref) == [2]
    box.finish(ref)
    with pytest.raises(RuntimeError, match="3 GPUs of one type wanted, and this machine has 2 x a800"):
        box.gpu_job(gpus=3, env={"CUDA_VISIBLE_DEVICES": "0,1"})


def test_no_fit_leaves_nothing(box: GpuBox) -> None:
    box.cards(A800, A40)
    with pytest.raises(RuntimeError, match="NoFit: 2 GPUs of one type wanted, and this machine has 1 x a800, 1 x a40"):
        box.gpu_job(gpus=2)
    assert not list(box.root.glob("run */local.json"))
    assert not (box.root / "state").exists()


def test_no_driver_is_said_at_once(box: GpuBox) -> None:
    box.env = fake_nvml_env(box.root, [A40], init_error=9)
    with pytest.raises(RuntimeError, match=r"Unavailable: .*kernel module is not loaded"):
        box.gpu_job()


def test_a_card_breaks_while_a_job_waits_and_is_mended(box: GpuBox) -> None:
    box.cards(A40)
    first = box.gpu_job()
    second = box.gpu_job()
    box.until_waiting(second, "0 free of 1")
    box.cards(replace(A40, faults="reset"))
    (first.run_dir / "go").touch()
    box.until_waiting(second, "cannot be used: needs a reset")
    box.cards(A40)
    assert box.holds(second) == [0]
    box.finish(second)
