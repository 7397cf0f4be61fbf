"""Where log lines go: the first process to standard output and ``training.log``, others only warnings."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path


def set_up(run_dir: Path, *, first: bool) -> None:
    """Set up logging of this process, for our packages and for transformers' own."""
    line = logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if first:
        handlers.append(logging.FileHandler(run_dir / "training.log", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(line)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("trainers").setLevel(logging.INFO if first else logging.WARNING)
    # It tells of every layer in every step that bf16 goes through fp16 on its way to int8.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # A full disk must not drown the one line that says so in tracebacks of the log file.
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    # Libraries tell each other what they will rename; the reader of a job's output can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning)


def adopt_transformers() -> None:
    """Send what transformers says through our handlers. After it is imported."""
    # No progress bars in the output of a job, neither tqdm's own nor those of datasets.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as theirs

    theirs.disable_default_handler()
    theirs.enable_propagation()
    theirs.disable_progress_bar()
    theirs.set_verbosity_warning()
