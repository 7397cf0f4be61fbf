"""``python -m trainers.doctor ASKED.json``: what this machine can do for a training job, found out by trying.

``clusterctl doctor`` runs it with the job's Python, here or in a job. Each check is a small function that returns
Checks, and each Check one line of JSON. Only ``training`` and ``group`` import more than the standard library, since
an environment in which PyTorch is missing is what has to be found.
"""
