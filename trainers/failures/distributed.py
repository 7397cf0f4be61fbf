"""Causes between processes: NCCL, rendezvous, launchers."""

from __future__ import annotations

from trainers.failures.cause import Cause, sign

CAUSES = (
    Cause(
        "port_in_use",
        "the port for the processes to meet is taken",
        "`clusterctl resume {run}`: a new job takes another port; on one machine end the process that holds it",
        policy="retry",
        signs=(
            sign("EADDRINUSE"),
            sign("ddress already in use", pattern=r"[Aa]ddress already in use"),
        ),
    ),
    Cause(
        "nccl_init",
        "NCCL could not connect the GPUs",
        "`clusterctl doctor --on PROFILE` tries it; NCCL_SOCKET_IFNAME under `env` in the site file names the network",
        policy="retry",
        signs=(
            sign("no socket interface found", "No interface found in the same subnet"),
            sign("ncclSystemError"),
            sign("ncclUnhandledCudaError"),
            sign("ncclInternalError"),
            sign("ncclInvalidUsage"),
            sign("ncclInvalidArgument"),
            sign("Duplicate GPU detected"),
            sign(
                "NCCL WARN",
                pattern=r"NCCL WARN (Bootstrap|Call to ibv_|NET/IB : Got completion.*error)",
            ),
        ),
    ),
    Cause(
        "rendezvous",
        "the processes did not find each other",
        "`clusterctl resume {run}`; if it happens again the nodes cannot reach the first one: firewall or host names",
        policy="retry",
        signs=(
            sign("RendezvousTimeoutError"),
            sign("RendezvousConnectionError"),
            sign("RendezvousClosedError"),
            sign("DistStoreError", "DistNetworkError"),
            sign("client socket has timed out", pattern=r"client socket has timed out after"),
            sign("failed to connect to any network address", "server socket has failed to listen"),
        ),
    ),
    Cause(
        "world_size",
        "the number of processes is not what was asked for",
        "gpus_per_node of the profile must be what the job gets: `clusterctl plan` and job.sh say what is started",
        signs=(
            sign(
                "world_size",
                "world size",
                pattern=r"(world[_ ]size).{0,40}(mismatch|does not match|not equal|expected|must be)",
            ),
            sign("is less than total desired GPUs"),
            sign("nproc_per_node", pattern=r"nproc_per_node.{0,60}(exceed|greater|larger|more than)"),
            sign("local rank ", pattern=r"local rank.{0,30}(exceed|out of range|>=)"),
        ),
    ),
    Cause(
        "nccl_timeout",
        "a collective operation timed out: one process did not come",
        "look for what the others' silence hides: a slow data loader, a full disk, a dead GPU;"
        " parallel.ddp_timeout allows longer waits",
        policy="retry",
        weight="echo",
        signs=(
            sign("Watchdog caught collective operation timeout"),
            sign("collective operation timeout"),
            sign("Timeout waiting for key", pattern=r"Timeout waiting for key:? "),
            sign("Timed out waiting", pattern=r"Timed out waiting \d+ms for (recv|send) operation"),
            sign("NCCL timeout", pattern=r"\bNCCL timeout\b.*(exceeded|expired|reached)"),
            sign("Heartbeat monitor timed out"),
        ),
    ),
    Cause(
        "peer_lost",
        "another process of the run has gone",
        "`clusterctl resume {run}`; look at the log of the process that ended first",
        policy="retry",
        weight="echo",
        signs=(
            sign("Connection closed by remote peer"),
            sign("Connection closed by peer"),
            sign(
                "Connection reset by peer",
                pattern=r"(gloo|c10d|TCPStore|NCCL|ProcessGroup|Error).*Connection reset by peer",
            ),
            sign("ncclRemoteError", "remote process exited or there was a network error"),
            sign("Broken pipe", pattern=r"(TCPStore|c10d|ProcessGroup|sendBytes).*Broken pipe"),
            sign("recvValue failed", "sendBytes failed"),
        ),
    ),
    Cause(
        "child_failed",
        "a process of the launcher failed",
        "the log of the process that it names has the reason",
        weight="echo",
        signs=(
            sign("ChildFailedError"),
            sign(
                "srun: error: ",
                pattern=r"srun: error: \S+: tasks? [\d,\-]+: (Exited with exit code|Terminated|Aborted)",
            ),
            sign("Sending process", pattern=r"Sending process \d+ closing signal SIG(TERM|INT)"),
            sign("SignalException", pattern=r"SignalException: Process \d+ got signal"),
            sign("CalledProcessError", pattern=r"subprocess\.CalledProcessError: Command .* returned non-zero"),
        ),
    ),
)
