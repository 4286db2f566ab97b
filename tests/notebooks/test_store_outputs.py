"""The tool that stores outputs: what it keeps, what it refuses, and what it finds in a stored notebook."""

import copy
import json

import nbformat
import pytest
import store_outputs
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

VIEW = "application/vnd.jupyter.widget-view+json"


def cell(source, *outputs, tags=(), count=1):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)}, execution_count=count)


def shown(**data):
    kinds = {"plain": "text/plain", "html": "text/html", "png": "image/png", "view": VIEW}
    return new_output("display_data", {kinds[short]: value for short, value in data.items()})


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


@pytest.fixture
def write(tmp_path):
    """Write a notebook as an editor leaves it: no ids, metadata of its own."""

    def write_cells(*cells):
        content = json.loads(nbformat.writes(new_notebook(cells=list(cells))))
        for one in content["cells"]:
            del one["id"]
        content["metadata"] = {
            "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}},
            "kernelspec": {"name": "my-env", "display_name": "My env", "language": "python"},
            "language_info": {"name": "python", "version": "3.11.7"},
        }
        path = tmp_path / "lesson.ipynb"
        path.write_text(json.dumps(content))
        return path

    return write_cells


def test_a_notebook_is_run_and_stored_the_same_each_time(write):
    path = write(
        new_markdown_cell("# Words"),
        cell("import os, ipywidgets\nprint('LAYERLAB_DATA' in os.environ)"),
        cell("ipywidgets.IntSlider(3)"),
        cell("from IPython.display import HTML\nHTML('<b>ü</b>')"),
        cell("1 / 0", tags=["raises-exception"]),
        cell("print(1)\nprint(2)", tags=["b", "a"]),
    )
    assert list(store_outputs.check(path)) != []
    store_outputs.run(path)
    once = path.read_text(encoding="utf-8")
    assert list(store_outputs.check(path)) == []
    store_outputs.run(path)
    assert path.read_text(encoding="utf-8") == once

    assert "ü" in once
    assert once.endswith("}\n")
    stored = json.loads(once)
    assert set(stored["metadata"]) == {"kernelspec", "language_info"}
    assert stored["metadata"]["kernelspec"]["name"] == "python3"
    ids = [one["id"] for one in stored["cells"]]
    assert len(set(ids)) == len(ids)
    _, environ, slider, html, error, two = stored["cells"]
    assert environ["outputs"][0]["text"] == ["False\n"]
    assert slider["outputs"][0]["data"] == {"text/plain": ["IntSlider(value=3)"]}
    assert html["outputs"][0]["data"]["text/html"] == ["<b>ü</b>"]
    assert error["outputs"][0]["traceback"] == ["ZeroDivisionError: division by zero"]
    assert [output["text"] for output in two["outputs"]] == [["1\n", "2\n"]]
    assert two["metadata"] == {"jupyter": {"outputs_hidden": True}, "tags": ["a", "b"]}
    assert [one["execution_count"] for one in stored["cells"][1:]] == [1, 2, 3, 4, 5]


def test_the_data_of_one_machine_is_not_used(write, monkeypatch):
    monkeypatch.setenv("LAYERLAB_DATA", "mine")
    path = write(cell("import os\nprint(os.environ.get('LAYERLAB_DATA'))"))
    store_outputs.run(path)
    assert json.loads(path.read_text())["cells"][0]["outputs"][0]["text"] == ["None\n"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("undefined", "NameError"),
        ("print(object())", "an object's address"),
        ("print('/home/ada/data')", "an absolute path"),
        ("import traceback\ntry:\n    1 / 0\nexcept Exception:\n    traceback.print_exc()", "a traceback"),
        ("from IPython.display import Latex\nLatex('$x$')", "text/latex"),
    ],
)
def test_a_notebook_that_goes_wrong_is_left_as_it_was(write, capsys, source, said):
    path = write(cell(source))
    before = path.read_bytes()
    assert store_outputs.main([str(path)]) == 1
    assert said in capsys.readouterr().err
    assert path.read_bytes() == before


GOOD = [
    cell("x = 1"),
    cell("print(x)", printed("1\n"), count=2),
    cell("x", shown(plain="1", html="<td>1</td>", png="iVBO"), count=3),
]


def found_in(*cells):
    return list(store_outputs.problems(new_notebook(cells=list(cells))))


def test_a_good_notebook_has_no_problems():
    assert found_in(*GOOD) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (cell("print(x)"), "cell 1: shows something"),
        (cell("x"), "cell 1: shows something"),
        (cell("x = 1", count=None), "execution count None instead of 1"),
        (cell("x = 1", count=7), "execution count 7 instead of 1"),
        (cell("f()", shown(plain="a", view={"model_id": "00"})), VIEW),
        (cell("f()", shown(plain="<Linear at 0x7f00aa11bb22>")), "0x7f00aa11bb22"),
        (cell("f()", shown(html="<td>/Users/ada/net.pt</td>")), "/Users/ada/net.pt"),
        (cell("f()", printed(r"C:\Users", "stderr")), "a Windows path"),
        (cell("f()", printed("worker pid=4711")), "a process number"),
        (cell("f()", printed("Traceback (most recent call last)\nKeyError: 1")), "KeyError: 1"),
        (cell("f()", new_output("error", ename="KeyError", evalue="1")), "raises KeyError"),
    ],
)
def test_what_is_wrong_is_found(wrong, said):
    (problem,) = found_in(wrong)
    assert said in problem


@pytest.mark.parametrize("source", ["x = 1", "f()", "x;", "# words", "%matplotlib inline", "x ="])
def test_cells_that_need_no_output(source):
    assert found_in(cell(source)) == []


@pytest.mark.parametrize("text", ["</td>", "3/4", "a/b", "https://example.org/home/page", "0x1", "lr=0x"])
def test_what_only_looks_like_a_path_or_an_address(text):
    assert found_in(cell("f()", printed(text))) == []


def test_a_file_that_an_editor_touched_is_found(write):
    path = write(cell("x = 1"))
    store_outputs.run(path)
    content = json.loads(path.read_text())
    for change in (
        lambda it: it["metadata"].update(widgets={}),
        lambda it: it["cells"][0]["metadata"].update(execution={"iopub.status.busy": "2026-01-01"}),
        lambda it: it["cells"][0].pop("id"),
    ):
        changed = copy.deepcopy(content)
        change(changed)
        path.write_text(json.dumps(changed, indent=1) + "\n")
        (problem,) = store_outputs.check(path)
        assert "make outputs" in problem
