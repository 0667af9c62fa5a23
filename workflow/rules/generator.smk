# One job trains a generator from one milestone to the next, one measures a milestone that sets rest on.
rule generator:
    input: lambda w: job("generator", w).inputs,
    output: "results/generators/{dataset}/{generator}/{id}/epoch{epoch}.safetensors",
    wildcard_constraints: generator="[a-z0-9_]+",
    params:
        cfg=lambda w: job("generator", w).text, code=lambda w: job("generator", w).code,
        flags=lambda w: PLAN.generator_flags(job("generator", w)),
    log: "logs/generator/{dataset}/{generator}/{id}/epoch{epoch}.log",
    resources: gpu=GPUS,
    shell: "python -m dd generator --config - {params.flags} {DEVICE} {threads} --out {output:q} <<< {params.cfg:q} 2> >(tee {log} >&2)"


rule quality:
    input: lambda w: job("quality", w).inputs,
    output: "results/generators/{dataset}/{generator}/{id}/epoch{epoch}.quality.json",
    wildcard_constraints: generator="[a-z0-9_]+",
    params: cfg=lambda w: job("quality", w).text, code=lambda w: job("quality", w).code,
    log: "logs/quality/{dataset}/{generator}/{id}/epoch{epoch}.log",
    resources: gpu=GPUS,
    shell:
        "python -m dd quality --config - --generator {input[0]:q} --classifier {input[1]:q} --dataset $(dirname {input[2]:q}) "
        "{DEVICE} {threads} --out {output:q} <<< {params.cfg:q} 2> >(tee {log} >&2)"


# Generators that others trained, from the files that config.yaml names.
rule generator_file:
    input: lambda w: job("generator_file", w).inputs,
    output: "results/generators/files/{name}.safetensors",
    wildcard_constraints: name="[a-z0-9_]+",
    params:
        cfg=lambda w: job("generator_file", w).text, code=lambda w: job("generator_file", w).code,
        file=lambda w, input: [f"--file={path}" for path in input],
    log: "logs/generator_file/{name}.log",
    shell: "python -m dd generator_file --config - {params.file:q} --out {output:q} <<< {params.cfg:q} 2> >(tee {log} >&2)"
