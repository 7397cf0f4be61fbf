"""A throw-away Slurm cluster of real daemons, for tests: private folder, free ports, any user, in about a second.

Four virtual nodes share this machine: 2 x (4 A800), 1 x (4 A40), 1 without GPU. The GPU device files are links
to /dev/null: Slurm counts and assigns them, a program cannot use them. As root, jobs of other users run too.

Daemons are children in the foreground, which the kernel kills when the test process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.slurm import box_files
from tests.slurm.box_files import NODES

DAEMONS = ("munged", "slurmctld", "slurmd")
ACCOUNTING_DAEMONS = ("slurmdbd", "mariadbd", "mariadb-install-db")
PATIENCE = 60.0
"""Seconds until something that takes a second on an idle machine counts as broken."""

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_PORTS = range(20000, 32000)  # below the ports that the kernel hands to clients


def missing_programs(*, accounting: bool = False) -> list[str]:
    """The daemons that a box needs and this machine does not have."""
    wanted = DAEMONS + ACCOUNTING_DAEMONS if accounting else DAEMONS
    return [name for name in wanted if shutil.which(name, path=_PATH) is None]


def until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Poll until ``condition`` is true. Raises AssertionError naming ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.05)


class Box:
    """One cluster. ``env`` is the environment in which Slurm's commands talk to it.

    ``min_job_age``: seconds that an ended job stays in the queue. ``slurmd_timeout``: seconds until a silent node
    counts as dead. ``grace_time``: seconds between SIGTERM and the end for a preempted job. ``extra``: more lines
    for slurm.conf.
    """

    def __init__(
        self,
        *,
        accounting: bool = False,
        min_job_age: int = 300,
        slurmd_timeout: int = 20,
        grace_time: int = 2,
        extra: str = "",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurmbox-"))
        self.folder.chmod(0o755)
        self.conf = self.folder / "etc/slurm.conf"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        self.env |= {"SLURM_CONF": str(self.conf), "PATH": _PATH}
        self.accounting = accounting
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        ports = _free_ports(6)
        self._ctld_port, self._dbd_port = ports[4:]
        values = {"min_job_age": min_job_age, "slurmd_timeout": slurmd_timeout, "grace_time": grace_time}
        box_files.write(self.folder, user=_user(), ports=ports, accounting=accounting, extra=extra, **values)

    # --- life ---------------------------------------------------------------------------------

    def up(self) -> None:
        """Start everything and wait until all nodes are idle."""
        run = self.folder / "run"
        self._start(
            "munged",
            "munged",
            "--foreground",
            f"--key-file={self.folder}/etc/munge.key",
            f"--socket={run}/munge.sock",
            f"--pid-file={run}/munged.pid",
            f"--seed-file={run}/munge.seed",
            f"--log-file={self.folder}/log/munged.log",
        )
        self._wait_for_daemon("munged", (run / "munge.sock").exists)
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in NODES:
            self._start_slurmd(node)
        until(lambda: self._node_states() == {"idle"}, f"idle nodes, see {self.folder}/log")
        if self.accounting:
            self._add_users()

    def down(self) -> None:
        """End every daemon and every process of a job, and remove the folder."""
        self._kill_jobs()
        for name in list(self._daemons):
            self._stop(name, signal.SIGKILL)
        self._kill_jobs()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop_controller(self) -> None:
        """End slurmctld; it has saved its state."""
        self._stop("slurmctld")

    def start_controller(self) -> None:
        """Start slurmctld with the state that it saved last."""
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self._wait_for_daemon("slurmctld", lambda: _listens(self._ctld_port))

    def hang_controller(self) -> None:
        """Stop slurmctld in its tracks: it takes connections and never answers."""
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)

    def resume_controller(self) -> None:
        """Let a hung slurmctld go on."""
        self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def pid(self, name: str) -> int:
        """The process id of a daemon: slurmctld, or slurmd by the name of its node."""
        return self._daemons[name].pid

    def kill_node(self, node: str) -> None:
        """The node loses power: slurmd and all that it runs end without a word."""
        self._stop(node, signal.SIGKILL)
        self._kill_jobs([node])

    def start_node(self, node: str) -> None:
        """The node comes back; wait until it takes jobs."""
        self._start_slurmd(node)

        def back() -> bool:
            if self._daemons[node].poll() is not None:  # something of before still held its port or its files
                self._start_slurmd(node)
            return self._node_states(node) <= {"idle", "mixed", "allocated"}

        until(back, f"{node} to come back, see {self.folder}/log")

    # --- use ----------------------------------------------------------------------------------

    def command(
        self, *argv: str | Path, cwd: Path | None = None, user: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm's, as another user where ``user`` is given (root only)."""
        prefix = ("setpriv", f"--reuid={user}", "--clear-groups") if user else ()
        done = subprocess.run(
            [*prefix, *map(str, argv)], env=self.env, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
        )
        assert not check or done.returncode == 0, f"{argv[0]}: rc {done.returncode}: {done.stderr}"
        return done

    def submit(self, script: str, *options: str, cwd: Path, user: str | None = None) -> str:
        """Submit a job from the lines of a script, past clusterctl, and return its id."""
        argv = ("sbatch", "--parsable", "--mem=10", *options, "--wrap", script)
        return self.command(*argv, cwd=cwd, user=user).stdout.strip()

    def state(self, job: str) -> str:
        """The job's state as the controller knows it; empty when it no longer does."""
        return self.command("squeue", "-h", "-t", "all", "-j", job, "-o", "%T", check=False).stdout.strip()

    def wait_for(self, job: str, *states: str, timeout: float = PATIENCE) -> str:
        """Wait until the job is in one of ``states``; return it."""
        last = ""

        def reached() -> bool:
            nonlocal last
            last = self.state(job)
            return last in states

        until(reached, f"job {job} to be {' or '.join(states)}", timeout)
        return last

    # --- parts --------------------------------------------------------------------------------

    def _start(self, name: str, *argv: str, **variables: str) -> None:
        with (self.folder / f"log/{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *argv],
                env=self.env | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_slurmd(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node, "-f", str(self.conf))

    def _stop(self, name: str, signum: signal.Signals = signal.SIGTERM) -> None:
        daemon = self._daemons.pop(name)
        daemon.send_signal(signum)
        try:
            daemon.wait(timeout=PATIENCE)  # slurmctld saves its state when nothing is under way any more
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _wait_for_daemon(self, name: str, ready: Callable[[], bool]) -> None:
        def ready_or_dead() -> bool:
            return ready() or self._daemons[name].poll() is not None

        until(ready_or_dead, f"{name} to start, see {self.folder}/log")
        log = (self.folder / f"log/{name}.out").read_text(errors="replace")
        assert self._daemons[name].poll() is None, f"{name} did not start:\n{log[-2000:]}"

    def _start_accounting(self) -> None:
        database, sock = f"--datadir={self.folder}/db", f"--socket={self.folder}/run/my.sock"
        as_root = ["--user=root"] if os.geteuid() == 0 else []
        self.command(
            "mariadb-install-db",
            "--no-defaults",
            *as_root,
            database,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        self._start(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            *as_root,
            database,
            sock,
            f"--pid-file={self.folder}/run/mariadbd.pid",
            "--skip-networking",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=0",
        )
        ping = ("mariadb-admin", "--no-defaults", "-u", "root", sock, "ping")
        self._wait_for_daemon("mariadbd", lambda: self.command(*ping, check=False).returncode == 0)
        sql = "create user slurm@localhost identified by 'x'; grant all on *.* to slurm@localhost"
        self.command("mariadb", "--no-defaults", "-u", "root", sock, "-e", sql)
        self._start("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=f"{self.folder}/run/my.sock")
        self._wait_for_daemon("slurmdbd", lambda: _listens(self._dbd_port))

    def _add_users(self) -> None:
        for what in ("account lab", f"user {_user()} account=lab", "user nobody account=lab"):
            self.command("sacctmgr", "-i", "add", *what.split(), check=False)  # rc 1: it is there already

    def _node_states(self, node: str = ",".join(NODES)) -> set[str]:
        return set(self.command("sinfo", "-h", "-N", "-n", node, "-o", "%T", check=False).stdout.split())

    def _kill_jobs(self, nodes: Sequence[str] = NODES) -> None:
        """Kill what runs on these nodes: slurmstepd first, so that it cannot report the end of its children."""
        logs = {f"{self.folder}/log/{node}.log" for node in nodes}
        here = {f"SLURMD_NODENAME={node}" for node in nodes}
        processes = [entry for entry in Path("/proc").glob("[0-9]*") if entry.name != str(os.getpid())]
        _kill([p for p in processes if _name(p) == "slurmstepd" and logs & _open_files(p)])
        _kill([p for p in processes if f"SLURM_CONF={self.conf}" in (env := _environment(p)) and here & env])


def _kill(processes: list[Path]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process.name), signal.SIGKILL)


def _name(process: Path) -> str:
    with contextlib.suppress(OSError):
        return (process / "comm").read_text().strip()
    return ""


def _open_files(process: Path) -> set[str]:
    with contextlib.suppress(OSError):
        return {str(fd.readlink()) for fd in (process / "fd").iterdir()}
    return set()


def _environment(process: Path) -> set[str]:
    with contextlib.suppress(OSError):
        return set((process / "environ").read_text(errors="replace").split("\0"))
    return set()


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(_PORTS)
        if port not in ports and not _listens(port):
            ports.append(port)
    return ports
