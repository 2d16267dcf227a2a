"""Sphinx's settings. Build with `python -m sphinx -W docs build/docs`."""

import importlib.util
import os
import sys
from pathlib import Path

import attnflow

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import docstrings  # noqa: E402  the two modules beside this file
import pages  # noqa: E402

pages.write(HERE.parent, HERE / "generated")

project = "attnflow"
author = "attnflow's authors"
version = release = attnflow.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "formulas",
    "numpydoc",
    "myst_nb",
]
templates_path = ["_templates"]
exclude_patterns = ["generated/front.md"]  # the first page includes it
html_theme = "furo"
html_title = f"attnflow {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

os.environ.pop("MPLBACKEND", None)  # a notebook's own backend shows pictures inline
nb_execution_mode = "force"  # of each page that is read: all of them, but for those that did not change since the last build
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress bars, of what takes more than two seconds
if not importlib.util.find_spec("torch"):
    nb_execution_excludepatterns = ["generated/notebooks/09_*"]  # is shown without its pictures

default_role = "py:obj"  # `name` in a docstring
autosummary_generate = True
autodoc_typehints = "none"  # types stand in the docstrings
autodoc_default_options = {"members": True, "inherited-members": True, "member-order": "bysource"}
numpydoc_show_class_members = False  # the pages list them
add_module_names = False


def skip_of_others(app, what, name, member, skip, options):
    """What scikit-learn's estimators have in common stands in its own documentation."""
    return True if (getattr(member, "__module__", None) or "").startswith("sklearn") else None


def place_links(app, name, source):
    """Pages may link to files of the repository, so that they can be read there."""
    source[0] = pages.placed(source[0])


def setup(app):
    app.connect("source-read", place_links)
    app.connect("autodoc-skip-member", skip_of_others)
    app.connect("autodoc-process-docstring", docstrings.as_rest, priority=100)  # before numpydoc
