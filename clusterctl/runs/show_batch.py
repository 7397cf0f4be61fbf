"""The rows of a draft as the model would get them: asked of ``trainers.show``, in the Python that the job would have.

Tokenised rows are left where the run looks for them; nothing else is written.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from clusterctl import assets, render, yaml_text
from clusterctl.adapters import process
from clusterctl.errors import ClusterctlError, Unavailable, UsageProblem
from clusterctl.paths import is_dir
from clusterctl.runs.draft import Draft

_LONGEST = 3600
"""Seconds that tokenising may take."""


def show_batch(draft: Draft, root: Path, samples: int) -> dict[str, Any]:
    """What ``trainers.show`` answers about a draft, from the Python that the job would have.

    Raises:
        UsageProblem: the rows cannot be tokenised.
        Unavailable: the job's Python cannot be used here.
    """
    config = draft.composed.config
    model = Path(config.model.model_name_or_path)
    if model.is_absolute() and not is_dir(model):
        return {"notes": [f"{model} is made by the run before: its rows are shown when that has ended"]}
    values = config.model_dump(mode="json")
    # Where the run is going to look for them.
    values["data"]["cache_dir"] = config.data.cache_dir or str(root / ".tokenised")
    script = render.render(draft.plan, assets.find("job_templates", "show.sh").path)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run.yaml"
        run.write_text(yaml_text.dump(values), encoding="utf-8")
        argv = ["bash", "-c", script, "show", str(run), str(samples)]
        done = process.run(argv, timeout=_LONGEST, env=os.environ)
    return _answer(done)


def _answer(done: process.Finished) -> dict[str, Any]:
    """The last line, which is JSON. Raises ClusterctlError for everything else."""
    lines = done.stdout.strip().splitlines()
    try:
        said = json.loads(lines[-1])
    except (IndexError, ValueError):
        words = done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"]
        kind: type[ClusterctlError] = Unavailable
        raise kind(
            f"the rows cannot be shown here: {words[0] if done.returncode == 3 else words[-1]}",
            hint=words[1] if done.returncode == 3 and len(words) > 1 else "look at `environment` in the site file",
        ) from None
    if error := said.get("error"):
        raise UsageProblem(error["message"], hint=error["hint"])
    return dict(said)
