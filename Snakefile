# Runs every notebook that has the profile, in parallel, and again only when something it depends on has changed: the
# notebook, its profile, the data, the files of the package that it imports (see runner/sources.py), and the contents of
# weights, images and code that its parameters name, wherever they lie (see runner/outside.py).
#
#   make figures                                      through the Makefile, which makes the environment first
#   snakemake --profile cluster/slurm --config profile=imagenet images=DIR weights=FILE
#
#   make figures PROFILE=imagenet CONFIG="images=DIR weights=FILE shards=8"
#
# Everything in --config except `profile`, `notebooks`, `python` and `shards` goes to each notebook as `-p name value`.
# With `shards`, notebook 06 does not mine its patches: so many runs of notebooks/shards/mine_shard.ipynb do, each for
# a range of the images, side by side or on the nodes of a cluster.

import csv
import glob
import json
import os
import sys

from pathlib import Path

from absence_utils.processes import end_with
from absence_utils.runner.outside import changed_inputs, outside_inputs
from absence_utils.runner.parameters import notebook_parameters, read_profile
from absence_utils.runner.sources import module_sources, notebook_sources

WORKFLOW = os.environ.pop("ABSENCE_WORKFLOW", "")  # no other process that we start shall see it
if WORKFLOW:
    end_with(int(WORKFLOW))  # nothing goes on where `make` was killed, while we started or later

PROFILE = config.get("profile", "default")
PYTHON = config.get("python", sys.executable)
PARAMETERS = {
    name: str(value)
    for name, value in config.items()
    if name not in ("profile", "notebooks", "python", "shards")
}
# For example 04,05; all if empty. Snakemake makes a number of a single 06.
CHOSEN = [number and number.zfill(2) for number in str(config.get("notebooks", "")).split(",")]
SHARDS = str(config.get("shards", 0))
SHARDED, MINE = "06_extreme_patches", "notebooks/shards/mine_shard.ipynb"
# What notebooks read. The reference numbers and the manifest are no part of it: taking a run as reference changes no run.
DATA = [*glob.glob("data/*.safetensors"), *glob.glob("data/rule_networks/*.safetensors"),
        *glob.glob("data/reference/09_benchmark*.csv"),
        *(f"data/measured/{name}.csv" for name in ("green_pixel_seeds", "power", "published_insertion_table"))]


with open("data/measured/notebook_seconds.csv") as file:
    SECONDS = {row["notebook"]: round(float(row["seconds"])) for row in csv.DictReader(file)}


def declared(notebook):
    with open(notebook) as file:
        return json.load(file)["metadata"].get("companion", {})


def products(name, profile):
    """The executed notebook, the three files of each of its figures, and its other files."""
    companion = declared(f"notebooks/{name}.ipynb")
    figures, files = companion.get("figures", []), companion.get("files", [])
    files = [*(f"{figure}{suffix}" for figure in figures for suffix in (".png", ".csv", ".json")), *files]
    return [f"results/{profile}/{file}" for file in [f"{name}.ipynb", *files]]


NAMES = [
    os.path.basename(path).removesuffix(".ipynb")
    for path in sorted(glob.glob("notebooks/[0-9]*.ipynb"))
    if "" in CHOSEN or os.path.basename(path).split("_")[0] in CHOSEN
]
TARGETS = [
    product
    for name in NAMES
    if os.path.exists(f"notebooks/profiles/{name}.{PROFILE}.yaml")
    for product in products(name, PROFILE)
]
if not TARGETS:
    raise WorkflowError(f"no notebook has the profile {PROFILE!r}")
if not SHARDS.isdigit() or int(SHARDS) and f"results/{PROFILE}/{SHARDED}.ipynb" not in TARGETS:
    raise WorkflowError(f"shards={SHARDS}: give a number of shards, in a run that includes {SHARDED}")
SHARDS = int(SHARDS)


def shard_parameters():
    """What of --config the notebook of a shard has: the rest is for the figures."""
    known = notebook_parameters(MINE)
    return [word for name, value in PARAMETERS.items() if name in known for word in ("-p", name, value)]


def outside(notebook):
    """Contents of what the profile and --config name, for a notebook."""
    return outside_inputs(read_profile(Path(notebook), PROFILE) | PARAMETERS)


OUTSIDE = {name: outside(f"notebooks/{name}.ipynb") for name in NAMES if f"results/{PROFILE}/{name}.ipynb" in TARGETS}
ALL_OUTSIDE = {path: content for found in OUTSIDE.values() for path, content in found.items()}


onstart:
    for path in changed_inputs(Path(f"results/{PROFILE}/.inputs.json"), ALL_OUTSIDE):
        print(f"{path} has other contents than in the last run: what was made from it is made again", file=sys.stderr)


rule all:
    input:
        TARGETS,


if SHARDS:

    localrules:
        merge_shards,

    rule mine_shard:
        input:
            notebook=MINE,
            profile="notebooks/shards/profiles/mine_shard.{profile}.yaml",
            sources=notebook_sources(MINE, "."),
            data=DATA,
        output:
            shard="results/{profile}/shards/{shard}-of-{num_shards}/shard.safetensors",
            notebook="results/{profile}/shards/{shard}-of-{num_shards}/mine_shard.ipynb",
        params:
            python=PYTHON,
            extra=shard_parameters(),
            outside=outside(MINE),
        threads: 1
        resources:
            mem_mb=4000,
            runtime=240,
        shell:
            "exec {params.python:q} -m absence_utils.run --end-with $PPID {input.notebook} --profile {wildcards.profile}"
            " -p shard {wildcards.shard} -p num_shards {wildcards.num_shards}"
            ' --out "$(dirname {output.shard:q})" {params.extra:q} >/dev/null'

    rule merge_shards:
        input:
            shards=[f"results/{{profile}}/shards/{n}-of-{SHARDS}/shard.safetensors" for n in range(SHARDS)],
            sources=module_sources(["absence_utils.patches.shards"], "."),
        output:
            "results/{profile}/shards/book.safetensors",
        params:
            python=PYTHON,
        shell:
            "{params.python:q} -m absence_utils.patches.shards --remove-damaged {output:q} {input.shards:q}"


# One rule per notebook rather than one for all, since each notebook makes its own figures. A failed rule's outputs
# are deleted; the notebook with its traceback is none of them and stays in results/PROFILE/failed.
for name in NAMES:

    rule:
        name:
            f"notebook_{name}"
        input:
            notebook=f"notebooks/{name}.ipynb",
            profile=f"notebooks/profiles/{name}.{{profile}}.yaml",
            sources=notebook_sources(f"notebooks/{name}.ipynb", "."),
            data=DATA,
            book=["results/{profile}/shards/book.safetensors"] if SHARDS and name == SHARDED else [],
        output:
            products(name, "{profile}"),
        params:
            python=PYTHON,
            extra=[word for item in PARAMETERS.items() for word in ("-p", *item)],
            outside=OUTSIDE.get(name, {}),
            book=lambda wildcards, input: [word for path in input.book for word in ("-p", "book", path)],
        priority: SECONDS.get(name, 0)  # the longest first: none shall be left alone at the end
        threads: 1  # synthesised pictures differ between thread counts
        resources:
            mem_mb=4000,
            runtime=60,
        shell:
            "exec {params.python:q} -m absence_utils.run --end-with $PPID {input.notebook} --profile {wildcards.profile}"
            ' --out "$(dirname {output[0]:q})" {params.extra:q} {params.book:q} >/dev/null'
