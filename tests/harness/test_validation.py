"""Keys that pydantic passes over without a word are told, and none that a model takes in one of pydantic's ways."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    field_validator,
    model_validator,
)

from harness.validation import validate


class Rate(BaseModel):
    peak: float = 0.1


class Steps(RootModel[dict[str, Rate]]):
    pass


class Renamed(BaseModel):
    width: int

    @model_validator(mode="before")
    @classmethod
    def _formerly(cls, content: dict[str, Any]) -> dict[str, Any]:
        return {"width": content["breadth"]}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rate: Rate = Rate()
    size: int = Field(1, validation_alias=AliasChoices("size_px", "side"))


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    rate: Rate = Rate()


def _peak_of(value: Any) -> Any:
    return {"peak": value["top"]} if isinstance(value, dict) and "top" in value else value


class Lax(BaseModel):
    decay: float = Field(0.1, validation_alias="lambda")
    rate: Rate = Field(Rate(), validation_alias=AliasChoices("speed", "pace"))
    depth: int = Field(1, validation_alias=AliasPath("shape", "depth"))
    steps: Steps = Steps({})
    renamed: Renamed | None = None
    strict: Strict = Strict()
    open: Open = Open()
    first: Annotated[Rate, BeforeValidator(_peak_of)] = Rate()
    second: Rate = Rate()
    third: list[Rate] = []

    _second = field_validator("second", mode="before")(_peak_of)


@pytest.mark.parametrize(
    "content",
    [
        {"lambda": 0.3},
        {"speed": {"peak": 0.3}},
        {"pace": {"peak": 0.3}},
        {"shape": {"depth": 3}},
        {"steps": {"warm": {"peak": 0.3}}},
        {"renamed": {"breadth": 3}},
        {"strict": {"rate": {"peak": 0.3}, "side": 3}},
        {"open": {"anything": 3, "rate": {"peak": 0.3}}},
        {"first": {"top": 0.3}},
        {"second": {"top": 0.3}},
    ],
    ids=str,
)
def test_what_pydantic_takes_is_known_and_comes_back(content: dict[str, Any]) -> None:
    found = validate(Lax, content)
    assert isinstance(found, Lax), found
    assert found != Lax()
    written = {key: value for key, value in found.model_dump(by_alias=True).items() if key != "renamed"}
    again = validate(Lax, written)  # as a checkpoint has it
    assert isinstance(again, Lax), again
    assert again.model_dump(exclude={"renamed"}) == found.model_dump(exclude={"renamed"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"lamda": 0.3},
            r"lamda: unknown key; did you mean lambda\? \(known: decay, lambda, rate, speed, pace, depth, shape, ",
        ),
        ({"pace": {"paek": 0.3}}, r"pace\.paek: unknown key; did you mean peak\?"),
        ({"steps": {"warm": {"paek": 0.3}}}, r"steps\.warm\.paek: unknown key"),
        ({"strict": {"rate": {"paek": 0.3}}}, r"strict\.rate\.paek: unknown key"),
        ({"strict": {"siz": 3}}, r"strict\.siz: unknown key"),
        ({"open": {"rate": {"paek": 0.3}}}, r"open\.rate\.paek: unknown key"),
        ({"third": [{"peak": 1}, {"paek": 1}]}, r"third\[1\]\.paek: unknown key"),
    ],
    ids=str,
)
def test_a_typo_is_told(content: dict[str, Any], said: str) -> None:
    found = validate(Lax, content)
    assert isinstance(found, list) and len(found) == 1
    assert re.match(said, found[0]), found
