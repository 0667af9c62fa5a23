# One job trains a block of experts; what is kept are their parameters after every epoch.
for _seeds, _keys in PLAN.blocks("experts").items():
    rule:
        name: NAMES["experts"][_seeds]
        input: lambda w, s=_seeds: PLAN.block("experts", w.key, s).inputs,
        output: expand("results/experts/{{key}}/expert{seed}.safetensors", seed=_seeds),
        wildcard_constraints: key="|".join(_keys),
        params: **said(lambda w, s=_seeds: PLAN.block("experts", w.key, s)),
        log: f"logs/experts/{{key}}/experts{_seeds[0]}to{_seeds[-1]}.log",
        resources: gpu=GPUS,
        shell: shell_of("experts")
