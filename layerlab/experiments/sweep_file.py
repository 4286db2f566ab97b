"""A file of many runs, written anew after each, by which a sweep that was stopped goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerlab.data.writing import whole
from layerlab.experiments.outcome import made_with


@dataclass
class Swept:
    """What a sweep has found so far.

    Attributes
    ----------
    results
        Each run's result, plain values, by its name.
    made_with
        Versions and hardware of every machine that made some of them: one, unless the sweep was stopped and
        went on elsewhere, or after an upgrade.
    """

    results: dict[str, Any] = field(default_factory=dict)
    made_with: list[dict[str, str]] = field(default_factory=list)

    def add(self, name: str, result: Any) -> None:
        """Take up a run that was made here, on the CPU."""
        here = made_with("cpu")
        if here not in self.made_with:
            self.made_with.append(here)
        self.results[name] = result

    def write(self, path: Path) -> None:
        """Write all, a line for each run, whole or not at all."""
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in self.results.items())
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            made = json.dumps(self.made_with)
            text = f'{{\n "made_with": {made},\n "results": {{\n{lines}\n }}\n}}\n'
            part.write_text(text, encoding="utf-8")


def so_far(path: Path) -> Swept:
    """What `Swept.write` wrote, or nothing where there is no such file.

    Raises
    ------
    ValueError
        It holds something else.
    """
    if not path.exists():
        return Swept()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        results, made = told["results"], told["made_with"]
        if not (isinstance(results, dict) and isinstance(made, list)):
            raise TypeError("results is no object, or made_with no list")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no results of this kind; move it away to have them made") from error
    return Swept(results, made)


def read(path: Path) -> dict[str, Any]:
    """The results in a file, by the names of their runs.

    Raises
    ------
    FileNotFoundError
        There is none.
    ValueError
        It holds something else.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    return so_far(path).results
