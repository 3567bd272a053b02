# Trains the benchmark's networks on random rules side by side, each a minute or two of one core: make networks
#
# A network that is there is not trained again; `rm data/parts/*` starts anew.

import sys

from absence_utils.benchmark.rule_networks import detector_names, network_names, part_name

EVERY = [*network_names(), *network_names(twins=True), *detector_names()]
NAMES = {part_name(name): name for name in EVERY}


rule all:
    input:
        expand("data/parts/{part}.safetensors", part=NAMES),
    params:
        python=sys.executable,
    shell:
        "{params.python:q} data/make_rule_networks.py"


rule train:
    output:
        "data/parts/{part}.safetensors",
    params:
        python=sys.executable,
        name=lambda wildcards: NAMES[wildcards.part],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    shell:
        "{params.python:q} data/make_rule_networks.py --only {params.name:q}"
