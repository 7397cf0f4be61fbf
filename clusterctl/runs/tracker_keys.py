"""Keys of trackers, looked for before a job waits a night and then cannot log in. Never read further than needed."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from clusterctl.adapters import secrets_file
from clusterctl.compose import Composed
from clusterctl.errors import UsageProblem
from clusterctl.paths import is_file, user_path
from clusterctl.schema import Site


def check(composed: Composed, site: Site) -> None:
    """Look for the key of every tracker that the run logs in to.

    Raises:
        UsageProblem: one has none, neither as a variable nor in the secrets file nor from its own ``login``.
    """
    tracking = composed.config.tracking
    variables = os.environ | composed.profile.env | site.env
    if "swanlab" in tracking.report_to and tracking.swanlab_mode == "cloud":
        _need("SWANLAB_API_KEY", "swanlab login", logged_in("swanlab", variables), "tracking.swanlab_mode=local", site)
    if "wandb" in tracking.report_to and tracking.wandb_mode == "online":
        _need("WANDB_API_KEY", "wandb login", logged_in("wandb", variables), "tracking.wandb_mode=offline", site)


def logged_in(tracker: str, variables: Mapping[str, str]) -> bool:
    """Whether somebody ran ``swanlab login`` or ``wandb login`` here, or W&B has another way in."""
    if tracker == "swanlab":
        folder = variables.get("SWANLAB_ROOT") or variables.get("SWANLAB_SAVE_DIR") or "~/.swanlab"
        return bool(_machines(user_path(folder) / ".netrc"))
    host = urlsplit(variables.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    known = host in _machines(user_path(variables.get("NETRC") or "~/.netrc"))
    return known or bool(variables.get("WANDB_IDENTITY_TOKEN_FILE"))


def _need(variable: str, login: str, done: bool, without: str, site: Site) -> None:
    if done or os.environ.get(variable) or _in_secrets_file(variable, site):
        return
    raise UsageProblem(
        f"{login.split()[0]} needs a key, and there is none: {variable} is not set, {site.secrets.file} does not have"
        f" it, and nobody ran `{login}` here",
        hint=f"export {variable}, or write {variable}=... into {site.secrets.file} (chmod 600);"
        f" or --set {without}, which needs none",
    )


def _in_secrets_file(variable: str, site: Site) -> bool:
    return is_file(user_path(site.secrets.file)) and variable in secrets_file.keys(site)


def _machines(path: Path) -> Mapping[str, object]:
    """The machines that a netrc file has passwords for, which is where both libraries' ``login`` leaves keys."""
    try:
        found = netrc.netrc(str(path)).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return {}
    return {machine: True for machine, (_, _, password) in found.items() if password}
