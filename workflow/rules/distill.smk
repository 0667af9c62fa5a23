# One job makes one set. Configurations publish different lists of steps, hence a rule for each list.
for _steps, _ids in PLAN.step_lists().items():
    rule:
        name: NAMES["distill"][_steps]
        input: lambda w: job("distill", w).inputs,
        output:
            expand("results/distilled/{{dataset}}/{{method}}/ipc{{ipc}}-{{id}}/seed{{seed}}/{file}",
                   file=["distilled.safetensors", "config.json", "curve.csv", "grid.png", *(f"steps/{step}.safetensors" for step in _steps)]),
        wildcard_constraints: id="|".join(_ids), ipc="\\d+", method="[a-z0-9_]+",
        params: **said(lambda w: job("distill", w)),
        log: "logs/distill/{dataset}/{method}/ipc{ipc}-{id}/seed{seed}.log",
        resources: gpu=GPUS,
        shell: shell_of("distill")
