"""What is wrong with a record that does not fit its type, in words of our own and in one line."""

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from capacity.errors import unknown

_LONGEST = 60  # characters of a value that a message quotes
_MUST_BE = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table of names and values",
    "model": "a table of names and values",
    "none": "left out",
}
_LIMITS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "{} or less"),
}


def fault_of(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first fault of a record: the field, its value, and what the value must be.

    Args:
        error: of the validation.
        kind: the type that the record does not fit; its fields are offered for a name that is none.
    """
    fault = error.errors()[0]
    *outer, last = fault["loc"] or ("",)
    place, where = ".".join(map(str, fault["loc"])), ".".join(map(str, outer))
    match fault["type"]:
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            said = str(unknown("field", str(last), _fields(kind, tuple(outer))))
        case "value_error":
            said = fault["msg"].removeprefix("Value error, ")
            where = place
        case "literal_error" if isinstance(fault["input"], str):
            said = str(unknown(str(last), fault["input"], re.findall("'([^']*)'", fault["ctx"]["expected"])))
        case _:
            value = repr(fault["input"])
            value = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
            return f"{place} is {value}: it must be {_wanted(fault['type'], fault.get('ctx', {}))}"
    return f"{where}: {said}" if where else said


def _wanted(fault: str, context: dict[str, Any]) -> str:
    """What a value must be."""
    if fault in _LIMITS:
        name, text = _LIMITS[fault]
        return text.format(f"{context[name]:,}" if isinstance(context[name], int) else f"{context[name]:g}")
    if fault in ("too_short", "too_long"):
        least = fault == "too_short"
        return f"a list of {context['min_length']} or more" if least else f"a list of {context['max_length']} or fewer"
    if fault in ("literal_error", "union_tag_invalid"):
        return f"one of {context.get('expected') or context.get('expected_tags')}"
    if fault == "union_tag_not_found":
        return f"a table that names its {str(context.get('discriminator')).strip(chr(39))}"
    return _MUST_BE.get(fault.partition("_")[0], "another value")


def _fields(kind: type[BaseModel], place: tuple[int | str, ...]) -> tuple[str, ...]:
    """The names of the fields that the record at `place` may have."""
    kinds = [kind]
    for part in place:
        inner = [found for one in kinds if part in one.model_fields for found in _models(one.model_fields[part])]
        kinds = inner or kinds  # a part that is no field is a place in a list, or names one type of several
    return tuple(dict.fromkeys(name for one in kinds for name in one.model_fields))


def _models(field: Any) -> Iterator[type[BaseModel]]:
    """The types of records that stand in an annotation."""
    annotation = getattr(field, "annotation", field)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
