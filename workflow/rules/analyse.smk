# Networks run over finished sets here and nowhere else; figures read the result.
rule analyse:
    input: lambda w: job("analyse", w).inputs,
    output: "results/analyses/{distilled}/{kind}-{id}/set{set}.safetensors",
    wildcard_constraints: kind="[a-z_]+",
    params: cfg=lambda w: job("analyse", w).text, code=lambda w: job("analyse", w).code, flags=lambda w: PLAN.analyse_flags(job("analyse", w)),
    log: "logs/analyse/{distilled}/{kind}-{id}/set{set}.log",
    resources: gpu=GPUS,
    shell:
        "python -m dd analyse --config - {params.flags} {DEVICE} {threads} --out {output:q} <<< {params.cfg:q} 2> >(tee {log} >&2)"
