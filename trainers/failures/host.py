"""Causes on the host: memory, disk, files, signals."""

from __future__ import annotations

from trainers.failures.cause import Cause, sign

CAUSES = (
    Cause(
        "host_out_of_memory",
        "the job used more host memory than it had",
        "ask for more, --set profile.mem=..., or use less: fewer dataloader_num_workers, data.streaming, no offload",
        signs=(
            sign("oom_kill event", "oom-kill event", pattern=r"[Dd]etected \d+ oom[-_]kill event"),
            sign("OOM Killed", "Out Of Memory", pattern=r"(slurmstepd|srun): error: .*(OOM Killed|Out Of Memory)"),
            sign("Exceeded job memory limit", "Exceeded step memory limit"),
            sign("Memory cgroup out of memory"),
            sign("Out of memory: Killed process", "Out of memory: Kill process"),
            sign("DefaultCPUAllocator", pattern=r"DefaultCPUAllocator: (can't allocate|not enough) memory"),
            sign("MemoryError", pattern=r"^(\[rank\d+\]: ?)?(numpy\S*)?_?(Array)?MemoryError\b"),
            sign("Cannot allocate memory", pattern=r"\[Errno 12\] Cannot allocate memory|fork: Cannot allocate memory"),
            sign("std::bad_alloc"),
            sign("node running low on memory", "killed due to memory pressure"),
            sign("is killed by signal: Killed", pattern=r"DataLoader worker .*killed by signal: Killed"),
        ),
    ),
    Cause(
        "shared_memory",
        "shared memory is full or too small",
        "--set optim.dataloader_num_workers=0, or a container with a larger --shm-size; `df /dev/shm` shows it",
        signs=(
            sign("insufficient shared memory"),
            sign("unable to open shared memory object"),
            sign("is killed by signal: Bus error"),
            sign(
                "No space left on device", pattern=r"(/dev/shm|shared memory|/psm_|/torch_|ncclShm|shm).*No space left"
            ),
        ),
    ),
    Cause(
        "disk_full",
        "the disk is full",
        "`clusterctl prune` removes old checkpoints; --set output.save_total_limit=2 keeps fewer. Then"
        " `clusterctl resume {run}`",
        signs=(
            sign("No space left on device"),
            sign("设备上没有空间", pattern="[:：] ?设备上没有空间$"),
            sign("No usable temporary directory found"),
            sign("file write failed", pattern=r"PytorchStreamWriter failed|inline_container.*file write failed"),
            sign("unexpected pos", pattern=r"enforce fail at inline_container.*unexpected pos"),
        ),
    ),
    Cause(
        "disk_quota",
        "your quota on the disk is used up",
        "`quota -s` or the site's own command shows it; move output_root to scratch, or remove old checkpoints",
        signs=(sign("Disk quota exceeded"), sign("超出磁盘限额", pattern="[:：] ?超出磁盘限额$"), sign("[Errno 122]")),
    ),
    Cause(
        "file_size_limit",
        "a file grew beyond the size that is allowed",
        "`ulimit -f` must say unlimited where the job is submitted; some file systems have such a limit of their own",
        signs=(sign("File too large"), sign("[Errno 27]")),
    ),
    Cause(
        "read_only_disk",
        "the file system takes no writes",
        "choose another output_root; when it was writable before, report the node to the administrators",
        policy="resume",
        node=True,
        signs=(sign("Read-only file system"), sign("[Errno 30]")),
    ),
    Cause(
        "file_system",
        "the shared file system failed",
        "`clusterctl resume {run}`; when it happens again, report node and path to the administrators",
        policy="retry",
        signs=(
            sign("Stale file handle"),
            sign("Input/output error", pattern=r"\[Errno 5\]|OSError.*Input/output error"),
            sign("Transport endpoint is not connected"),
            sign("Cannot send after transport endpoint shutdown"),
        ),
    ),
    Cause(
        "permission",
        "a file may not be read or written",
        "the line names it: `ls -l` it; output_root, HF_HOME and data must be yours on the node too",
        signs=(
            sign("PermissionError", pattern=r"PermissionError: \[Errno 13\]"),
            sign(
                "Permission denied",
                pattern=r"^(bash|/bin/bash|\S+\.sh|slurmstepd|srun|mkdir|touch|cp|tee).*Permission denied",
            ),
            sign("权限不够", pattern="[:：] ?权限不够$"),
        ),
    ),
    Cause(
        "too_many_files",
        "the process has too many files open",
        "--set optim.dataloader_num_workers=2, or `ulimit -n 65536` before submitting",
        signs=(sign("Too many open files"), sign("received 0 items of ancdata")),
    ),
    Cause(
        "segmentation_fault",
        "a program crashed in native code",
        "`clusterctl doctor` finds packages that do not fit together; try again once, then with another version",
        policy="retry",
        signs=(
            sign("Segmentation fault"),
            sign("Bus error", "段错误", pattern=r"(line|行) ?\d+[:：] *\d+ (Bus error|段错误)"),
            sign("Fatal Python error", pattern=r"Fatal Python error: (Segmentation fault|Bus error)"),
            sign("Signal 11 (SIGSEGV)"),
            sign("free(): invalid pointer", "double free or corruption", "munmap_chunk(): invalid pointer"),
        ),
    ),
    Cause(
        "illegal_instruction",
        "the program was built for another processor",
        "rebuild the extension on this kind of node, or keep to nodes like the one it was built on: profile.constraint",
        signs=(
            sign("Illegal instruction"),
            sign("非法指令", pattern=r"行 ?\d+[:：] *\d+ 非法指令"),
            sign("Signal 4 (SIGILL)"),
        ),
    ),
    Cause(
        "too_many_threads",
        "no more threads or processes may be started",
        "fewer of them: OMP_NUM_THREADS=8 under `env`, optim.dataloader_num_workers=2; `ulimit -u` shows the limit",
        signs=(
            sign("can't start new thread"),
            sign("pthread_create failed"),
            sign("fork: Resource temporarily unavailable"),
        ),
    ),
    Cause(
        "aborted",
        "a program ended itself (SIGABRT)",
        "the lines before the quoted one say why: `clusterctl tail {run}`",
        weight="echo",
        signs=(
            sign("Fatal Python error: Aborted", "terminate called after throwing", "Signal 6 (SIGABRT)"),
            sign("Aborted", pattern=r"line \d+: +\d+ Aborted\b"),
        ),
    ),
    Cause(
        "killed",
        "a process was killed from outside",
        "look for memory first: `clusterctl report {run}`; else an administrator or the node's own watchdog did it",
        weight="vague",
        signs=(
            sign("Killed  ", ": Killed", pattern=r"line \d+: +\d+ Killed\b|^(bash|srun).*: Killed$"),
            sign("已杀死", pattern=r"行 ?\d+[:：] *\d+ 已杀死"),
            sign("srun: error: ", pattern=r"srun: error: \S+: tasks? [\d,\-]+: Killed"),
            sign("Signal 9 (SIGKILL)"),
            sign("exitcode: -9", "exitcode : -9", "exitcode  : -9", pattern=r"exitcode *: -9\b"),
        ),
    ),
)
