"""Runs a graph as ComfyUI's executor was measured to: lists, blockers, lazy inputs, validation, cache, expansion.

Nodes that are asynchronous wait here until nothing else is left, which is the last moment that ComfyUI gives them.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from enum import Enum
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from tests.nodes.stand_in.api import ExecutionBlocker, is_link
from tests.nodes.stand_in.memory import InterruptProcessingException

CURRENT: contextvars.ContextVar[Any] = contextvars.ContextVar("current", default=None)


class NodeState(Enum):
    Running = "running"


class Context(NamedTuple):
    prompt_id: str
    node_id: str
    list_index: int | None


class Graph:
    """The prompt and what nodes expanded to: ComfyUI's DynamicPrompt."""

    def __init__(self, prompt: dict[str, Any]):
        self.nodes, self.parents, self.displayed = dict(prompt), {}, {}

    def get_node(self, node: str) -> dict[str, Any]:
        return self.nodes[node]

    def get_parent_node_id(self, node: str) -> str | None:
        return self.parents.get(node)

    def get_display_node_id(self, node: str) -> str:
        while node in self.displayed:
            node = self.displayed[node]
        return node

    def get_real_node_id(self, node: str) -> str:
        while node in self.parents:
            node = self.parents[node]
        return node

    def add(self, nodes: dict[str, Any], parent: str) -> None:
        for node, about in nodes.items():
            if node in self.nodes:
                raise ValueError(f"Attempt to add duplicate node {node}")
            self.nodes[node], self.parents[node] = about, parent
            self.displayed[node] = about.get("override_display_id", parent)


class Executor:
    def __init__(
        self,
        classes: dict[str, Any],
        server: Any,
        prompt: dict[str, Any],
        number: str,
        cache: dict[Any, Any],
        extra_pnginfo: dict[str, Any] | None = None,
    ):
        self.graph = Graph(prompt)
        self.hidden = {"prompt": prompt, "extra_pnginfo": extra_pnginfo}
        self.classes, self.server, self.prompt, self.number, self.cache = classes, server, prompt, number, cache
        self.last: list[str] = []
        self.done: dict[str, tuple[list[list[Any]], Any]] = {}
        self.invalid: dict[str, list[str]] = {}
        self.judged: dict[str, bool] = {}

    def run(self) -> bool:
        """True when nothing raised. Output nodes with an invalid ancestor are left out."""
        outputs = [i for i, node in self.prompt.items() if self.classes[node["class_type"]].GET_SCHEMA().is_output_node]
        valid = [i for i in outputs if self.valid(i)]
        if not valid:
            return False
        try:
            for node in valid:
                self.outputs(node)
            for node in self.last:
                self.at = node
                token = CURRENT.set(Context(self.number, node, 0))
                asyncio.run(self.clone(node).execute(**self.graph.get_node(node)["inputs"]))
                CURRENT.reset(token)
        except InterruptProcessingException:
            return False
        except Exception as error:
            at = self.graph.get_real_node_id(self.at)
            about = {"node_id": at, "node_type": self.prompt[at]["class_type"]}
            self.server.send_sync("execution_error", about | {"exception_message": str(error)})
            return False
        return True

    def links(self, node: str) -> dict[str, list[Any]]:
        return {name: v for name, v in self.graph.get_node(node)["inputs"].items() if isinstance(v, list)}

    def valid(self, node: str) -> bool:
        if node not in self.judged:
            inner = [self.valid(link[0]) for link in self.links(node).values()]
            problems = self.problems(node)
            if problems:
                self.invalid[node] = problems
            self.judged[node] = all(inner) and not problems
        return self.judged[node]

    def problems(self, node: str) -> list[str]:
        cls = self.classes[self.prompt[node]["class_type"]]
        given, links = self.prompt[node]["inputs"], self.links(node)
        validate = cls.own("validate_inputs")
        named = inspect.getfullargspec(validate).args if validate else []
        found = []
        for spec in cls.GET_SCHEMA().inputs:
            if spec.id not in given:
                found += [] if spec.optional else [f"required input is missing: {spec.id}"]
            elif spec.id in links:
                source, slot = links[spec.id]
                kind = self.classes[self.prompt[source]["class_type"]].GET_SCHEMA().outputs[slot].io_type
                if spec.io_type != kind and "*" not in (spec.io_type, kind):
                    found.append(f"{spec.id}: {kind} does not fit {spec.io_type}")
            elif spec.id not in named:
                low, high = spec.limits.get("min"), spec.limits.get("max")
                value, options = given[spec.id], spec.limits.get("options")
                if (low is not None and value < low) or (high is not None and value > high):
                    found.append(f"{spec.id}: {value} is out of range")
                if options is not None and value not in options:
                    found.append(f"{spec.id}: {value!r} not in list")
        if validate:
            seen = {n: None if n in links else v for n, v in given.items() if n in named}
            token = CURRENT.set(Context(self.number, node, 0))
            answer = validate(**seen)
            CURRENT.reset(token)
            found += [] if answer is True else [f"{name} - {answer}" for name in seen]  # one for each named input
        return found

    def key(self, node: str) -> Any:
        """What a cached output belongs to: class, fingerprint, literal inputs, and the same of every ancestor."""
        about, links = self.graph.get_node(node), self.links(node)
        cls = self.classes[about["class_type"]]
        literal = {n: v for n, v in about["inputs"].items() if n not in links}
        fingerprint = None
        if cls.own("fingerprint_inputs"):
            token = CURRENT.set(Context(self.number, node, 0))
            fingerprint = repr(cls.fingerprint_inputs(**{n: literal.get(n) for n in about["inputs"]}))
            CURRENT.reset(token)
        ancestors = tuple((n, self.key(link[0]), link[1]) for n, link in sorted(links.items()))
        name = node if "unique_id" in (cls.SCHEMA.hidden or []) else ""
        return about["class_type"], name, fingerprint, repr(sorted(literal.items())), ancestors

    def outputs(self, node: str) -> list[list[Any]]:
        """Each output slot as a list of values."""
        if node in self.done:
            return self.done[node][0]
        if inspect.iscoroutinefunction(self.classes[self.graph.get_node(node)["class_type"]].execute):
            self.last.append(node)
            return []
        key = self.key(node)
        if key not in self.cache:
            self.cache[key] = self.execute(node)
        self.done[node] = slots, shown = self.cache[key]
        if shown:
            display = self.graph.get_display_node_id(node)
            self.server.send_sync("executed", {"node": node, "display_node": display, "output": shown})
        return slots

    def execute(self, node: str) -> tuple[list[list[Any]], Any]:
        cls = self.classes[self.graph.get_node(node)["class_type"]]
        schema, links = cls.GET_SCHEMA(), self.links(node)
        lazy = {i.id for i in schema.inputs if i.lazy}
        given = {n: [v] for n, v in self.graph.get_node(node)["inputs"].items() if n not in links}
        given |= {n: self.outputs(source)[slot] for n, (source, slot) in links.items() if n not in lazy}
        waiting = {n for n in links if n in lazy}
        while waiting:
            if schema.is_input_list:
                blocked = any(isinstance(v, ExecutionBlocker) for values in given.values() for v in values)
                asked = [] if blocked else cls.check_lazy_status(**given, **dict.fromkeys(waiting, (None,)))
            else:
                asked = cls.check_lazy_status(**{n: v[0] for n, v in given.items()}, **dict.fromkeys(waiting))
            wanted = waiting & set(asked)
            if not wanted:
                break
            given |= {n: self.outputs(links[n][0])[links[n][1]] for n in wanted}
            waiting -= wanted
        given |= dict.fromkeys(waiting, (None,))
        self.at = node
        times = 1 if schema.is_input_list else max(map(len, given.values()), default=1)
        results = [self.expanded(node, *self.call(cls, node, i, given)) for i in range(times)]
        slots: list[list[Any]] = []
        for slot, output in enumerate(schema.outputs):
            values = [result[0][slot] for result in results]
            spread = [v if isinstance(v, list) else [v] for v in values]
            slots.append([v for part in spread for v in part] if output.is_output_list else values)
        uis = [ui for _, ui in results if ui is not None]
        return slots, {k: [v for ui in uis for v in ui[k]] for k in uis[0]} if uis else None

    def expanded(self, node: str, values: tuple[Any, ...], ui: Any, graph: Any) -> tuple[tuple[Any, ...], Any]:
        """The values, with links followed into the graph that the node expands to; its output nodes run.

        As in ComfyUI every value behind a link takes a place of its own: an output of a list there shifts all others.
        """
        if graph is None:
            return values, ui
        if not self.classes[self.graph.get_node(node)["class_type"]].SCHEMA.enable_expand:
            raise ValueError("expand without enable_expand in the schema")
        self.graph.add(graph, node)
        for inner, about in graph.items():
            if self.classes[about["class_type"]].GET_SCHEMA().is_output_node:
                self.outputs(inner)
        flat = [
            found for value in values for found in (self.outputs(value[0])[value[1]] if is_link(value) else [value])
        ]
        return tuple(flat), ui

    def clone(self, node: str) -> Any:
        """What ComfyUI runs in place of the class; output nodes get the prompt without asking for it."""
        cls = self.classes[self.graph.get_node(node)["class_type"]]
        there = {"prompt", "extra_pnginfo"} if cls.SCHEMA.is_output_node else set()
        there |= set(cls.SCHEMA.hidden or [])
        known = self.hidden | {"unique_id": node, "dynprompt": self.graph}
        return type(cls.__name__, (cls,), {"hidden": SimpleNamespace(**{k: v for k, v in known.items() if k in there})})

    def call(self, cls: Any, node: str, index: int, given: dict[str, list[Any]]) -> tuple[tuple[Any, ...], Any]:
        inputs: dict[str, Any] = {n: v[index if index < len(v) else -1] for n, v in given.items()}
        blockers = [v for v in inputs.values() if isinstance(v, ExecutionBlocker)]
        if cls.SCHEMA.is_input_list:  # one blocked item blocks the node
            inputs, blockers = given, [v for vs in given.values() for v in vs if isinstance(v, ExecutionBlocker)]
        if blockers:
            if blockers[0].message is not None:
                about = {"node_id": node, "node_type": self.graph.get_node(node)["class_type"]}
                self.server.send_sync("execution_error", about | {"exception_message": blockers[0].message})
            return (ExecutionBlocker(None),) * len(cls.SCHEMA.outputs), None, None
        token = CURRENT.set(Context(self.number, node, index))
        try:
            with torch.inference_mode():
                result = self.clone(node).execute(**inputs)
        finally:
            CURRENT.reset(token)
        if len(result.args) != len(cls.SCHEMA.outputs):
            raise ValueError(f"{cls.SCHEMA.node_id} gave {len(result.args)} outputs, not {len(cls.SCHEMA.outputs)}")
        return result.args, result.ui, result.expand
