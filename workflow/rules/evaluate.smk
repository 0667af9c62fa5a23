# One job judges one set: one network, one protocol, one block of nets.
rule evaluate:
    input: lambda w: job("evaluate", w).inputs,
    output: "results/scores/{distilled}/{network}-{protocol}-{id}/set{set}-nets{first}-{last}.json",
    wildcard_constraints: first="\\d+", last="\\d+",
    params: cfg=lambda w: job("evaluate", w).text, code=lambda w: job("evaluate", w).code, flags=lambda w: PLAN.evaluate_flags(job("evaluate", w)),
    log: "logs/evaluate/{distilled}/{network}-{protocol}-{id}/set{set}-nets{first}-{last}.log",
    resources: gpu=GPUS,
    shell:
        "python -m dd evaluate --config - --dataset $(dirname {input[1]:q}) --distilled {input[0]:q} --set {wildcards.set} "
        "--nets {wildcards.first} {wildcards.last} {params.flags} {DEVICE} {threads} --out {output:q} <<< {params.cfg:q} 2> >(tee {log} >&2)"


# A value that is chosen from results: those who take it wait for this file.
rule choose:
    input: lambda w: job("choose", w).inputs,
    output: "results/choices/{id}.json",
    params: cfg=lambda w: job("choose", w).text, code=lambda w: job("choose", w).code,
    log: "logs/choose/{id}.log",
    shell: "python -m dd choose --config - --out {output:q} <<< {params.cfg:q} 2> >(tee {log} >&2)"
