"""The file with keys that the site names, read as ``job.sh`` reads it. What is in it is never shown."""

from __future__ import annotations

from clusterctl.paths import text_of, user_path
from clusterctl.schema import Site


def pairs(site: Site) -> list[tuple[str, str]]:
    """The ``KEY=value`` lines, perhaps with ``export`` before them and quotes around the value.

    Raises:
        UsageProblem: the file is not there, cannot be read, or is no text.
    """
    found = []
    for line in text_of(user_path(site.secrets.file)).split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            found.append((key.strip().removeprefix("export "), _unquoted(value)))
    return found


def keys(site: Site) -> dict[str, str]:
    """What jobs take from it: of each name that the site lists the first line that has a value.

    Raises:
        UsageProblem: as ``pairs``.
    """
    wanted = set(site.secrets.names)
    return {key: value for key, value in reversed(pairs(site)) if key in wanted and value}


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
