# Runs the benchmark on all networks side by side, each two to four minutes of one core: make benchmark
#
# What is there is not run again; `rm data/parts/*.csv` starts anew.

import sys

from absence_utils.benchmark.rule_networks import NAMES, part_name

PARTS = {part_name(name): name for name in NAMES}


rule all:
    input:
        expand("data/parts/truth-{part}.csv", part=PARTS),
    params:
        python=sys.executable,
    shell:
        "{params.python:q} data/make_benchmark_reference.py"


rule run:
    output:
        "data/parts/answers-{part}.csv",
        "data/parts/findings-{part}.csv",
        "data/parts/truth-{part}.csv",
    params:
        python=sys.executable,
        name=lambda wildcards: PARTS[wildcards.part],
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    shell:
        "{params.python:q} data/make_benchmark_reference.py --only {params.name:q}"
