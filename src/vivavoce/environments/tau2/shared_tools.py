"""The two tools that every domain has: arithmetic, and giving up the customer to a human."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

from vivavoce.environments.functions import Refused
from vivavoce.environments.tau2.records import Records

_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_LONGEST = 500


def calculate(records: Records, expression: str) -> str:
    """Work out an arithmetic expression, to two decimals.

    Args:
        expression: Numbers, +, -, *, / and parentheses, such as '2 * (1.5 + 3)'.
    """
    if len(expression) > _LONGEST:  # which also bounds how deep it nests
        raise Refused(f"an expression has at most {_LONGEST} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise Refused(f"{expression!r} is no arithmetic expression") from None
    return str(round(float(_value(tree.body)), 2))


def transfer_to_human_agents(records: Records, summary: str) -> str:
    """Hand the customer over to a human agent, when the request is beyond what you can do.

    Args:
        summary: What the human has to know of the customer's matter.
    """
    return "The customer is being transferred."


def _value(tree: ast.expr) -> float:
    match tree:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_value(left), _value(right))
    raise Refused("only numbers, +, -, *, / and parentheses can be worked out")


__all__ = ["calculate", "transfer_to_human_agents"]
