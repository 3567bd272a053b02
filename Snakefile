# Runs every notebook that has the profile, in parallel, and again only when something it depends on has changed.
#
#   make figures                                      through the Makefile, which makes the environment first
#   snakemake --profile cluster/slurm --config profile=imagenet images=DIR weights=FILE
#
# Everything in --config except `profile`, `notebooks` and `python` goes to each notebook as `-p name value`.

import glob
import json
import os
import sys

PROFILE = config.get("profile", "default")
PYTHON = config.get("python", sys.executable)
PARAMETERS = {
    name: str(value)
    for name, value in config.items()
    if name not in ("profile", "notebooks", "python")
}
CHOSEN = str(config.get("notebooks", "")).split(",")  # for example 04,05; all if empty
SOURCES = glob.glob("absence_utils/**/*.py", recursive=True)
DATA = [path for path in glob.glob("data/*") if not path.endswith((".py", ".md"))]


def declared_figures(notebook):
    with open(notebook) as file:
        return json.load(file)["metadata"].get("companion", {}).get("figures", [])


def products(name, profile):
    """The executed notebook and the three files of each of its figures."""
    figures = declared_figures(f"notebooks/{name}.ipynb")
    files = [f"{figure}{suffix}" for figure in figures for suffix in (".png", ".csv", ".json")]
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


rule all:
    input:
        TARGETS,


# One rule per notebook rather than one for all, since each notebook makes its own figures. A failed rule's outputs
# are deleted; the notebook with its traceback is none of them and stays in results/PROFILE/failed.
for name in NAMES:

    rule:
        name:
            f"notebook_{name}"
        input:
            notebook=f"notebooks/{name}.ipynb",
            profile=f"notebooks/profiles/{name}.{{profile}}.yaml",
            sources=SOURCES,
            data=DATA,
        output:
            products(name, "{profile}"),
        params:
            python=PYTHON,
            extra=[word for item in PARAMETERS.items() for word in ("-p", *item)],
        threads: 1  # synthesised pictures differ between thread counts
        resources:
            mem_mb=4000,
            runtime=60,
        shell:
            "{params.python:q} -m absence_utils.run {input.notebook} --profile {wildcards.profile}"
            ' --out "$(dirname {output[0]:q})" {params.extra:q} >/dev/null'
