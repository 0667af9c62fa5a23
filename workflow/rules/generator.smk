# One job trains a generator from one milestone to the next.
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
