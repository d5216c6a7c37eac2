import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.names import fold
from prep.options import UserError
from prep.review.filters import compiled, tokens
from prep.review.library import Row


def row(*tags: str, **facts: object) -> Row:
    known = {
        "key": "a", "name": "a.png", "version": "", "text": ", ".join(tags), "tags": frozenset(map(fold, tags)), "dropped": "", "detail": "",
        "proposed": "", "width": 640, "height": 512, "emphasis": 1.0, "hand": False, "crop": None, "masked": False, "scored": "", "distance": None,
    }  # fmt: skip
    return Row(**{**known, **facts})  # type: ignore[arg-type]


GIRL = row("1girl", "long hair", "mira (series)", "red eyes")


def passes(text: str, of: Row = GIRL, score: float = 0.4) -> bool:
    return compiled(text, of.tags, lambda row, tag: score)(of)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", True), ("1girl", True), ("1girl AND NOT smile", True), ("1girl AND smile", False), ("smile OR 1girl", True), ("NOT 1girl", False),
        ("long_hair", True), ("Long Hair", True), ("long*", True), ("*eyes", True), ("short*", False), ("mira_(series)", True),
        ('"mira (series)"', True), ("NOT (smile OR hat)", True), ("(1girl OR hat) AND (smile OR red_eyes)", True), ("NOT NOT 1girl", True),
        ("smile OR 1girl AND hat", False), ("(smile OR 1girl) AND hat", False), ("hat OR smile OR 1girl", True), ('"1girl" "red eyes"', True),
        ("tokens>75", False), ("tokens > 3", True), ("width>=640", True), ("height!=512", False), ("tags=4", True), ("repeats<=1", True),
        ("score(long_hair)<0.5", True), ("score(long hair) >= 0.5", False), ("NOT score(hat)<0.5", False), ("name:a*", True), ("name:b", False),
        ("text:girl", True), ('text:"long hair"', True), ("set aside", False), ("kept", True), ("by hand", False), ("no caption", False),
        ("kept AND tokens<75 AND NOT duplicate", True), ("set_aside", False), ("score", False), ("tokens", False),
    ],
)  # fmt: skip
def test_what_passes(text: str, wanted: bool) -> None:
    assert passes(text) is wanted


def test_states_of_pictures() -> None:
    copy = row("1girl", dropped="duplicate", detail="of b-2 (mirrored)")
    near = row("1girl", proposed="duplicate", detail="of b")
    assert passes("set aside", copy) and passes("duplicate", copy) and passes("duplicate of", copy) and passes("duplicate of b-2", copy)
    assert not passes("duplicate of b", copy) and passes("duplicate of b", near) and passes("proposed", near) and passes("reason:dupl", near)
    assert passes("by hand", row(hand=True)) and passes("masked", row(masked=True)) and passes("cropped", row(crop=(0, 0, 1, 1)))
    assert passes("no caption", row()) and passes("distance>0.3", row(distance=0.5)) and not passes("distance>0.3", row())
    assert passes('"set aside"', row("set aside"))  # in quotes it is a tag


@pytest.mark.parametrize(
    ("text", "place"),
    [("(1girl", "ends"), ("1girl)", "place 6"), ("tokens>x", "place 8"), ("AND", "place 1|ends"), ("1girl AND", "ends"), ("NOT", "ends"),
     ('"open', "place 1"), ("score(hat)", "ends"), ("score(hat", "ends"), ("tokens>", "ends"), ("()", "place 2"), ("=5", "place 1")],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_says_where(text: str, place: str) -> None:
    with pytest.raises(UserError, match=place):
        passes(text)


TAGS = st.sampled_from(["1girl", "long_hair", "red eyes", "smile", "hat", "mira_(series)"])


@st.composite
def filters(draw: st.DrawFn, depth: int = 3) -> tuple[str, bool]:
    """Return a filter and whether GIRL passes it."""
    kind = draw(st.sampled_from(["tag", "tag", "not", "and", "or", "quoted"] if depth else ["tag", "quoted"]))
    if kind in ("tag", "quoted"):
        tag = draw(TAGS)
        return (f'"{tag}"' if kind == "quoted" else tag), fold(tag) in GIRL.tags
    text, value = draw(filters(depth - 1))
    if kind == "not":
        return f"NOT ({text})", not value
    other, second = draw(filters(depth - 1))
    return f"({text}) {kind.upper()} ({other})", (value and second) if kind == "and" else (value or second)


@given(filters())
def test_a_filter_means_what_its_brackets_say(case: tuple[str, bool]) -> None:
    assert passes(case[0]) is case[1]


@given(st.text(max_size=40))
def test_whatever_is_typed_is_read_or_told(text: str) -> None:
    try:
        passes(text)
    except UserError as error:
        assert str(error)


@given(st.text(min_size=1, max_size=12).filter(lambda tag: fold(tag) and "*" not in tag))
def test_any_tag_can_be_asked_for_in_quotes(tag: str) -> None:
    quoted = '"' + tag.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert passes(quoted, row(tag)) and [token.kind for token in tokens(quoted)] == ["quoted"]
