"""Keys of trackers, looked for before a job waits a night and then cannot log in. Never read further than needed."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from clusterctl.compose import Composed
from clusterctl.errors import UsageProblem
from clusterctl.paths import is_file, text_of, user_path
from clusterctl.schema import Site


def check(composed: Composed, site: Site) -> None:
    """Look for the key of every tracker that the run logs in to.

    Raises:
        UsageProblem: one has none, neither as a variable nor in the secrets file nor from its own ``login``.
    """
    tracking = composed.config.tracking
    variables = os.environ | composed.profile.env | site.env
    if "swanlab" in tracking.report_to and tracking.swanlab_mode == "cloud":
        folder = variables.get("SWANLAB_ROOT") or variables.get("SWANLAB_SAVE_DIR") or "~/.swanlab"
        logged_in = bool(_machines(user_path(folder) / ".netrc"))
        _need("SWANLAB_API_KEY", "swanlab login", logged_in, "tracking.swanlab_mode=local", site)
    if "wandb" in tracking.report_to and tracking.wandb_mode == "online":
        host = urlsplit(variables.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
        logged_in = host in _machines(user_path(variables.get("NETRC") or "~/.netrc"))
        logged_in = logged_in or bool(variables.get("WANDB_IDENTITY_TOKEN_FILE"))
        _need("WANDB_API_KEY", "wandb login", logged_in, "tracking.wandb_mode=offline", site)


def _need(variable: str, login: str, logged_in: bool, without: str, site: Site) -> None:
    if logged_in or os.environ.get(variable) or variable in _in_secrets_file(site):
        return
    raise UsageProblem(
        f"{login.split()[0]} needs a key, and there is none: {variable} is not set, {site.secrets.file} does not have"
        f" it, and nobody ran `{login}` here",
        hint=f"export {variable}, or write {variable}=... into {site.secrets.file} (chmod 600);"
        f" or --set {without}, which needs none",
    )


def _in_secrets_file(site: Site) -> set[str]:
    """Names that the job will take from the secrets file: those that have a value there and are listed in the site."""
    path = user_path(site.secrets.file)
    return _names(text_of(path).splitlines()) & set(site.secrets.names) if is_file(path) else set()


def _names(lines: Iterable[str]) -> set[str]:
    """As ``job.sh`` reads the file: ``KEY=value`` a line, perhaps with ``export`` before it."""
    pairs = (line.partition("=") for line in lines)
    return {key.strip().removeprefix("export ").strip() for key, _, value in pairs if value.strip(" \r'\"")}


def _machines(path: Path) -> Mapping[str, object]:
    """The machines that a netrc file has passwords for, which is where both libraries' ``login`` leaves keys."""
    try:
        found = netrc.netrc(str(path)).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return {}
    return {machine: True for machine, (_, _, password) in found.items() if password}
