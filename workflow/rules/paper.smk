# Every table and figure of a paper, and a target of the paper's name: `snakemake extractors`.
for _paper, _job in PLAN.paper_jobs().items():
    rule:
        name: f"draw_{_paper}"
        input: _job.inputs,
        output: _job.outputs,
        params: cfg=_job.text, code=_job.code, settings=PLAN.drawing_settings([_paper]), paper=_paper,
        log: f"logs/artifact/{SETTINGS.scale}/{_paper}.log",
        shell: "python -m dd artifact --config - --paper {params.paper} --out $(dirname {output[0]:q}) <<< {params.settings:q} 2> >(tee {log} >&2)"

    rule:
        name: _paper
        input: _job.outputs,
