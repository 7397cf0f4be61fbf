"""Everything that can go wrong for a user, with the exit code that says which kind it was.

    ClusterctlError          exit
     ├ UsageProblem            2   bad option, unknown recipe or profile, invalid YAML
     ├ Unavailable             3   no sbatch, slurmctld does not answer, no GPU driver
     ├ NoFit                   4   nothing here can hold the request
     ├ Rejected                5   the scheduler refused; its own words
     ├ NotFound                6   unknown run, no log yet
     └ Interrupted           130   Ctrl-C, after something had been done already

Caught once, in ``cli.main``. Any other exception is a bug and keeps its traceback.
"""


class ClusterctlError(Exception):
    """One line of what went wrong and one line of what to do about it."""

    exit_code = 1
    maybe_queued = False
    """Set where a submission failed without it being known whether the scheduler took the job."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageProblem(ClusterctlError):
    """The request itself is wrong: an option, a name, a file's content."""

    exit_code = 2


class Unavailable(ClusterctlError):
    """Something outside that is needed does not answer."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", maybe_queued: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.maybe_queued = maybe_queued


class NoFit(ClusterctlError):
    """Nothing here can hold the request."""

    exit_code = 4


class Rejected(ClusterctlError):
    """The scheduler refused; the message carries its own words."""

    exit_code = 5


class NotFound(ClusterctlError):
    """The named run, log or asset does not exist."""

    exit_code = 6


class Interrupted(ClusterctlError):
    """Ctrl-C came when something had been done already; the message says what."""

    exit_code = 130
