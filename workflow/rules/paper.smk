# Every table and figure of a paper, and a target of the paper's name: `snakemake extractors`.
for _paper, _job in PLAN.paper_jobs().items():
    rule:
        name: NAMES["draw"][_paper]
        input: _job.inputs,
        output: _job.outputs,
        params: config=_job.text, code=PLAN.code_of(_job), args=shlex.join(arguments(_job)), cfg=PLAN.drawing_settings([_paper]),
        log: f"logs/artifact/{SETTINGS.scale}/{_paper}.log",
        shell: shell_of("artifact")

    rule:
        name: _paper
        input: _job.outputs,
