"""The files of a throw-away cluster: slurm.conf, slurmdbd.conf, gres.conf and the folders they name."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from pathlib import Path

NODES = ("gpu-a800-1", "gpu-a800-2", "gpu-a40-1", "cpu-1")

_SLURM_CONF = """\
ClusterName=box
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[4]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout={slurmd_timeout}
BatchStartTimeout=30
KillWait=2
MinJobAge={min_job_age}
MaxJobCount=50000
DefMemPerCPU=1024
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_continue
PriorityType=priority/multifactor
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=DEFAULT Sockets=2 ThreadsPerCore=1 State=UNKNOWN
NodeName=gpu-a800-1 {here} Port={ports[0]} CoresPerSocket=32 RealMemory=1000000 Gres=gpu:a800:4 Feature=a800,nvlink
NodeName=gpu-a800-2 {here} Port={ports[1]} CoresPerSocket=32 RealMemory=1000000 Gres=gpu:a800:4 Feature=a800,nvlink
NodeName=gpu-a40-1 {here} Port={ports[2]} CoresPerSocket=24 RealMemory=500000 Gres=gpu:a40:4 Feature=a40
NodeName=cpu-1 {here} Port={ports[3]} CoresPerSocket=16 RealMemory=250000
PartitionName=DEFAULT DefaultTime=1:00:00 MaxTime=7-00:00:00 PriorityTier=10
PartitionName=cpu Nodes=cpu-1 Default=YES
PartitionName=a800 Nodes=gpu-a800-[1-2]
PartitionName=a40 Nodes=gpu-a40-1
PartitionName=debug Nodes=gpu-a800-1,gpu-a40-1,cpu-1 MaxTime=00:30:00 DefaultTime=5:00
PartitionName=scavenge Nodes=gpu-a800-[1-2],gpu-a40-1,cpu-1 PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_time}
PartitionName=urgent Nodes=gpu-a800-[1-2],gpu-a40-1,cpu-1 PriorityTier=100 PreemptMode=OFF
"""

_ACCOUNTING_LINES = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[5]}
AccountingStoragePass={folder}/run/munge.sock
AccountingStorageTRES=gres/gpu,gres/gpu:a800,gres/gpu:a40
AccountingStorageEnforce=associations,limits,qos
"""

_SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports[5]}
SlurmUser={user}
PidFile={folder}/run/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=x
StorageLoc=slurm_acct_db
"""

_GRES_CONF = """\
NodeName=gpu-a800-[1-2] Name=gpu Type=a800 File={folder}/dev/nvidia[0-3]
NodeName=gpu-a40-1 Name=gpu Type=a40 File={folder}/dev/nvidia[0-3]
"""


def write(folder: Path, *, user: str, ports: Sequence[int], accounting: bool, extra: str, **times: int) -> None:
    """Fill the folder. ``ports``: one for each node, slurmctld and slurmdbd. ``times``: seconds in slurm.conf."""
    for name in ("etc", "run", "log", "state", "dev", "db", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    for i in range(4):
        (folder / f"dev/nvidia{i}").symlink_to("/dev/null")
    host = socket.gethostname().split(".")[0]
    here = f"NodeHostname={host} NodeAddr=127.0.0.1"
    values = {"folder": folder, "user": user, "ports": ports, "host": host, "here": here, "extra": extra, **times}
    slurm_conf = _SLURM_CONF + (_ACCOUNTING_LINES if accounting else "") + "{extra}\n"
    etc = folder / "etc"
    (etc / "slurm.conf").write_text(slurm_conf.format(**values))
    (etc / "gres.conf").write_text(_GRES_CONF.format(**values))
    (etc / "cgroup.conf").write_text("ConstrainCores=no\n")  # an empty file is fatal
    for name, text in (("munge.key", random.randbytes(64).hex()), ("slurmdbd.conf", _SLURMDBD_CONF)):
        (etc / name).touch(0o600)
        (etc / name).write_text(text.format(**values))
