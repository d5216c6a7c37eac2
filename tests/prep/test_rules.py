import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prep
from prep.options import UserError
from prep.rules import link, rules_of

DATA = Path(prep.__file__).parent / "data"


def rows(name: str) -> list[tuple[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return [(row["antecedent"], row["consequent"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["implications.csv", "aliases.csv"])
def test_the_lists_that_ship_are_sorted_and_whole(name: str) -> None:
    found = rows(name)
    assert found == sorted(set(found))
    assert all(a and b and a != b and not set(", ") & set(a + b) for a, b in found)
    assert len(found) > 1000


def test_the_lists_that_ship_do_not_contradict_each_other() -> None:
    aliases = [a for a, _ in rows("aliases.csv")]
    assert len(aliases) == len(set(aliases))
    others = {tag for row in rows("implications.csv") for tag in row} | {b for _, b in rows("aliases.csv")}
    assert not others & set(aliases)  # no alias is itself a proper name
    rules = rules_of()
    assert not any(tag in implied for tag, implied in rules.implications.items())


@pytest.mark.parametrize(
    ("tag", "implied"),
    [
        ("absurdly_long_hair", {"very_long_hair", "long_hair"}),
        ("micro_bikini", {"bikini", "swimsuit"}),
        ("holding_katana", {"holding_sword", "holding_weapon", "holding"}),
        ("2girls", {"multiple_girls"}),
        ("smile", set()),
    ],
)
def test_implications_are_followed_to_their_end(tag: str, implied: set[str]) -> None:
    assert rules_of().implied(tag) == implied


def test_a_users_list_adds_to_ours_and_wins(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("\ufeffantecedent,consequent,kind\nred coat of x,red coat,\ntwin_tails,bunches,alias\n", encoding="utf-8")
    rules = rules_of(str(path))
    assert rules.implied("red_coat_of_x") == {"red_coat", "coat"}
    assert rules.proper("twin_tails") == "bunches" and rules.proper("pony_tail") == "ponytail"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("antecedent,consequent\nlong_hair,very_long_hair\n", "very_long_hair implies long_hair implies very_long_hair, which is a circle"),
        ("antecedent,consequent\na,a\n", "a implies a, which is a circle"),
        ("antecedent,consequent,kind\na,b,alias\nb,a,alias\n", "a -> b -> a goes round"),
        ("tag,other\na,b\n", "has no columns antecedent and consequent"),
        ("antecedent,consequent\na,\n", "line 2"),
        ("antecedent,consequent,kind\na,b,maybe\n", "line 2"),
        ('antecedent,consequent\n"a,b",c\n', "line 2"),
    ],
)
def test_a_list_that_will_not_do_is_named_with_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        rules_of(str(path))
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_list_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no list of rules"):
        rules_of(str(tmp_path / "none.csv"))


LETTERS = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(LETTERS, LETTERS), max_size=12))
def test_the_closure_is_what_can_be_reached_or_a_circle_is_refused(pairs: list[tuple[str, str]]) -> None:
    def reached(tag: str) -> set[str]:
        found: set[str] = set()
        todo = [tag]
        while todo:
            new = {b for a, b in pairs if a == todo[-1]} - found
            todo.pop()
            found |= new
            todo += new
        return found

    circle = any(a in reached(a) for a, _ in pairs)
    try:
        rules = link([("implication", a, b) for a, b in pairs], "here")
    except UserError:
        assert circle
    else:
        assert not circle and all(rules.implied(tag) == reached(tag) for tag in "abcdefgh")
