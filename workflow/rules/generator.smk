# One job trains a generator from one milestone to the next, one measures a milestone that sets rest on.
rule generator:
    input: lambda w: job("generator", w).inputs,
    output: "results/generators/{dataset}/{generator}/{id}/epoch{epoch}.safetensors",
    wildcard_constraints: generator="[a-z0-9_]+",
    params: **said(lambda w: job("generator", w)),
    log: "logs/generator/{dataset}/{generator}/{id}/epoch{epoch}.log",
    resources: gpu=GPUS,
    shell: shell_of("generator")


rule quality:
    input: lambda w: job("quality", w).inputs,
    output: "results/generators/{dataset}/{generator}/{id}/epoch{epoch}.quality.json",
    wildcard_constraints: generator="[a-z0-9_]+",
    params: **said(lambda w: job("quality", w)),
    log: "logs/quality/{dataset}/{generator}/{id}/epoch{epoch}.log",
    resources: gpu=GPUS,
    shell: shell_of("quality")


# Generators that others trained, from the files that config.yaml names.
rule generator_file:
    input: lambda w: job("generator_file", w).inputs,
    output: "results/generators/files/{name}.safetensors",
    wildcard_constraints: name="[a-z0-9_]+",
    params: **said(lambda w: job("generator_file", w)),
    log: "logs/generator_file/{name}.log",
    shell: shell_of("generator_file")
