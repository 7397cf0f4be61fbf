"""clusterctl: plan, submit, watch and resume language-model fine-tuning on Slurm or one GPU server."""

__version__ = "0.1.0"
