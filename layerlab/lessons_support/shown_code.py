"""Source of this package as a lesson prints it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from textwrap import dedent
from typing import Any


def code_of(function: Callable[..., Any]) -> str:
    """Give a function's source as a learner would write it: no docstring, no type hints in ``def`` lines."""
    source = dedent(inspect.getsource(function)).rstrip()
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    assert node.returns is not None  # it is typed, as all of the package is
    head = node.body[0] if ast.get_docstring(node) is not None else node.returns
    body = "\n".join(source.splitlines()[head.end_lineno :])
    signature = inspect.signature(function)
    untyped = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    parameters = signature.replace(parameters=untyped, return_annotation=signature.empty)
    return f"def {function.__name__}{parameters}:\n" + re.sub(r"\) -> \w+:", "):", body)
