"""Several runs one after the other in the same processes, so that the libraries are loaded once:

torchrun ... -m tests.train.driver CODES.json RUN.yaml ...

The exit code of each run goes into CODES.json. Each run believes that it is alone: what one leaves in the
environment is taken away, and the connections between the processes stay for the next.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from accelerate.state import DistributedType, PartialState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from trainers.__main__ import main
from trainers.runtime import fsdp


def run_all(codes: Path, runs: list[str]) -> None:
    """Do the runs in order. A ``stop`` beside run.yaml is taken away once it was obeyed, as the guard does."""
    dist.destroy_process_group = lambda *group: None  # type: ignore[assignment]
    _let_fsdp_run_on_cpus()
    before = dict(os.environ)
    ended = []
    for run in runs:
        ended.append(main([run]))
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
        if ended[-1] not in (0, 85):
            sys.exit(ended[-1])  # the other process may wait for this one
        unset_hf_deepspeed_config()  # one of ZeRO-3 that is alive changes how models are loaded
        gc.collect()
        together = dist.is_initialized()
        if together:
            dist.barrier()
        if not together or dist.get_rank() == 0:
            (Path(run).parent / "stop").unlink(missing_ok=True)
            codes.write_text(json.dumps(ended), encoding="utf-8")
        if together:
            dist.barrier()


def _let_fsdp_run_on_cpus() -> None:
    """PyTorch's FSDP works on CPUs; accelerate makes DDP of it there, and the trainer refuses for that reason.

    Without the two refusals all the rest is what runs on GPUs, but for the transport.
    """
    begin, start = PartialState.__init__, fsdp.start

    def as_if_gpus(self: PartialState, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if os.environ.get("ACCELERATE_USE_FSDP") == "true" and self.distributed_type is DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = as_if_gpus
    fsdp.start = lambda config, run_dir, device: start(config, run_dir, "cuda")


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), sys.argv[2:])
