# What every compute rule says: which job of the plan this is, its configuration, and the identity of its code.
GPUS = 0 if SETTINGS.device == "cpu" else 1
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
