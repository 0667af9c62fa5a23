# Distillery: from raw download to the figures of papers. `snakemake` makes the papers that config.yaml lists, at its scale.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from dd.config import load_yaml
from dd.config import parse as read_config  # `parse` is a name of Snakemake's own
from dd.errors import DDError
from dd.plan import Plan
from dd.plan.code import write_codes
from dd.plan.papers import Settings
from dd.plan.pulled import demand
from dd.slurm.preflight import absent_files
from dd.slurm.start import start
from dd.warm.start import offer

min_version("9.27")

try:  # first by our own reader: Snakemake's takes a key written twice, and runs Python in values where a key `__use_yte__` says so
    if "__use_yte__" in load_yaml("config.yaml"):
        raise DDError("config.yaml: __use_yte__: unknown key; values are never run as Python here")
except DDError as error:
    raise WorkflowError(str(error)) from None

configfile: "config.yaml"
resource_scopes: gpu="local"

try:
    SETTINGS = read_config(Settings, config, "config.yaml")
    PLAN = Plan(SETTINGS, Path("workflow"))
    REPORT = PLAN.report(SETTINGS.papers)
    if workflow.is_main_process and (absent := absent_files(PLAN)):
        raise DDError("\n".join(absent))
    if workflow.is_main_process and not {"-t", "--touch"} & set(sys.argv):  # which says that what is here is good
        demand((), [path for one in PLAN.jobs.values() for path in one.outputs])  # a dry run says it too
except DDError as error:
    raise WorkflowError(str(error)) from None

onstart:  # of a run that has something to do, in its head process only
    _files = [str(path) for job in workflow.dag.needrun_jobs() for path in job.output]
    try:
        if not workflow.touch:
            demand(_files)
        start(workflow, PLAN)
        write_codes([REPORT, *(PLAN.jobs[path] for path in _files if path in PLAN.jobs)])
        offer(workflow)
    except DDError as error:
        raise WorkflowError(str(error)) from None

include: "workflow/rules/common.smk"

rule all:
    input: REPORT.inputs,
    output: REPORT.outputs,
    params: cfg=PLAN.drawing_settings(SETTINGS.papers), code=PLAN.code_of(REPORT), args=shlex.join(arguments(REPORT)),
    log: "logs/report.log",
    shell: shell_of("report")

# What DVC records: also what finished results no longer need, such as experts.
rule everything:
    input: rules.all.output, lambda w: [path for one in PLAN.of(SETTINGS.papers) if one.stage != "download" for path in one.outputs],

include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/generator.smk"
include: "workflow/rules/experts.smk"
include: "workflow/rules/distill.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/paper.smk"
