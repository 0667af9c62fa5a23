# What every compute rule says: which job of the plan this is, its configuration, and the identity of its code.
import shutil

# A job asks for a GPU only where it will use one: otherwise a limit of one GPU would run the jobs of a CPU one after the other.
GPUS = int(SETTINGS.device.startswith("cuda") or (SETTINGS.device == "auto" and shutil.which("nvidia-smi") is not None))
DEVICE = f"--device {SETTINGS.device} --threads"


def job(stage, wildcards):
    try:
        return PLAN.job(stage, wildcards)
    except DDError as error:
        raise WorkflowError(str(error)) from None


wildcard_constraints:
    id="[0-9a-f]{8}",
    distilled="[0-9a-f]{8}",
    dataset="[^/]+",
    network="[a-z0-9_]+",
    protocol="[a-z_]+",
    set="\\d+",
    seed="\\d+",
    epoch="\\d+",
