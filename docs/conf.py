"""Sphinx's settings for the site; the source folder is put together by `build.py`, which also names it."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for docstrings

project = "What is missing?"
author = "The authors of the companion"
copyright = "the authors of the companion, MIT licence"
html_title = "What is missing?"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "docstrings"]
exclude_patterns = ["results", "pictures", "_site_static"]  # files that pages link to
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
myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_inline", "deflist"]
myst_heading_anchors = 3

# One file of MathJax 3 with its fonts inside; the menu is off, since what it offers would be loaded from elsewhere.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
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
html_static_path = [os.environ["COMPANION_SITE_STATIC"]]
html_css_files = ["companion.css"]
html_show_search_summary = False  # summaries are fetched, which no browser allows from the file system
html_show_sphinx = False
html_use_index = False  # the reference has its own order, and the search
html_domain_indices = False
html_copy_source = False  # pages link their notebook and the files of their figures themselves
html_show_sourcelink = False
html_theme_options = {
    "navbar_persistent": [],  # its search button: there is one above the navigation
    "home_page_in_toc": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "footer_content_items": ["copyright.html"],
    "use_fullscreen_button": False,
    "use_download_button": False,
    "search_bar_text": "Search the site",
    "toc_title": "On this page",
}
