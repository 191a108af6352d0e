"""Methods by name: what a spec may say, and what is said of one that cannot be used."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.context.choose import choosers
from longreach.errors import SpecError
from longreach.registry import Family, Spec, canonical, parse, resource

names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda name: name not in {"true", "false", "none"} and not __import__("keyword").iskeyword(name)
)
plain = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@given(names, st.lists(values, max_size=3), st.dictionaries(names, values, max_size=3))
def test_a_spec_written_out_parses_back_to_itself(
    name: str, positional: list[object], named: dict[str, object]
) -> None:
    spec = Spec(name, tuple(positional), tuple(named.items()))
    assert parse(str(spec)) == spec


@given(st.text(max_size=30))
def test_any_text_is_a_spec_or_a_spec_error(text: str) -> None:
    with suppress(SpecError):
        parse(text)


def test_bare_words_are_strings_and_calls_are_nested_specs() -> None:
    spec = parse("fuse(parts=[bm25, dense(k=3)], on=true)")
    assert dict(spec.named) == {"parts": ["bm25", Spec("dense", (), (("k", 3),))], "on": True}


@pytest.mark.parametrize("text", ["", "1", "a b", "a(", "a(x=y.z)", "a(**b)", "__import__('os').system('x')"])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text)


@dataclass(frozen=True)
class Sized:
    size: int = 3
    ratio: float = 0.5
    tool: object = resource()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("size must be at least 1")


@pytest.fixture
def family() -> Family[Sized]:
    made: Family[Sized] = Family("things", "longreach.context.choose")
    made.register("sized")(Sized)
    return made


def test_arguments_by_place_and_by_name_and_resources_by_need(family: Family[Sized]) -> None:
    made = family.make("sized(4, ratio=1)", tool="hammer", other="ignored")
    assert made == Sized(4, 1.0, tool="hammer")
    assert made.tool == "hammer"


def test_a_method_written_out_makes_itself_again(family: Family[Sized]) -> None:
    made = family.make("sized(7)", tool=None)
    assert canonical(family, made) == "sized(size=7, ratio=0.5)"
    assert family.make(canonical(family, made), tool=None) == made


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("missing", "known:"),
        ("sized(weight=1)", "it takes: size, ratio"),
        ("sized(tool=1)", "has no argument 'tool'"),
        ("sized(1, 2, 3)", "at most 2"),
        ("sized(1, size=2)", "twice"),
        ("sized(size=big)", "size='big'"),
        ("sized(size=0)", "at least 1"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(family: Family[Sized], spec: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        family.make(spec, tool=None)


def test_an_unknown_name_lists_every_known_one() -> None:
    with pytest.raises(SpecError, match="no chooser is called 'best'; known: sage, top_k"):
        choosers.make("best")
