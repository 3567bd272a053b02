"""Sliders: a widget and a picture in one output where there is a front end, the picture alone where there is none."""

import base64
import os
from io import BytesIO

import matplotlib.pyplot as plt
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from PIL import Image

from absence_utils.errors import InputError
from absence_utils.plots.base import WIDTH
from absence_utils.plots.sliders import has_front_end, sliders

WIDGET = "application/vnd.jupyter.widget-view+json"
CODE = """
from absence_utils.plots.sliders import sliders
import matplotlib
def draw(fig, *fixed, x, y):
    fig.add_subplot().set_title(f"{fixed} {x} {y}")
    print("drawn", x, y)
sliders(draw, "fixed", x=[1, 2, 3], y=[0.5, 0.7])
"""
MOVE = """
from ipywidgets.widgets.widget import _instances
slider, = [widget for widget in _instances.values() if getattr(widget, "description", "") == "x"]
slider.value = 3
"""


def titles():
    return [ax.get_title() for ax in plt.gcf().axes or [ax for part in plt.gcf().subfigs for ax in part.axes]]


def draw(fig, *, x, y=0):
    fig.add_subplot().set_title(f"{x} {y}")


@pytest.mark.parametrize(
    "options, shown",
    [
        ({"x": [1, 2, 3, 4, 5]}, ["1 0", "3 0", "5 0"]),
        ({"x": range(3), "y": [7, 8]}, ["0 7", "1 7", "2 7"]),
        ({"x": [1, 2]}, ["1 0", "2 0"]),
        ({"x": [1, 2, 3], "positions": 1}, ["1 0"]),
        ({"x": [1, 2, 3], "positions": [3, 2]}, ["3 0", "2 0"]),
    ],
)
def test_without_a_kernel_there_is_one_picture_of_a_few_positions(options, shown):
    assert not has_front_end()
    assert sliders(draw, **options) is None
    assert titles() == shown and len(plt.get_fignums()) == 1
    assert plt.gcf().get_size_inches()[0] == WIDTH


@pytest.mark.parametrize(
    "options, problem",
    [
        ({}, "a slider without values"),
        ({"x": []}, "a slider without values"),
        ({"x": [1], "positions": 0}, "no position"),
        ({"x": [1], "positions": [2]}, "the first slider has no 2"),
    ],
)
def test_sliders_that_cannot_move_are_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        sliders(draw, **options)


def outputs(allow_stdin: bool, **environment) -> tuple[list[dict], list[dict]]:
    """Run CODE, and for a front end move its first slider: data of what is displayed, and all messages."""
    kept = {key: value for key, value in os.environ.items() if key not in ("MPLBACKEND", "ABSENCE_PROFILE")}
    manager, client = start_new_kernel(env={**kept, **environment})
    messages = []
    try:
        for code in (CODE, MOVE) if allow_stdin and not environment else (CODE,):
            client.execute_interactive(
                code, allow_stdin=allow_stdin, output_hook=messages.append, timeout=600
            )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert [message for message in messages if message["msg_type"] == "error"] == []
    return [
        message["content"]["data"] for message in messages if message["msg_type"] == "display_data"
    ], messages


@pytest.mark.slow
def test_a_front_end_gets_one_output_with_the_widget_and_the_picture():
    shown, messages = outputs(allow_stdin=True)
    (bundle,) = [data for data in shown if WIDGET in data]
    picture = Image.open(BytesIO(base64.b64decode(bundle["image/png"])))
    assert picture.width > 2 * picture.height, "three positions side by side"
    models = [
        message["content"]["data"]["state"] for message in messages if message["msg_type"] == "comm_open"
    ]
    controls = [state for state in models if state.get("_model_name") == "SelectionSliderModel"]
    assert [state["description"] for state in controls] == ["x", "y"]
    assert [state["index"] for state in controls] == [1, 0], (
        "the first starts in the middle, the others at the first"
    )
    printed = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream").splitlines()
    assert printed[-2:] == ["drawn 2 0.5", "drawn 3 0.5"], "at the start, and after the move"
    assert [list(state["_options_labels"]) for state in controls] == [["1", "2", "3"], ["0.5", "0.7"]]


@pytest.mark.slow
@pytest.mark.parametrize("allow_stdin, environment", [(False, {}), (True, {"ABSENCE_PROFILE": "smoke"})])
def test_a_headless_run_gets_the_picture_alone(allow_stdin, environment):
    shown, messages = outputs(allow_stdin, **environment)
    assert [sorted(data) for data in shown] == [["image/png", "text/plain"]]
    assert not [message for message in messages if message["msg_type"] == "comm_open"]


@pytest.mark.notebook
def test_an_executed_notebook_holds_no_widget_state():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    environment = {
        key: value for key, value in os.environ.items() if key not in ("MPLBACKEND", "ABSENCE_PROFILE")
    }
    NotebookClient(notebook, kernel_name="python3").execute(env=environment)
    assert "widget" not in nbformat.writes(notebook).replace(CODE, "")
    assert [sorted(o.data) for o in notebook.cells[0].outputs if "data" in o] == [["image/png", "text/plain"]]
