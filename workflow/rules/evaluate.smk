# One job judges one set: one network, one protocol, one block of nets.
rule evaluate:
    input: lambda w: job("evaluate", w).inputs,
    output: "results/scores/{distilled}/{network}-{protocol}-{id}/set{set}-nets{first}-{last}.json",
    wildcard_constraints: first="\\d+", last="\\d+",
    params: **said(lambda w: job("evaluate", w)),
    log: "logs/evaluate/{distilled}/{network}-{protocol}-{id}/set{set}-nets{first}-{last}.log",
    resources: gpu=GPUS,
    shell: shell_of("evaluate")


# A value that is chosen from results: those who take it wait for this file. It takes a second: not worth a place in a queue.
rule choose:
    input: lambda w: job("choose", w).inputs,
    output: "results/choices/{id}.json",
    params: **said(lambda w: job("choose", w)),
    log: "logs/choose/{id}.log",
    localrule: True
    shell: shell_of("choose")
