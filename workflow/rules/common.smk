# What every compute rule says: which job of the plan this is, its configuration, the identity of its code, and its command.
import shlex
import shutil

from dd.plan.command import arguments
from dd.plan.command import shell as shell_of  # `shell` is a name of Snakemake's own
from dd.stopping import MARGIN

# A job asks for a GPU only where it will use one: otherwise a limit of one GPU would run the jobs of a CPU one after the other.
GPUS = int(SETTINGS.device.startswith("cuda") or (SETTINGS.device == "auto" and shutil.which("nvidia-smi") is not None))
DEVICE = SETTINGS.device
OUTSIDE = ("prepare", "whiten", "teacher", "generator_file")  # stages that make what others made ready for use


def job(stage, wildcards):
    try:
        return PLAN.job(stage, wildcards)
    except DDError as error:
        raise WorkflowError(str(error)) from None


def stop_after(wildcards, resources):
    """A limit of the scheduler's, in minutes, as one of the job's own. Snakemake does not record what it makes of resources: no rerun."""
    minutes = resources.get("runtime")
    return f"--stop-after {max(60 * minutes - MARGIN, 30 * minutes)}" if isinstance(minutes, int) else ""


def said(find):
    """The params of a rule whose job `find` returns for wildcards. All but `stop` are recorded: a change runs the job again."""
    return {
        "cfg": lambda w: find(w).text, "code": lambda w: PLAN.code_of(find(w)), "args": lambda w: shlex.join(arguments(find(w))),
        "stop": stop_after,
    }


# Stages with several rules, by what tells these apart. A profile names stages (`set-resources: {distill: ...}`): so their rules take it over.
NAMES = {
    "download": {found.facts["dataset"]: f"download_{found.facts['dataset']}" for found in PLAN.stage("download")},
    "pretrain": {seeds: f"pretrain_seeds{seeds[0]}to{seeds[-1]}" for seeds in PLAN.blocks("pretrain")},
    "experts": {seeds: f"experts{seeds[0]}to{seeds[-1]}" for seeds in PLAN.blocks("experts")},
    "distill": {steps: "distill" + "".join(f"_{step}" for step in steps) for steps in PLAN.step_lists()},
    "draw": {paper: f"draw_{paper}" for paper in PLAN.paper_jobs()},
}
for _given in (workflow.resource_settings.overwrite_resources, workflow.resource_settings.overwrite_threads):
    for _stage, _names in NAMES.items():
        if _stage in _given:
            _given.update({_name: _given[_stage] for _name in _names.values() if _name not in _given})


wildcard_constraints:
    id="[0-9a-f]{8}",
    distilled="[0-9a-f]{8}",
    dataset="[^/]+",
    network="[a-z0-9_]+",
    protocol="[a-z0-9_]+",
    set="\\d+",
    seed="\\d+",
    epoch="\\d+",
