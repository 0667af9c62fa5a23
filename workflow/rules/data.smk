for _download in PLAN.stage("download"):
    rule:
        name: NAMES["download"][_download.facts["dataset"]]
        output: _download.outputs,
        params: cfg=_download.text, args=shlex.join(arguments(_download)),
        log: f"logs/download/{_download.facts['dataset']}.log",
        localrule: True
        shell: shell_of("download")


rule prepare:
    input: lambda w: job("prepare", w).inputs,
    output: expand("data/prepared/{{dataset}}/{file}", file=["manifest.json", "train.safetensors", "holdout.safetensors", "test.safetensors"]),
    params: **said(lambda w: job("prepare", w)),
    log: "logs/prepare/{dataset}.log",
    shell: shell_of("prepare")


rule whiten:
    input: lambda w: job("whiten", w).inputs,
    output: "data/prepared/{dataset}/zca.safetensors",
    params: **said(lambda w: job("whiten", w)),
    log: "logs/whiten/{dataset}.log",
    shell: shell_of("whiten")


# All that the listed papers take from outside, ready to be used: what must be done where there is a network.
rule data:
    input: lambda w: [path for one in PLAN.of(SETTINGS.papers) if one.stage in OUTSIDE for path in one.outputs],
