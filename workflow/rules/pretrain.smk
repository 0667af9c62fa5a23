# One job trains a block of seeds from one milestone to the next. Blocks differ in length, hence a rule for each list of seeds.
for _seeds, _keys in PLAN.blocks("pretrain").items():
    rule:
        name: f"pretrain_seeds{_seeds[0]}to{_seeds[-1]}"
        input: lambda w, s=_seeds: PLAN.block("pretrain", w.key, s).inputs,
        output: expand("results/pretrained/{{key}}/seed{seed}.safetensors", seed=_seeds),
        wildcard_constraints: key="|".join(_keys),
        params:
            cfg=lambda w, s=_seeds: PLAN.block("pretrain", w.key, s).text, code=lambda w, s=_seeds: PLAN.block("pretrain", w.key, s).code,
            flags=lambda w, s=_seeds: PLAN.block_flags("pretrain", w.key, s),
        log: f"logs/pretrain/{{key}}/seeds{_seeds[0]}to{_seeds[-1]}.log",
        resources: gpu=GPUS,
        shell: "python -m dd pretrain --config - {params.flags} {DEVICE} {threads} --out {output} <<< {params.cfg:q} 2> >(tee {log} >&2)"


# Weights that others trained, from the files that config.yaml names.
rule teacher:
    input: lambda w: job("teacher", w).inputs,
    output: "data/teachers/{name}.safetensors",
    params: cfg=lambda w: job("teacher", w).text, code=lambda w: job("teacher", w).code, file=lambda w, input: [f"--file={path}" for path in input],
    log: "logs/teacher/{name}.log",
    shell: "python -m dd teacher --config - {params.file:q} --out {output:q} <<< {params.cfg:q} 2> >(tee {log} >&2)"
