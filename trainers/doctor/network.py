"""The model hub or its mirror, as a job reaches it."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from trainers.doctor.check import Asked, Check
from trainers.doctor.files import hf_home, offline

PATIENCE = 8.0
"""Seconds for the hub's answer."""

HUB = "https://huggingface.co"


def check_hub(asked: Asked) -> Iterator[Check]:
    """Ask the hub for something small; offline, count what the cache holds.

    A mirror that the site names and that does not answer is a failure. The public hub is out of reach of many compute
    nodes, which is one only for models that are not cached: a warning.
    """
    # A password in the address is nobody's business, and urllib cannot use it.
    endpoint = re.sub(r"//[^/]*@", "//", os.environ.get("HF_ENDPOINT", "")).rstrip("/")
    cached = cached_models()
    held = f"{cached} model{'' if cached == 1 else 's'} in the cache"
    if offline():
        if cached:
            yield Check("hub", "ok", f"offline, {held}")
        else:
            remedy = "load models where the hub is in reach: HF_HUB_OFFLINE=0 hf download MODEL"
            yield Check("hub", "warn", f"offline, and {held}: only models named by a path can be trained", remedy)
        return
    problem = unreachable(endpoint or HUB)
    if problem is None:
        yield Check("hub", "ok", f"{endpoint or HUB} answers; {held}")
    elif endpoint:
        remedy = "correct `hugging_face.endpoint` in clusterctl.yaml, or the proxy (HTTPS_PROXY)"
        yield Check("hub", "fail", f"{endpoint} does not answer: {problem}", remedy)
    else:
        remedy = "name a mirror (`hugging_face.endpoint` in clusterctl.yaml), or set `hugging_face.offline: true`"
        yield Check("hub", "warn", f"{HUB} does not answer: {problem}; {held}", remedy)


def unreachable(endpoint: str) -> str | None:
    """Why nobody answers there; None when somebody does."""
    if not endpoint.startswith(("http://", "https://")):
        return "it is no http address"
    try:
        # Without a name of its own, urllib is turned away by some hubs.
        headers = {"User-Agent": "clusterctl"}
        request = urllib.request.Request(f"{endpoint}/api/models?limit=1", headers=headers)  # noqa: S310 - as above
        with urllib.request.urlopen(request, timeout=PATIENCE):  # noqa: S310
            return None
    except urllib.error.HTTPError as e:
        # 401, 403, 404: somebody is there, who keeps this page from us.
        # 407: a proxy that wants a password.
        return f"it answers {e.code} {e.reason}" if e.code >= 500 or e.code == 407 else None
    except (OSError, ValueError, http.client.HTTPException) as e:
        reason = getattr(e, "reason", None) or e
        return str(getattr(reason, "strerror", None) or reason)


def cached_models() -> int:
    """Models in the hub's cache (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), whole or not."""
    cache = Path(os.environ.get("HF_HUB_CACHE") or hf_home() / "hub").expanduser()
    try:
        return len({path.parents[1] for path in cache.glob("models--*/snapshots/*")})
    except OSError:
        return 0
