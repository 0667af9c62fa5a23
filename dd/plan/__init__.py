"""From papers, scales and recipes to jobs: what must run, with which configuration, from which files, to which files.

Imports no torch: the workflow reads this for every job.
"""

from dd.plan.job import Cell, Job
from dd.plan.jobs import Plan

__all__ = ["Cell", "Job", "Plan"]
