# Distillery: from raw download to the figures of papers. `snakemake` makes the papers that config.yaml lists, at its scale.
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from dd.config import parse as read_config  # `parse` is a name of Snakemake's own
from dd.errors import DDError
from dd.plan import Plan
from dd.plan.papers import Settings

min_version("9.27")
configfile: "config.yaml"
resource_scopes: gpu="local"

try:
    SETTINGS = read_config(Settings, config, "config.yaml")
    PLAN = Plan(SETTINGS, Path("workflow"))
except DDError as error:
    raise WorkflowError(str(error)) from None

include: "workflow/rules/common.smk"

rule all:
    input:
        [f"results/papers/{SETTINGS.scale}/{paper}/claims.json" for paper in SETTINGS.papers],
    output: "results/report.html", "results/index.csv",
    params: settings=PLAN.drawing_settings(SETTINGS.papers), code=PLAN.code(["dd.figures.report", "dd.plan.summary"]),
    log: "logs/report.log",
    shell: "python -m dd report --config - --out {output[0]} <<< {params.settings:q} 2> >(tee {log} >&2)"

include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/generator.smk"
include: "workflow/rules/experts.smk"
include: "workflow/rules/distill.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/paper.smk"
