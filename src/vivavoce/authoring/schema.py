"""A JSON schema of recipes, with which editors complete keys, explain them and mark mistakes.

A recipe names it in a comment, ``# yaml-language-server: $schema=recipe.schema.json``. Keys depend on choices: the
method decides the sections, a backend, task or protocol the options; the schema says so with ``if`` and ``then``. What
is named by a path, a file of the user's own, is left to `viva doctor`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vivavoce import plugins
from vivavoce.authoring.keys import description, first_line
from vivavoce.config import SECTIONS, AgentSpec, Recipe, TaskSpec

_DEFS = "#/$defs/"


def recipe_schema() -> dict[str, Any]:
    """The schema of all recipes that can be written with what comes with the package."""
    models = {
        (room, name): plugins.load(room, name, room).Options for room in plugins.MAKER for name in plugins.names(room)
    }
    described: list[type[BaseModel]] = list(dict.fromkeys([*models.values(), AgentSpec, TaskSpec, Recipe]))
    refs, top = models_json_schema([(model, "validation") for model in described], ref_template=_DEFS + "{model}")
    defs: dict[str, Any] = top["$defs"]
    names = {model: refs[model, "validation"]["$ref"].removeprefix(_DEFS) for model in described}
    for model in described:
        _explain(defs[names[model]], model)
    _choices(defs, names, models, "agents", AgentSpec, "backend")
    _choices(defs, names, models, "tasks", TaskSpec, "name")
    for (room, _), model in models.items():
        if room == "methods":
            _protocols(defs[names[model]], model, names, models)
    stage = next(name for name in defs if name.endswith("Stage"))
    defs[stage] |= {"additionalProperties": True}
    methods = plugins.names("methods")
    common = defs[names[Recipe]]["properties"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A recipe of vivavoce",
        "type": "object",
        "required": ["method"],
        "properties": {"method": {**common["method"], "anyOf": [{"enum": methods}, {"pattern": r"\.py$"}]}},
        "allOf": [_case("method", name, _ref(names[models["methods", name]])) for name in methods],
        "$defs": defs,
    }


def schema_text() -> str:
    """The schema as a file."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _explain(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put in descriptions that a model takes over from the one it extends; leave out titles, which say nothing."""
    schema.pop("title", None)
    schema["description"] = first_line(model.__doc__)
    for name, value in schema.get("properties", {}).items():
        value.pop("title", None)
        value["description"] = description(model, name)


def _choices(
    defs: dict[str, Any],
    names: Mapping[type[BaseModel], str],
    models: Mapping[tuple[str, str], type[BaseModel]],
    room: str,
    spec: type[BaseModel],
    key: str,
) -> None:
    """Give ``spec`` the options of whatever its ``key`` names: of each, a schema of the two together."""
    own, known = defs[names[spec]], plugins.names(room)
    default = spec.model_fields[key].default
    properties = {
        **own["properties"],
        key: {**own["properties"][key], "anyOf": [{"enum": known}, {"pattern": r"\.py$"}]},
    }
    cases = []
    for name in known:
        options = defs[names[models[room, name]]]
        whole = f"{room}.{name}"
        defs[whole] = {
            "type": "object",
            "description": options["description"],
            "properties": {**options["properties"], **properties},
            "required": sorted({*own.get("required", ()), *options.get("required", ())}),
            "additionalProperties": False,
        }
        cases.append(_case(key, name, _ref(whole), absent=name == default))
    defs[names[spec]] = {
        "type": "object",
        "description": own["description"],
        "properties": properties,
        "allOf": cases,
    } | {"required": own.get("required", [])}


def _protocols(
    schema: dict[str, Any],
    model: type[BaseModel],
    names: Mapping[type[BaseModel], str],
    models: Mapping[tuple[str, str], type[BaseModel]],
) -> None:
    """Give the section that holds a protocol's options those of the protocol that it names."""
    for section in SECTIONS:
        field = model.model_fields.get(section)
        if field is None:
            continue
        own = field.annotation
        known = plugins.names("protocols")
        cases = [
            _case("protocol", name, _ref(names[models["protocols", name]]), absent=models["protocols", name] is own)
            for name in known
        ]
        schema["properties"][section] = {
            "type": "object",
            "description": description(model, section),
            "properties": {"protocol": {"anyOf": [{"enum": ["", *known]}, {"pattern": r"\.py$"}]}},
            "allOf": cases,
        }


def _case(key: str, value: str, then: Mapping[str, Any], *, absent: bool = False) -> dict[str, Any]:
    """``then`` holds if ``key`` has a value; with ``absent``, if it is not there too."""
    condition = {"properties": {key: {"enum": [value, ""] if absent else [value]}}}
    return {"if": condition if absent else {**condition, "required": [key]}, "then": then}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _DEFS + name}


__all__: Sequence[str] = ["recipe_schema", "schema_text"]
