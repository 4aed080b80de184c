"""Small wrong changes of Python code: which there are in a file, and the file with one of them.

Left alone are what no run depends on: annotations, decorators, docstrings, text (f-strings, the words of an error, of a
flag's help), what is there for type checkers or for a call from the shell, and by what the code holds itself to equal
lengths (zip's ``strict``).
"""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
PAIRS = (
    ("min", "max"), ("any", "all"), ("amin", "amax"), ("argmin", "argmax"), ("minimum", "maximum"), ("floor", "ceil"),
    ("zeros", "ones"), ("mean", "sum"), ("new_zeros", "new_ones"), ("add", "discard"), ("glob", "rglob"),
)
OPPOSITE = {**dict(PAIRS), **{second: first for first, second in PAIRS}}
# To which the order of their arguments is nothing.
COMMUTATIVE = ("dsc", "min", "max", "minimum", "maximum", "equal", "array_equal", "isclose", "gcd", "hypot")
# Calls that a run can do without, or with the argument alone.
UNWRAPPED = ("abs", "sorted", "round", "reversed", "list", "set", "float", "int")


@dataclass(frozen=True)
class Mutation:
    """One change: where it is, what kind it is, and the code before and after."""

    path: Path
    line: int
    kind: str
    before: str
    after: str
    start: int                          # in bytes of the file
    end: int
    code: str                           # that takes their place
    executed: tuple[int, int] | None    # first and last line that run where it acts; None: at import

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.code.encode() + source[self.end :]


def like(node: ast.AST, **changed: object) -> ast.AST:
    """A copy of a node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **changed})


def changed_constant(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield "constant", like(node, value=not value)
    elif isinstance(value, int):
        yield "constant", like(node, value=value + 1)
        if value > 0:
            yield "constant", like(node, value=value - 1)
    elif isinstance(value, float):
        yield "constant", like(node, value=value * 2 if value else 1.0)


def changed_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = getattr(node.func, "id", getattr(node.func, "attr", None))
    field = "id" if isinstance(node.func, ast.Name) else "attr"
    if name in OPPOSITE:
        yield "function swapped", like(node, func=like(node.func, **{field: OPPOSITE[name]}))
    if name in UNWRAPPED and field == "id" and len(node.args) == 1:
        yield "call removed", node.args[0]
    for i in range(len(node.keywords)):
        if not is_left_alone(node.keywords[i]):
            yield "argument dropped", like(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])
    plain = not any(isinstance(argument, ast.Starred) for argument in node.args)
    for i in range(len(node.args) - 1 if plain and name not in COMMUTATIVE else 0):
        swapped = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
        yield "arguments swapped", like(node, args=swapped)


def changed_slice(node: ast.Subscript) -> Iterator[tuple[str, ast.AST]]:
    if not isinstance(node.slice, ast.Slice):
        return
    one, lower, upper = ast.Constant(1), node.slice.lower, node.slice.upper
    later = one if lower is None else ast.BinOp(lower, ast.Add(), one)
    yield "slice", like(node, slice=like(node.slice, lower=later))
    if upper is not None:
        yield "slice", like(node, slice=like(node.slice, upper=ast.BinOp(upper, ast.Sub(), one)))


def changed_test(node: ast.If | ast.IfExp | ast.While) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    yield "condition", node.test, ast.UnaryOp(ast.Not(), node.test)
    yield "condition", node.test, ast.Constant(False)
    if not isinstance(node, ast.While):
        yield "condition", node.test, ast.Constant(True)


def changed_expression(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(kind, what takes the node's place)."""
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for other in COMPARISONS[type(op)]:
                    yield "comparison", like(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
        case ast.BinOp() if type(node.op) in OPERATORS:
            yield "operator", like(node, op=OPERATORS[type(node.op)]())
        case ast.BoolOp():
            yield "and, or", like(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            for i in range(len(node.values)):
                rest = node.values[:i] + node.values[i + 1 :]
                yield "operand dropped", rest[0] if len(rest) == 1 else like(node, values=rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield "sign", node.operand
        case ast.Constant():
            yield from changed_constant(node)
        case ast.Call():
            yield from changed_call(node)
        case ast.Subscript():
            yield from changed_slice(node)


def changed_node(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """(kind, the node that is replaced, what takes its place)."""
    for kind, other in changed_expression(node):
        yield kind, node, other
    match node:
        case ast.If() | ast.IfExp() | ast.While():
            yield from changed_test(node)
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield "statement removed", node, ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement removed", node, ast.Pass()
        case ast.AugAssign() if type(node.op) in OPERATORS:
            yield "operator", node, like(node, op=OPERATORS[type(node.op)]())
        case ast.Return(value=ast.IfExp(body=body, orelse=orelse)):
            yield "statement", node, like(node, value=orelse)
            yield "statement", node, like(node, value=body)


def is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.match_case():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.keyword(arg="help" | "description" | "strict"):
            return True
    return False


def children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node in which changes are looked for."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        if isinstance(node, ast.Raise) and name in ("exc", "cause"):
            continue
        yield from (part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST))


def walk(node: ast.AST, lines: tuple[int, int] | None = None) -> Iterator[tuple[ast.AST, tuple[int, int] | None]]:
    """Every node with the lines that run where it acts, None outside of functions."""
    if is_left_alone(node):
        return
    if isinstance(node, ast.stmt) and lines is not None:
        lines = header(node)
    yield node, lines
    for part in children(node):
        # A default acts where its function runs.
        inside = header(first_statement(node)) if isinstance(node, ast.FunctionDef) else lines
        yield from walk(part, inside)


def header(statement: ast.stmt) -> tuple[int, int]:
    """First and last line of a statement without its block."""
    block = getattr(statement, "body", None)
    return statement.lineno, max(statement.lineno, block[0].lineno - 1) if block else statement.end_lineno


def first_statement(function: ast.FunctionDef) -> ast.stmt:
    """The first that runs: not the docstring."""
    return function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]


def find_mutations(path: Path) -> list[Mutation]:
    """All changes of one file that still compile, in the order of its lines."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = {}
    for part, lines in walk(ast.parse(source)):
        for kind, node, other in changed_node(part):
            try:
                before, after = ast.unparse(node), ast.unparse(ast.fix_missing_locations(other))
            except ValueError:
                continue        # quotes inside f-strings that this version cannot write
            mutation = Mutation(
                path, node.lineno, kind, before, after,
                starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset,
                after if isinstance(other, ast.stmt) else f"({after})", lines,
            )
            if before != after and compiles(mutation.apply(source)):
                found[mutation.start, mutation.end, after] = mutation
    return sorted(found.values(), key=lambda mutation: (mutation.line, mutation.start))


def compiles(source: bytes) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(source, "changed", "exec")
    except (SyntaxError, ValueError):
        return False
    return True
