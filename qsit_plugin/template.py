"""Renders a checkpoint's chat template as transformers does, under a step budget: a template is untrusted code.

The language is that of ``tokenizer.apply_chat_template``: jinja2's immutable sandbox, blocks trimmed, ``break`` and
``continue``, ``{% generation %}``, ``tojson``, ``raise_exception`` and ``strftime_now``. The sandbox keeps a template
from files and from Python; it does not keep it from looping for ever or from filling the memory, so here every step and
every character counts against a budget. Tested against transformers on the published templates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from jinja2 import Template, Undefined, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from qsit_plugin.weights.errors import refusing

LONGEST = 64 * 1024
"""Characters of a template; the longest published ones, with tools, have ten thousand."""

BUDGET = 200_000
"""Steps and characters of one rendering, beside twenty for each character of the question. A plain one takes 2,000."""

_FILTERS = """
capitalize count d default dictsort first float int items join last length list lower map max min reject rejectattr
replace reverse safe select selectattr sort string title tojson trim unique upper
"""
_METHODS = """
append count cycle endswith find get index isalpha isdigit isspace items join keys lower lstrip removeprefix
removesuffix replace rfind rsplit rstrip split splitlines startswith strip title upper values
"""
FILTERS, METHODS = frozenset(_FILTERS.split()), frozenset(_METHODS.split())
"""What templates call. Anything that pads, formats or translates could make gigabytes in one step and is refused."""

_left: ContextVar[list[int]] = ContextVar("qsit_template_budget")


class TemplateLimit(TemplateError):
    """A template that wants more steps or characters than a prompt can need, or that calls what could make many."""


def render(template: str, question: str, tokens: dict[str, Any]) -> str:
    """The text of one user turn with an image and the question, up to where the answer begins.

    Args:
        template: the checkpoint's chat template.
        tokens: the tokenizer's ``special_tokens_map``; templates use them as variables.

    Raises:
        WeightsError: the template is not valid, fails, or does not end within its budget.
    """
    content = [{"type": "image"}, {"type": "text", "text": question}]
    known = {**tokens, "tools": None, "documents": None, "add_generation_prompt": True}
    with refusing("the checkpoint's chat template cannot be rendered"), _budget(BUDGET + 20 * len(question)):
        return _compiled(template).render(messages=[{"role": "user", "content": content}], **known)


@lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    if len(template) > LONGEST:
        raise TemplateLimit(f"{len(template):,} characters; at most {LONGEST:,} are read")
    return _Environment().from_string(template)


@contextmanager
def _budget(size: int) -> Iterator[None]:
    token = _left.set([size])
    try:
        yield
    finally:
        _left.reset(token)


def _pay(units: int) -> None:
    left = _left.get()
    left[0] -= units
    if left[0] < 0:
        raise TemplateLimit("it takes more steps or makes more text than any prompt needs")


def _paid(value: Any) -> Any:
    """The value, after paying for everything in it; what is in it twice counts twice, as it would once printed."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str):
            _pay(1 + len(inner))
        elif isinstance(inner, int):
            _pay(1 + inner.bit_length() // 8)
        elif isinstance(inner, Mapping):
            _pay(1)
            waiting += [*inner.keys(), *inner.values()]
        elif isinstance(inner, Collection):
            _pay(1)
            waiting += inner
        elif inner is None or isinstance(inner, (float, Undefined)):
            _pay(1)
        else:
            raise TemplateLimit(f"it makes text of {type(inner).__name__!r}, which has none")
    return value


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, whose loops, calls, operators and outputs count against the budget."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # else constants are computed, unpaid, when the template is compiled
            extensions=[loopcontrols, _Generation],
            finalize=_paid,  # sees all that is printed
        )
        kept = {**self.filters, "tojson": _tojson}
        self.filters = {name: _paid_filter(name, kept[name]) for name in FILTERS}
        self.globals = {
            "range": self._range,
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self._free = (*self.globals.values(), self.tick, self.joined, self.literal)  # may be called, beside METHODS

    def _generate(self, source: nodes.Template, *arguments: Any, **options: Any) -> str:
        return super()._generate(_Meter().visit(source), *arguments, **options)

    def call(__self, __context: Any, __function: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N805 (as jinja2's)
        name = getattr(__function, "__name__", type(__function).__name__)
        if isinstance(__function, (Macro, LoopContext, Undefined)) or __function in __self._free:
            _pay(1)
        elif name not in METHODS or not hasattr(__function, "__self__"):
            raise TemplateLimit(f"it calls {name!r}, which prompts do not need")
        elif isinstance(__function.__self__, str) and name in ("join", "replace"):
            _check_product(name, __function.__self__, arguments)
        result = super().call(__context, __function, *arguments, **named)
        return result if isinstance(result, Namespace) else _paid(result)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise TemplateLimit(f"it uses the operator {operator}, which prompts do not need")
        if operator == "*":
            for repeated, times in ((left, right), (right, left)):
                if isinstance(repeated, (str, list, tuple)) and isinstance(times, int):
                    _pay(len(repeated) * max(0, times))
        return _paid(super().call_binop(context, operator, left, right))

    def tick(self, units: int) -> bool:
        """Pay for one round of a loop, or one call of a macro."""
        _pay(units)
        return True

    def joined(self, *parts: Any) -> str:
        """The operator ``~``."""
        return "".join(str(_paid(part)) for part in parts)

    def literal(self, value: Any) -> Any:
        """Text of the template itself, a list, a dictionary."""
        return value

    def _range(self, *bounds: int) -> range:
        made = range(*bounds)
        _pay(len(made))
        return made


class _Meter(NodeTransformer):
    """Puts the steps that must be paid for where ``_Environment.call`` sees them."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        round_ = _call("tick", nodes.Const(_size(node)))
        self.generic_visit(node)
        node.test = round_ if node.test is None else nodes.And(round_, node.test)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        cost = nodes.ExprStmt(_call("tick", nodes.Const(_size(node))))
        self.generic_visit(node)
        node.body.insert(0, cost)
        return node

    visit_CallBlock = visit_Macro

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", *node.nodes)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        return _call("literal", nodes.Const(node.data))

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _call("literal", node)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _call("literal", node) if node.ctx == "load" else node


def _size(node: nodes.Node) -> int:
    return sum(1 for _ in node.find_all(nodes.Node))


def _call(name: str, *arguments: Any) -> Any:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


class _Generation(Extension):
    """``{% generation %}``: marks an assistant's turn for training and prints it as it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _paid_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # carries jinja2's marks of filters that want the environment first
    def paid(*arguments: Any, **named: Any) -> Any:
        given = arguments[1:] if hasattr(function, "jinja_pass_arg") else arguments
        _paid([*given, *named.values()])
        if name in ("join", "replace"):
            parts = [*given[1:], *named.values()]
            _check_product(name, *((given[0], parts) if name == "replace" else (str(parts[:1]), [given[0]])))
        result = function(*arguments, **named)
        return _paid(list(result) if isinstance(result, Iterator) else result)

    return paid


def _check_product(name: str, text: str, arguments: Any) -> None:
    """``replace`` may put the new text before every character, ``join`` the separator between all items: pay first."""
    if name == "replace":
        _pay(len(str(text)) * max((len(str(part)) for part in arguments), default=0) if len(arguments) > 1 else 0)
    else:
        _pay(sum(len(str(text)) * len(items) for items in arguments if hasattr(items, "__len__")))


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    if indent is not None and (not isinstance(indent, int) or not 0 <= indent <= 8):
        raise TemplateLimit(f"tojson with an indent of {indent!r}; 0 to 8 are known")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message))


def _strftime_now(form: str) -> str:
    if len(form) > 64 or any(character.isdigit() for character in form):  # %999999999d pads
        raise SecurityError(f"strftime_now with {form!r}; a short form without widths is known")
    return datetime.now().strftime(form)
