# One job makes one set. Configurations publish different lists of steps, hence a rule for each list.
for _steps, _ids in PLAN.step_lists().items():
    rule:
        name: "distill" + "".join(f"_{step}" for step in _steps)
        input: lambda w: job("distill", w).inputs,
        output:
            expand("results/distilled/{{dataset}}/{{method}}/ipc{{ipc}}-{{id}}/seed{{seed}}/{file}",
                   file=["distilled.safetensors", "config.json", "curve.csv", "grid.png", *(f"steps/{step}.safetensors" for step in _steps)]),
        wildcard_constraints: id="|".join(_ids), ipc="\\d+", method="[a-z0-9_]+",
        params: cfg=lambda w: job("distill", w).text, code=lambda w: job("distill", w).code, flags=lambda w: PLAN.distill_flags(job("distill", w)),
        log: "logs/distill/{dataset}/{method}/ipc{ipc}-{id}/seed{seed}.log",
        resources: gpu=GPUS,
        shell: "python -m dd distill --config - {params.flags} {DEVICE} {threads} --out $(dirname {output[0]:q}) <<< {params.cfg:q} 2> >(tee {log} >&2)"
