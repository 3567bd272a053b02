"""Sphinx's settings. `build.py` puts the source folder together: these pages, with notebooks, tables and pictures."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))  # for what stands beside this file
from notebook_pages import REPOSITORY  # noqa: E402

project = "What is missing?"
author = "The authors of the companion"
copyright = "the authors of the companion, MIT licence"
html_title = "What is missing?"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "article",
]
exclude_patterns = ["results", "static", "data", "_templates"]  # files that pages link to
suppress_warnings = [
    "mystnb.unknown_mime_type"
]  # outputs in several formats: one that can be shown is enough

# Notebooks come executed, or are shown as they are stored.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}  # widgets would be loaded from another host; `notebook_pages` leaves their fallback
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
# {{ lesions }} in a page is the row `lesions` of this table: measured numbers in sentences are not typed.
_measured = pd.read_csv(ROOT / "data" / "measured" / "numbers.csv")
myst_substitutions = {
    name: f"{value:,g}" for name, value in zip(_measured.name, _measured.value, strict=True)
}

# One file of MathJax 3 with its fonts inside; the menu is off, since what it offers would be loaded from elsewhere.
_mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"
mathjax_path = _mathjax.name
mathjax3_config = {"options": {"enableMenu": False}}

default_role = "py:obj"  # a name in backticks is a link where something is documented by that name, else code
templates_path = ["_templates"]
autosummary_imported_members = True  # what a package gives on from its files
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False  # there are none, and looking for them reads every source once more
autodoc_inherit_docstrings = False  # torch documents every forward in its own way
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
maximum_signature_line_length = 76
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_context = {"default_mode": "auto"}  # light or dark as the reader's system asks
html_theme = "sphinx_book_theme"
html_static_path = ["_static", str(_mathjax)]
html_css_files = ["companion.css"]
html_show_search_summary = False  # summaries are fetched, which no browser allows from the file system
html_show_sphinx = False
html_use_index = False  # the reference has its own order, and the search
html_domain_indices = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_persistent": [],  # its search button: there is one above the navigation
    "home_page_in_toc": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "footer_content_items": ["copyright.html"],
    "use_fullscreen_button": False,
    "use_download_button": False,
    "search_bar_text": "Search",
    "toc_title": "On this page",
}


def launch_options(repository: str) -> dict:
    """The theme's options for buttons that open a lesson elsewhere; none without an address."""
    if not repository:
        return {}
    return {
        "repository_url": repository,
        "repository_branch": "main",
        "use_repository_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }


html_theme_options |= launch_options(REPOSITORY)

# Docstrings are read as plain text, too: [batch, *space] and |x| are no markup there, and `Unit`s is a name.
_MARKS = re.compile(
    r"(?P<code>`+.+?`+)(?P<after>\w?)|(?P<kept>^ *\* |(?<![\w*])\*[^\W_](?:[^*]*\w)?\*(?![\w*]))|[*|\\]|(?<=\w)_(?!\w)"
)


def escape_marks(app, what, name, obj, options, lines):
    """Escape in a docstring what reStructuredText would take for markup, outside of code and examples."""

    def escaped(mark: re.Match) -> str:
        if mark["code"]:
            return mark["code"] + ("\\ " + mark["after"] if mark["after"] else "")
        return mark["kept"] or f"\\{mark[0]}"

    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>> ", "... ")):
            lines[number] = _MARKS.sub(escaped, line)


def find_by_last_name(app, env, node, contnode):
    """A name from another package, such as `Unit`: linked if only one module, class or function is called so."""
    name = node.get("reftarget", "").rsplit(".", 1)[-1]
    kinds = ("module", "class", "exception", "function")
    objects = env.get_domain("py").objects.items()
    found = [full for full, entry in objects if full.rsplit(".", 1)[-1] == name and entry.objtype in kinds]
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", found[0], node, contnode
    )


def setup(app):
    app.connect(
        "autodoc-process-docstring", escape_marks, priority=400
    )  # before napoleon, which comes at 500
    app.connect("missing-reference", find_by_last_name)
