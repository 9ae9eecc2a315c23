"""What is said of a record that does not fit its type: the field, the value, and what it must be."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from capacity.spec.faults import fault_of
from capacity.spec.frozen import Frozen


class Inner(Frozen):
    rank: int = 1
    scale: Annotated[float, Field(gt=0, le=2.5)] = 1.0


class Cat(Frozen):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(Frozen):
    kind: Literal["dog"] = "dog"


class Record(Frozen):
    name: str
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=2, max_length=3)] = (0, 1)
    split: Literal["test", "validation"] = "test"
    base: bool = True
    inner: tuple[Inner, ...] = ()
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat()
    table: dict[str, int] = Field(default_factory=dict)
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 10:
            raise ValueError("give 10 letters or fewer")
        return name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 3}, "name is 3: it must be text"),
        ({"name": "a" * 11}, "name: give 10 letters or fewer"),
        ({"seeds": 7}, "seeds is 7: it must be a list"),
        ({"seeds": [1]}, "seeds is [1]: it must be a list of 2 or more"),
        ({"seeds": [1, 2, 3, 4]}, "seeds is [1, 2, 3, 4]: it must be a list of 3 or fewer"),
        ({"seeds": [1, -1]}, "seeds.1 is -1: it must be 0 or more"),
        ({"seeds": [1, 2**32]}, "seeds.1 is 4294967296: it must be below 4,294,967,296"),
        ({"seeds": [1, 1.5]}, "seeds.1 is 1.5: it must be a whole number"),
        ({"seeds": ["one", 1]}, "seeds.0 is 'one': it must be a whole number"),
        ({"split": "tset"}, "unknown split 'tset': did you mean test?"),
        ({"split": 3}, "split is 3: it must be one of 'test' or 'validation'"),
        ({"base": "maybe"}, "base is 'maybe': it must be true or false"),
        ({"inner": [{"scale": 0}]}, "inner.0.scale is 0: it must be above 0"),
        ({"inner": [{"scale": 3}]}, "inner.0.scale is 3: it must be 2.5 or less"),
        ({"inner": [{"scale": "wide"}]}, "inner.0.scale is 'wide': it must be a number"),
        ({"inner": [{"rnak": 1}]}, "inner.0: unknown field 'rnak': did you mean rank?"),
        ({"inner": [3]}, "inner.0 is 3: it must be a table of names and values"),
        ({"pet": {"kind": "cow"}}, "pet is {'kind': 'cow'}: it must be one of 'cat', 'dog'"),
        ({"pet": {}}, "pet is {}: it must be a table that names its kind"),
        ({"pet": {"kind": "cat", "live": 9}}, "pet.cat: unknown field 'live': did you mean lives?"),
        ({"table": 3}, "table is 3: it must be a table of names and values"),
        ({"share": 1}, "share is 1: it must be below 1"),
        ({"naem": "x"}, "unknown field 'naem': did you mean name or base?"),
        ({"table": {"k": "x" * 100}}, f"table.k is '{'x' * 59}…: it must be a whole number"),
    ],
)
def test_a_fault_is_said_in_plain_words(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Record.model_validate({"name": "one"} | changes)
    assert fault_of(caught.value, Record) == said


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        Record.model_validate({})
    assert fault_of(caught.value, Record) == "name is missing"
