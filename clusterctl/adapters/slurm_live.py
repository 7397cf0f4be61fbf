"""What the GPUs of own running jobs do just now: nvidia-smi, as a step inside each of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from clusterctl.adapters.slurm_commands import Commands, soon
from clusterctl.adapters.slurm_words import refusal
from clusterctl.cluster import GpuJob, JobUse
from clusterctl.errors import Unavailable
from clusterctl.hardware import Gpu
from clusterctl.model import JobState

LIMIT = 10.0
"""Seconds for a node to answer."""

_SMI_LIMIT = 8

MOST = 8
"""Nodes that are asked at once. A step costs slurmctld three calls, and a site that limits them (``rl_enable``,
slurm.conf(5)) lets a user make 30 in a row by default."""

_QUERY = "index,uuid,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw,power.limit,name"
_MIB = 1024**2

# --overlap lets the step see the very GPUs that the job's own step computes on. With --gres=none, which asks for no
# GPU, a node that shuts its devices (ConstrainDevices, cgroup.conf(5)) would show none.
_SRUN = ("--overlap", "-N1", "-n1", "--quiet", "--input=none", "--mpi=none", "--chdir=/")
# nvidia-smi knows nothing of CUDA_VISIBLE_DEVICES: where devices are not shut it lists the whole node.
_SCRIPT = (
    'printf "%s\\n" "${CUDA_VISIBLE_DEVICES-}";'
    f" exec timeout -k 1 {_SMI_LIMIT} nvidia-smi --query-gpu={_QUERY} --format=csv,noheader,nounits"
)


def live_use(jobs: Sequence[GpuJob], commands: Commands) -> tuple[JobUse, ...]:
    """Ask on each node of each own running job, all at once. A node that does not answer has a ``problem``."""
    wanted = [
        (job, node)
        for job in jobs
        if job.own and job.state is JobState.RUNNING and job.where
        for node in _hosts(job.where, commands)
    ]
    left_out = tuple(
        JobUse(job.job_id, job.run_id, node, problem=f"not asked: {MOST} nodes at a time are enough for slurmctld")
        for job, node in wanted[MOST:]
    )
    if not wanted:
        return ()
    with ThreadPoolExecutor(MOST) as pool:
        return (*pool.map(lambda pair: _ask(pair[0], pair[1], commands), wanted[:MOST]), *left_out)


def _ask(job: GpuJob, node: str, commands: Commands) -> JobUse:
    argv = ["srun", f"--jobid={job.raw_id}", *_SRUN, "-w", node, "sh", "-c", _SCRIPT]
    try:
        done = commands.ask(argv, soon(LIMIT))
    except Unavailable as e:
        return JobUse(job.job_id, job.run_id, node, problem=e.message)
    if done.returncode in (124, 137):  # timeout(1) has ended it
        return JobUse(job.job_id, job.run_id, node, problem=f"nvidia-smi took more than {_SMI_LIMIT} s")
    if done.returncode != 0:
        return JobUse(job.job_id, job.run_id, node, problem=refusal(done.stderr or done.stdout.partition("\n")[2]))
    gpus = parse_use(done.stdout)
    return JobUse(job.job_id, job.run_id, node, gpus, None if gpus else "nvidia-smi showed no GPU")


def _hosts(names: str, commands: Commands) -> list[str]:
    """'n[1-2],m' -> n1, n2, m. scontrol does that by itself, without asking slurmctld."""
    try:
        return commands.ask(["scontrol", "show", "hostnames", names], soon(LIMIT)).stdout.split()
    except Unavailable:
        return []


def parse_use(answer: str) -> tuple[Gpu, ...]:
    """The GPUs of the job: a line with CUDA_VISIBLE_DEVICES, then nvidia-smi's lines, of which some may not be its."""
    visible, *lines = answer.split("\n")
    mine = {word.strip() for word in visible.split(",") if word.strip()}
    gpus = [gpu for line in lines if (gpu := _gpu([part.strip() for part in line.split(",", 8)]))]
    named = [gpu for gpu in gpus if {str(gpu.index), gpu.uuid} & mine]
    return tuple(named or gpus)


def _gpu(parts: list[str]) -> Gpu | None:
    if len(parts) != 9 or not parts[0].isdigit():
        return None
    index, uuid, utilization, used, total, temperature, power, limit, name = parts
    used_mib, total_mib = _whole(used), _whole(total)
    return Gpu(
        index=int(index),
        uuid=uuid,
        name=name,
        memory_used=None if used_mib is None else used_mib * _MIB,
        memory_total=None if total_mib is None else total_mib * _MIB,
        utilization=_whole(utilization),
        temperature=_whole(temperature),
        power_w=_number(power),
        power_limit_w=_number(limit),
    )


def _whole(word: str) -> int | None:
    number = _number(word)
    return None if number is None else int(number)


def _number(word: str) -> float | None:
    """None for '[N/A]', '[Not Supported]', '[Unknown Error]'."""
    try:
        return float(word)
    except ValueError:
        return None
