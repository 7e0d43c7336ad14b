"""From pydantic's validation errors to sentences: the dotted key, what was found, what is allowed."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    PlainValidator,
    RootModel,
    ValidationError,
    WrapValidator,
)

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], content: dict[str, Any], more_keys: Iterable[str] = ()) -> Model | list[str]:
    """`content` as a `model`, or a sentence for each thing wrong. `more_keys` are also known at its top level.

    By way of JSON, since pydantic's strict mode takes a list for a tuple only from there. TOML's dates become text.
    """
    try:  # by names too, as which a model that has other aliases is written down
        found = model.model_validate_json(json.dumps(content, default=str), by_alias=True, by_name=True)
    except ValidationError as error:
        return [_sentence(each, model, tuple(more_keys)) for each in error.errors()]
    return list(_passed_over(found, content, more_keys)) or found


def _passed_over(found: Any, content: Any, more_keys: Iterable[str] = (), place: str = "") -> Iterator[str]:
    """Keys that a model without extra="forbid" leaves out without a word, which is pydantic's default: a typo is among them."""
    if isinstance(found, BaseModel) and _changed_before(type(found)):
        return  # its keys are its validator's to know
    if isinstance(found, RootModel):
        yield from _passed_over(found.root, content, more_keys, place)
    elif isinstance(found, BaseModel) and isinstance(content, dict):
        taken, judged = _taken(type(found)), found.model_config.get("extra") in ("forbid", "allow")
        for key, value in content.items():
            where = f"{place}.{key}" if place else key
            if (name := taken.get(key)) is not None:
                yield from _passed_over(getattr(found, name), value, (), where)
            elif key not in taken and not judged:
                known = [*taken, *more_keys]
                yield f"{where}: unknown key{did_you_mean(key, known)} (known: {', '.join(known)})"
    elif isinstance(found, list | tuple) and isinstance(content, list):
        for index, (each, value) in enumerate(zip(found, content, strict=False)):
            yield from _passed_over(each, value, (), f"{place}[{index}]")
    elif isinstance(found, dict) and isinstance(content, dict):
        for key, value in content.items():
            yield from _passed_over(found.get(key), value, (), f"{place}.{key}")


def _taken(model: type[BaseModel]) -> dict[str, str | None]:
    """The keys that a model takes, each with the field whose value it has; None where the field has a part or another form."""
    taken: dict[str, str | None] = {}
    for name, field in model.model_fields.items():
        as_written = None if _changed_before(model, name) else name
        taken[name] = as_written
        alias = field.validation_alias
        for each in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            if isinstance(each, AliasPath):
                taken.setdefault(str(each.path[0]), None)
            elif each is not None:
                taken[each] = as_written
    return taken


def _changed_before(model: type[BaseModel], name: str | None = None) -> bool:
    """Whether a validator of the model, or of one of its fields, may make something else of the content first."""
    decorators = model.__pydantic_decorators__
    if name is None:
        return any(each.info.mode != "after" for each in decorators.model_validators.values())
    own = [each.info for each in decorators.field_validators.values() if {name, "*"} & {*each.info.fields}]
    kinds = (BeforeValidator, PlainValidator, WrapValidator)
    return any(each.mode != "after" for each in own) or any(
        isinstance(each, kinds) for each in model.model_fields[name].metadata
    )


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A half-sentence that names the closest candidate; empty when none is close."""
    close = difflib.get_close_matches(word, list(candidates), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def no_numbers(content: Any, key: str = "") -> Iterator[str]:
    """A sentence for each number that TOML knows and no key takes: nan, inf, and whole ones that fit no machine's word."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from no_numbers(value, f"{key}.{name}" if key else name)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from no_numbers(value, f"{key}[{index}]")
    elif isinstance(content, float) and not math.isfinite(content):
        yield f"{key} = {content}: a finite number is needed"
    elif isinstance(content, int) and not -(2**63) <= content < 2**63:
        yield f"{key} = {content}: a number of at most 64 bits is needed"


def _sentence(error: Any, model: type[BaseModel], more_keys: tuple[str, ...]) -> str:
    """One of pydantic's errors as: key, what was found, what is allowed. `more_keys`: also known at top level."""
    place = error["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    schema = model.model_json_schema()
    if error["type"] == "extra_forbidden":
        known = [
            *_schema_at(schema, place[:-1]).get("properties", {}),
            *(more_keys if len(place) == 1 else ()),
        ]
        return f"{key}: unknown key{did_you_mean(str(place[-1]), known)} (known: {', '.join(known)})"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}"
    allowed = _allowed(_schema_at(schema, place)) or error["msg"]
    if error["type"] == "missing":
        return f"{key}: missing; needed: {allowed}"
    found = json.dumps(error["input"], default=str)
    return f"{key} = {found if len(found) < 80 else found[:77] + '...'}: not allowed; allowed: {allowed}"


def _schema_at(schema: dict[str, Any], place: tuple[int | str, ...]) -> dict[str, Any]:
    """The part of a JSON schema that describes `place`; {} where it does not say."""
    here: Any = schema
    for part in (None, *place):
        if isinstance(part, str):
            here = here.get("properties", {}).get(part, {})
        elif isinstance(part, int):
            listed = here.get("prefixItems", [])
            here = listed[part] if part < len(listed) else here.get("items", {})
        if "$ref" in here:
            here = schema["$defs"][here["$ref"].rsplit("/", 1)[-1]]
    found: dict[str, Any] = here
    return found


def _allowed(schema: dict[str, Any]) -> str:
    """What a JSON schema allows, in words; empty where it does not say."""
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kinds = {
        **{"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false"},
        **{"array": "a list", "object": "a table"},
    }
    kind = kinds.get(schema.get("type", ""), "")
    bounds = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
    limits = " and ".join(f"{sign} {schema[name]:g}" for name, sign in bounds if name in schema)
    if schema.get("type") == "array" and (items := _allowed(schema.get("items") or {})):
        kind = f"a list, each item {items}"
    words = f"{kind} {limits}".strip() + (", not empty" if schema.get("minLength") or schema.get("minItems") else "")
    return f"{words}: {schema['description']}" if "description" in schema and kind != "a table" else words
