# Networks run over finished sets here and nowhere else; figures read the result.
rule analyse:
    input: lambda w: job("analyse", w).inputs,
    output: "results/analyses/{distilled}/{kind}-{id}/set{set}.safetensors",
    wildcard_constraints: kind="[a-z_]+",
    params: cfg=lambda w: job("analyse", w).text, code=lambda w: job("analyse", w).code,
    log: "logs/analyse/{distilled}/{kind}-{id}/set{set}.log",
    resources: gpu=GPUS,
    shell:
        "python -m dd analyse --config - --distilled {input[0]:q} --checkpoint {input[1]:q} --dataset $(dirname {input[2]:q}) "
        "{DEVICE} {threads} --out {output:q} <<< {params.cfg:q} 2> >(tee {log} >&2)"
