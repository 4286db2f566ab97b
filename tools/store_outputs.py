"""Run notebooks and store their outputs, in the one form in which they are kept in the repository.

``python tools/store_outputs.py NOTEBOOK…`` runs each in this environment, from its own folder, and
rewrites it. With ``--check`` it runs nothing, and says what in the stored notebooks is not as it should be.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

CELL_TIMEOUT = 120
"""Seconds, as for nbval."""

KEPT = ("text/plain", "text/html", "image/png")
DROPPED = ("application/vnd.jupyter.widget-view+json",)
"""A stored view without its state shows "model not found"; the text beside it is the fallback."""

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

# What differs from run to run or names the machine it ran on.
FOLDERS = "home|Users|root|tmp|var|private|opt|usr|mnt"
VOLATILE = {
    "an object's address": re.compile(r"\b0x[0-9a-f]{6,}\b"),
    "an absolute path": re.compile(rf"(?<![\w./:<])/(?:{FOLDERS})/\w[^\s'\"<]*"),
    "a Windows path": re.compile(r"\b[A-Za-z]:\\\w+"),
    "a process number": re.compile(r"\bipykernel_\d+|\bpid[ =:]+\d+", re.IGNORECASE),
}
TRACEBACK = "Traceback (most recent call last)"


def code_cells(notebook: NotebookNode) -> list[tuple[str, NotebookNode]]:
    """List the code cells that hold code, each with the words that name it in a message."""
    numbered = enumerate(notebook.cells, start=1)
    return [(f"cell {n}", cell) for n, cell in numbered if cell.cell_type == "code" and cell.source.strip()]


def tags(cell: NotebookNode) -> Sequence[str]:
    """Read a cell's tags."""
    found: Sequence[str] = cell.metadata.get("tags", ())
    return found


def texts(output: NotebookNode) -> Iterator[str]:
    """Yield all that a reader would read in an output."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield from (output.ename, output.evalue, *output.traceback)
    else:
        yield from (text for kind, text in output.data.items() if kind.startswith("text/"))


def clean_output(output: NotebookNode) -> NotebookNode | None:
    """Keep of an output what belongs in the repository; None when nothing of it does.

    Raises
    ------
    ValueError
        If it has only kinds of data that are neither kept nor known to be droppable, so that
        nothing is lost unsaid.
    """
    if output.output_type == "error":
        # Tracebacks hold paths and process numbers; nbval compares only the error's name and text.
        output.traceback = [f"{output.ename}: {output.evalue}"]
    if "data" not in output:
        return output
    unknown = set(output.data) - {*KEPT, *DROPPED}
    if unknown:
        raise ValueError(f"an output of type {', '.join(sorted(unknown))}: add it to KEPT or DROPPED")
    output.data = NotebookNode({kind: output.data[kind] for kind in KEPT if kind in output.data})
    output.metadata = NotebookNode()
    return output if output.data else None


def clean(notebook: NotebookNode) -> None:
    """Bring an executed notebook into the form in which it is kept, in place."""
    notebook.metadata = NotebookNode(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    taken = {cell.get("id") for cell in notebook.cells}
    new_ids = (name for name in map("cell-{:02d}".format, count()) if name not in taken)
    for cell in notebook.cells:
        if "id" not in cell:
            cell.id = next(new_ids)
        solution = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        cell.metadata = NotebookNode({"tags": sorted(tags(cell))} if tags(cell) else {})
        folds = {"source_hidden": True} if solution else {}
        if cell.cell_type == "code":
            cell.outputs = [kept for kept in map(clean_output, cell.outputs) if kept is not None]
            if cell.outputs:  # JupyterLab opens them when the cell runs: a lesson asks before it tells
                folds["outputs_hidden"] = True
        if folds:
            cell.metadata.jupyter = NotebookNode(folds)


def serialize(notebook: NotebookNode) -> str:
    """Write a notebook as text, the same text for the same notebook on every machine."""
    text: str = nbformat.writes(notebook, version=4, indent=1, sort_keys=True, ensure_ascii=False)
    return text.rstrip("\n") + "\n"


def read(path: Path) -> NotebookNode:
    """Read a notebook as it is: nbformat's own reader gives cells without an id a random one."""
    notebook: NotebookNode = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    return notebook


def run(path: Path) -> None:
    """Run a notebook and rewrite it with its outputs; a cell that fails leaves the file as it was.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises and is not tagged ``raises-exception``.
    ValueError
        If what it would store is not as it should be (see `problems`).
    """
    notebook = read(path)
    clean(notebook)  # before the run, for the ids that a run needs
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    )
    # The outputs that are kept are those of the data that everyone has.
    client.execute(env={name: value for name, value in os.environ.items() if name != "LAYERLAB_DATA"})
    clean(notebook)
    found = list(problems(notebook))
    if found:
        raise ValueError("\n".join(found))
    path.write_text(serialize(notebook), encoding="utf-8")


def shows_something(source: str) -> bool:
    """Whether a cell must have an output: it prints or displays, or ends with a bare name."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic, or wrong on purpose
        return False
    for statement in body:
        match statement:
            case ast.Expr(ast.Call(ast.Name("print" | "display"))):
                return True
    match body[-1:]:
        case [ast.Expr(ast.Name())]:
            return not source.rstrip().endswith(";")
    return False


def problems(notebook: NotebookNode) -> Iterator[str]:
    """Yield what in a stored notebook is not as it should be, in words that name the cell."""
    for expected, (where, cell) in enumerate(code_cells(notebook), start=1):
        if cell.execution_count != expected:
            yield f"{where}: execution count {cell.execution_count} instead of {expected}: run all again"
        if not cell.outputs and shows_something(cell.source):
            yield f"{where}: shows something when run, but no output is stored"
        for output in cell.outputs:
            yield from (f"{where}: {found}" for found in output_problems(output, tags(cell)))


def output_problems(output: NotebookNode, cell_tags: Sequence[str]) -> Iterator[str]:
    """Yield what in one stored output is not as it should be."""
    for kind in output.get("data", {}):
        if kind not in KEPT:
            yield f"holds an output of type {kind}"
    if output.output_type == "error" and "raises-exception" not in cell_tags:
        yield f"raises {output.ename}, and is not tagged raises-exception"
    for text in texts(output):
        # nbclient does not see exceptions in a widget's callback: they only print.
        if TRACEBACK in text and "raises-exception" not in cell_tags:
            yield f"prints a traceback: {text.strip().splitlines()[-1]}"
        for what, pattern in VOLATILE.items():
            found = pattern.search(text)
            if found:
                yield f"prints {what}: {found.group()}"


def check(path: Path) -> Iterator[str]:
    """Yield what is not as it should be in a notebook's file."""
    notebook = read(path)
    yield from problems(notebook)
    kept = copy.deepcopy(notebook)
    clean(kept)
    if serialize(kept) != path.read_text(encoding="utf-8"):
        yield "holds more than code, text and outputs (widget state, times, metadata): run `make outputs`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or check the notebooks; returns 1 if anything was wrong with any of them."""
    parser = argparse.ArgumentParser(description="Run notebooks and store their outputs.")
    parser.add_argument("--check", action="store_true", help="run nothing, check what is stored")
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    chosen = parser.parse_args(arguments)
    wrong = 0
    for path in chosen.notebooks:
        start = time.monotonic()
        said: list[Any] = []
        try:
            if chosen.check:
                said = list(check(path))
            else:
                run(path)
        except (CellExecutionError, ValueError, OSError) as error:
            said = [error]
        print(f"{path}: {'not as it should be' if said else 'good'} ({time.monotonic() - start:.0f} s)")
        for problem in said:
            print(f"  {problem}", file=sys.stderr)
        wrong += bool(said)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
