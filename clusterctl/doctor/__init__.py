"""Checks of what surrounds a job: here by the standard library and our adapters, on the node by ``trainers.doctor``.

Each check is a small function that returns Checks. One that cannot be made is ``unknown`` or ``skipped``, never ok.
"""
