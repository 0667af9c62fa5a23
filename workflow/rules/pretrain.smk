# One job trains a block of seeds from one milestone to the next. Blocks differ in length, hence a rule for each list of seeds.
for _seeds, _keys in PLAN.blocks("pretrain").items():
    rule:
        name: NAMES["pretrain"][_seeds]
        input: lambda w, s=_seeds: PLAN.block("pretrain", w.key, s).inputs,
        output: expand("results/pretrained/{{key}}/seed{seed}.safetensors", seed=_seeds),
        wildcard_constraints: key="|".join(_keys),
        params: **said(lambda w, s=_seeds: PLAN.block("pretrain", w.key, s)),
        log: f"logs/pretrain/{{key}}/seeds{_seeds[0]}to{_seeds[-1]}.log",
        resources: gpu=GPUS,
        shell: shell_of("pretrain")


# Weights that others trained, from the files that config.yaml names.
rule teacher:
    input: lambda w: job("teacher", w).inputs,
    output: "data/teachers/{name}.safetensors",
    params: **said(lambda w: job("teacher", w)),
    log: "logs/teacher/{name}.log",
    shell: shell_of("teacher")
