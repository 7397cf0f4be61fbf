"""Causes in the words of Slurm and of our own runner; several are also known from the job's state alone."""

from __future__ import annotations

from trainers.failures.cause import Cause, sign

CAUSES = (
    Cause(
        "time_limit",
        "the job reached its time limit",
        "`clusterctl resume {run}` goes on from the newest checkpoint; --set profile.time=... asks for longer",
        policy="resume",
        weight="scheduler",
        signs=(sign("DUE TO TIME LIMIT"), sign("time limit", pattern=r"clusterctl: .*reached its time limit")),
    ),
    Cause(
        "preempted",
        "the job made way for one of higher priority",
        "`clusterctl resume {run}`, when it does not come back by itself",
        policy="resume",
        weight="scheduler",
        signs=(sign("DUE TO PREEMPTION"),),
    ),
    Cause(
        "requeued",
        "somebody, or Slurm itself, put the job back into the queue",
        "it goes on from the newest checkpoint when its turn comes; where it has ended, `clusterctl resume {run}`",
        policy="resume",
        weight="scheduler",
        signs=(sign("DUE TO JOB REQUEUE"),),
    ),
    Cause(
        "stopped",
        "the run was told to save and stop: a TERM signal, or the file `stop`",
        "`clusterctl resume {run}` goes on from where it stopped",
        weight="scheduler",
        signs=(sign("asked to stop, saved at step", pattern=r"^guard: asked to stop, saved at step"),),
    ),
    Cause(
        "node_failure",
        "a node of the job failed",
        "`clusterctl resume {run}` goes on elsewhere",
        policy="resume",
        weight="scheduler",
        signs=(
            sign("DUE TO NODE FAILURE"),
            sign("Node failure on", pattern=r"srun: error: Node failure on"),
            sign(
                "Socket timed out on send/recv operation",
                pattern=r"srun: error: .*task launch failed.*Socket timed out",
            ),
            sign(
                "Unable to create step for job",
                pattern=r"srun: error: Unable to create step for job \d+: (?!Requested|Memory|More|Invalid)",
            ),
        ),
    ),
    Cause(
        "cancelled",
        "somebody cancelled the job",
        "`clusterctl resume {run}`, if it was a mistake",
        weight="scheduler",
        signs=(sign("CANCELLED AT", pattern=r"\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ \*\*\*"),),
    ),
    Cause(
        "submission_refused",
        "Slurm did not take the job, or a step of it",
        "the words after `failed:` name what is wrong; `clusterctl doctor` shows partitions, limits and QOS of yours",
        signs=(
            sign("Batch job submission failed", pattern=r"^sbatch: error: Batch job submission failed"),
            sign(
                "Unable to create step",
                pattern=r"srun: error: Unable to create step for job \d+: (Memory|More|Invalid)",
            ),
            sign("Unable to allocate resources", pattern=r"^s(run|alloc): error: Unable to allocate resources"),
        ),
    ),
    Cause(
        "interrupted",
        "somebody pressed Ctrl-C, or sent the signal INT",
        "`clusterctl resume {run}` goes on from the newest checkpoint, if it was a mistake",
        weight="scheduler",
        signs=(sign("KeyboardInterrupt", pattern=r"^(\[rank\d+\]: ?)?KeyboardInterrupt$"),),
    ),
    Cause(
        "launch_failure",
        "Slurm could not start the job's script",
        "check on the node that output_root is there and can be written: `clusterctl doctor --on PROFILE`",
        weight="scheduler",
        signs=(
            sign("Could not open stdout file", "Could not open stderr file"),
            sign("couldn't chdir to"),
            sign("error: Unable to open file"),
        ),
    ),
)
