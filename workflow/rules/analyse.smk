# Networks run over finished sets here and nowhere else; figures read the result.
rule analyse:
    input: lambda w: job("analyse", w).inputs,
    output: "results/analyses/{distilled}/{kind}-{id}/set{set}.safetensors",
    wildcard_constraints: kind="[a-z_]+",
    params: **said(lambda w: job("analyse", w)),
    log: "logs/analyse/{distilled}/{kind}-{id}/set{set}.log",
    resources: gpu=GPUS,
    shell: shell_of("analyse")
