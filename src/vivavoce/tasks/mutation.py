"""Programs that differ from a right one by one change of its syntax tree: another operator, constant, or result.

To find out whether tests notice what is wrong (mutation testing; DeMillo, Lipton & Sayward 1978).
"""

from __future__ import annotations

import ast
import copy
import warnings
from collections.abc import Iterator
from typing import Any

_OPERATORS: dict[type[ast.AST], type[Any]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitXor: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutants(program: str, name: str, at_most: int) -> Iterator[str]:
    """Programs with one change each, operators first, then constants; last, ``name`` returning something else.

    The last one is always among the ``at_most``. Raises SyntaxError if the program is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # official solutions hold escapes like '\\w'
        tree = ast.parse(program)
    nodes = list(ast.walk(tree))
    places = [i for i, n in enumerate(nodes) if isinstance(n, ast.BinOp | ast.BoolOp | ast.Compare | ast.AugAssign)]
    places += [i for i, n in enumerate(nodes) if isinstance(n, ast.Constant) and _other_value(n.value) != n.value]
    made = 0
    for place in places:
        if made == at_most - 1:
            break
        changed = copy.deepcopy(tree)
        if _change(list(ast.walk(changed))[place]):
            made += 1
            yield ast.unparse(changed)
    other = f"def {name}(*args, **kwargs):\n    return (_right(*args, **kwargs), 1)\n"
    yield f"{ast.unparse(tree)}\n\n_right = {name}\n\n{other}"


def _change(node: ast.AST) -> bool:
    """Change the node in place; False if it has nothing to change."""
    match node:
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign():
            other = _OPERATORS.get(type(node.op))
            if other is not None:
                node.op = other()
            return other is not None
        case ast.Compare():
            node.ops[0] = _OPERATORS[type(node.ops[0])]()
            return True
        case ast.Constant():
            node.value = _other_value(node.value)
            return True
    return False


def _other_value(value: Any) -> Any:
    """Another value of the same kind; a docstring stays, because no test could tell."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str() if len(value) < 20:
            return value + "x"
    return value


__all__ = ["mutants"]
