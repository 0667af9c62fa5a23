for _download in PLAN.stage("download"):
    rule:
        name: f"download_{_download.facts['dataset']}"
        output: _download.outputs,
        params: cfg=_download.text, folder=f"data/raw/{_download.facts['dataset']}",
        log: f"logs/download/{_download.facts['dataset']}.log",
        retries: 2
        localrule: True
        shell: "python -m dd download --config - --out {params.folder} <<< {params.cfg:q} 2> >(tee {log} >&2)"


rule prepare:
    input: lambda w: job("prepare", w).inputs,
    output: expand("data/prepared/{{dataset}}/{file}", file=["manifest.json", "train.safetensors", "holdout.safetensors", "test.safetensors"]),
    params: cfg=lambda w: job("prepare", w).text, code=lambda w: job("prepare", w).code, raw="data/raw/{dataset}",
    log: "logs/prepare/{dataset}.log",
    shell:
        "python -m dd prepare --config - --name {wildcards.dataset:q} --raw {params.raw:q} --out $(dirname {output[0]:q}) "
        "<<< {params.cfg:q} 2> >(tee {log} >&2)"


rule whiten:
    input: lambda w: job("whiten", w).inputs,
    output: "data/prepared/{dataset}/zca.safetensors",
    params: code=lambda w: job("whiten", w).code,
    log: "logs/whiten/{dataset}.log",
    shell: "python -m dd whiten {DEVICE} {threads} --dataset $(dirname {input[0]:q}) --out {output:q} 2> >(tee {log} >&2)"
