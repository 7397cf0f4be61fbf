"""Keys of trackers and of the hub: whether they are there and can be ones. No key leaves this module."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from clusterctl.adapters import secrets_file
from clusterctl.doctor.check import Check
from clusterctl.errors import UsageProblem
from clusterctl.paths import text_of, user_path
from clusterctl.runs.tracker_keys import logged_in
from clusterctl.schema import Site

_FORMS = {
    # wandb/sdk/lib/wbauth/validation.py: an optional prefix and a dash, then 40 characters or more; or a JWT.
    "WANDB_API_KEY": (r"([^-]*-)?[\w-]{40,}|[\w-]+\.[\w-]+\.[\w-]+", "40 letters, digits and underscores or more"),
    # https://huggingface.co/docs/hub/security-tokens: hf_...; organisations' old ones api_org_...
    "HF_TOKEN": (r"(hf_|api_org_)\w{20,}|[\w-]+\.[\w-]+\.[\w-]+", "hf_ and 20 letters and digits or more"),
    # SwanLab states no form; the keys that it shows are letters and digits, more than 20.
    "SWANLAB_API_KEY": (r"[A-Za-z0-9_.-]{16,}", "letters and digits, 16 or more"),
}
_ANY = (r"[!-~]{8,}", "8 printable characters or more, no blank")


def check_secrets_file(site: Site) -> Iterator[Check]:
    """The file's mode: a job refuses one that others can read."""
    path = user_path(site.secrets.file)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        yield Check("secrets file", "skipped", f"there is no {site.secrets.file}", "none, where keys are exported")
        return
    except OSError as e:
        yield Check("secrets file", "fail", f"{path}: {e.strerror}", "correct the permissions of the folders above it")
        return
    if mode not in (0o600, 0o400):
        evidence = f"{path} has mode {mode:04o}: jobs refuse to read it"
        yield Check("secrets file", "fail", evidence, f"chmod 600 {path}")
        return
    try:
        text_of(path)
    except UsageProblem as e:
        yield Check("secrets file", "fail", e.message, e.hint)
        return
    yield Check("secrets file", "ok", f"{path} has mode {mode:04o}")


def check_keys(site: Site) -> Iterator[Check]:
    """Each key that the site lists: present where its tracker needs it, and of the form that its service gives out."""
    known, needed = _values(site), _needed(site.tracking)
    for name in site.secrets.names:
        value, login = known.get(name), needed.get(name)
        if value is not None:
            pattern, form = _FORMS.get(name, _ANY)
            if re.fullmatch(pattern, value):
                yield Check(name, "ok", "is set, and has the form of one")
            else:
                # Its length tells a truncated key from a wrong one, and nobody the key.
                evidence = f"is set, but is none: {len(value)} characters; expected are {form}"
                yield Check(name, "fail" if login else "warn", evidence, _remedy(name, site))
        elif login and not logged_in(login, os.environ | site.env):
            evidence = f"is not set, nobody ran `{login} login` here, and `tracking` of the site file needs it"
            yield Check(name, "fail", evidence, _remedy(name, site))
        elif login:
            yield Check(name, "ok", f"is not set; `{login} login` was done here")
        else:
            yield Check(name, "skipped", "is not set, and the site file needs none", "none, unless a recipe logs in")


def _remedy(name: str, site: Site) -> str:
    return f"write {name}=... into {site.secrets.file} (chmod 600), or export it"


def _needed(tracking: Mapping[str, Any]) -> dict[str, str]:
    """The keys without which the site's trackers cannot log in, and whose ``login`` serves as well."""
    named = tracking.get("report_to") or []
    report_to = [named] if isinstance(named, str) else list(named)
    needed = {}
    if "swanlab" in report_to and tracking.get("swanlab_mode", "local") == "cloud":
        needed["SWANLAB_API_KEY"] = "swanlab"
    if "wandb" in report_to and tracking.get("wandb_mode", "online") == "online":
        needed["WANDB_API_KEY"] = "wandb"
    return needed


def _values(site: Site) -> dict[str, str]:
    """The keys as a job would have them: from the environment, else from the file."""
    try:
        found = secrets_file.keys(site)
    except UsageProblem:  # check_secrets_file says why
        found = {}
    return found | {name: os.environ[name] for name in site.secrets.names if os.environ.get(name)}
