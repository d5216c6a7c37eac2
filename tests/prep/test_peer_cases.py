"""What the tests of other tools expect of captions, and what those tools get wrong: sections 5.1, 5.2 and 5.3 of the prep anchors."""

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.captions import KAOMOJI, join, parse, to_words
from prep.compile import compile_tags, mcut, ranked, spelled
from prep.edits import EDITS, Policy, drop_implied, drop_unwanted, order, wanted
from prep.names import fold, singular, without_name
from prep.traits import is_trait

# Signs that are part of a tag, and names with everything that names may hold.
SIGNS = (
    ":d",
    ":p",
    ";)",
    r"\m/",
    "don't_say_lazy",
    "q&a",
    'the_"legendary"_bow',
    "!?",
    "kaguya-sama_wa_kokurasetai_~tensai-tachi_no_renai_zunousen~",
)


def compiled(*tags: str, **settings: object) -> list[str]:
    """Compile the caption of a picture whose tags are sure, in the order given."""
    scores = {tag: 1 - number / 1000 for number, tag in enumerate(tags)}
    return compile_tags({"general": scores}, Policy(**settings))  # type: ignore[arg-type]


# 5.1, of imgutils.


def test_overlap() -> None:
    tags = ["1girl", "solo", "long_hair", "very_long_hair", "red_hair"]
    assert drop_implied(tags, Policy()) == ["1girl", "solo", "very_long_hair", "red_hair"]
    assert drop_implied([*tags, "breasts", "large_breasts"], Policy()) == ["1girl", "solo", "very_long_hair", "red_hair", "large_breasts"]
    assert compiled(*tags) == ["1girl", "solo", "very long hair", "red hair"]


def test_traits() -> None:
    assert all(map(is_trait, ("red_hair", "red hair", "blue eyes", "blue eye", "sheep ear", "pointy ears", "hair bun", "hair over heads")))
    assert is_trait("hair_between_breasts") and not any(map(is_trait, ("chair", "hear", "drill", "drills", "dress")))
    assert [tag for tag in ("1girl", "solo", "red_hair", "cat ears", "chair", "hear") if not is_trait(tag)] == ["1girl", "solo", "chair", "hear"]
    assert all(map(is_trait, ("horns", "bangs", "hair_between_eyes", "purple_eyes")))


def test_blacklist() -> None:
    unseen = Policy(blacklist="@unseen")
    tags = ["alternate_costume", "cosplay", "no_eyewear", "red_hair", "solo", "feet_out_of_frame"]
    assert drop_unwanted(tags, unseen) == ["red_hair", "solo"]
    assert drop_unwanted(["breasts", "large_breasts"], Policy(blacklist="breast")) == ["large_breasts"]


def test_match() -> None:
    """Theirs has three kinds of match; ours are whole tags, a star before or behind, and a plural that is its singular."""
    assert not wanted("cat_ear", "*ears", "") and wanted("red_cats_ear", "*cat ear", "") and not wanted("red_cat ears", "*cat_ear", "")
    assert not wanted("cat ears", "cat*", "") and not wanted("cat_ear", "cat ears", "") and wanted("ears", "", "")
    assert singular("cat ears") == singular("Cat_Ear") != singular("cats ear")


def test_order() -> None:
    """Theirs has solo before 1girl; ours says who is there first, as captions are written on Danbooru and for sd-scripts."""
    assert compiled("smile", "solo", "hat", "1girl") == ["1girl", "solo", "smile", "hat"]
    assert (
        order(["multiple_girls", "1other", "2others", "6+others", "multiple_others", "no_humans", "solo_focus", "hat"][::-1], Policy())[-1] == "hat"
    )


def test_text() -> None:
    assert ranked({"b": 0.5, "a": 0.5, "c": 0.9}) == ["c", "a", "b"]
    assert compiled("skadi_(arknights)", r"\m/", "^_^", escape=True) == [r"skadi \(arknights\)", r"\\m/", "^_^"]
    assert compiled("skadi_(arknights)", r"\m/", "^_^") == ["skadi (arknights)", r"\m/", "^_^"]


# 5.2, of sd-scripts' cleaning; ours differs in what is wrong there.


@pytest.mark.parametrize(
    ("tags", "caption"),
    [
        ("1girl, solo, long_hair, shirt, white_shirt, ^_^", "1girl, solo, long hair, white shirt, ^_^"),
        ("2girls, blonde hair, black hair, long hair, blue eyes, red eyes, smile", "2girls, long hair, smile"),
        ("2girls, blonde hair, black hair, long hair, short hair, ponytail, twintails", "2girls"),
        ("1girl, hat, witch hat, bow, hair bow, >_<", "1girl, witch hat, hair bow, >_<"),  # theirs: > <
        ("1girl, skirt, pleated skirt, rating:safe", "1girl, pleated skirt, rating:safe"),  # theirs drops it; our ratings are no tags
        ("1boy, long hair, long hair", "1boy, long hair"),  # theirs: twice
    ],
)
def test_cleaning(tags: str, caption: str) -> None:
    assert join(compiled(*dict.fromkeys("_".join(tag.split()) for tag in parse(tags)))) == caption


def test_sentences_are_not_rewritten() -> None:
    """Theirs makes "an girl, a girl" of it: words are taken out of the middle of sentences."""
    assert without_name(parse("an anime anime girl, a young woman"), "miku") == ["an anime anime girl", "a young woman"]


# 5.3, our own.


@pytest.mark.parametrize("pair", ["bra braid", "bow rainbow", "ring earrings", "cape cityscape", "bow elbow_gloves", "hat hatching_(texture)"])
def test_case_1_a_part_of_a_word_implies_nothing(pair: str) -> None:
    assert compiled(*pair.split()) == [to_words(tag) for tag in pair.split()]
    assert compiled("horns", "demon_horns") == ["demon horns"]


@pytest.mark.parametrize("tag", [*sorted(KAOMOJI), *SIGNS])
def test_case_2_signs_survive_captions_and_csv(tag: str) -> None:
    words = spelled(tag)
    assert words == (tag if tag in KAOMOJI else tag.replace("_", " "))
    assert compiled(tag) == [words] and parse(join(["1girl", words, "solo"])) == ["1girl", words, "solo"]
    assert spelled(words) == words and fold(words) == fold(tag)
    sheet = io.StringIO()
    csv.writer(sheet).writerow([tag, "1girl"])
    assert next(csv.reader(io.StringIO(sheet.getvalue()))) == [tag, "1girl"]


def test_case_2_all_nineteen_and_no_comma() -> None:
    assert len(KAOMOJI) == 19 and compiled(*sorted(KAOMOJI)) == sorted(KAOMOJI)
    with pytest.raises(ValueError, match="comma"):
        join(["a,b"])


@pytest.mark.parametrize(
    "name", ["hatsune_miku", "hatsune_miku_(append)", "hatsune miku (vocaloid)", "Hatsune Miku", r"hatsune_miku_\(vocaloid\)", "miku"]
)
def test_case_4_a_name_in_any_form_makes_room_for_the_keyword(name: str) -> None:
    from prep.names import with_keyword

    assert with_keyword(f"1girl, {name}, smile", "sks", "hatsune_miku, miku") == "sks, 1girl, smile"


@pytest.mark.parametrize(("values", "cut"), [([], None), ([0.7], None), ([0.4] * 5, None), ([0.9, 0.9, 0.1, 0.1], 0.5)])
def test_case_8_mcut_at_its_ends(values: list[float], cut: float | None) -> None:
    assert mcut(np.array(values, np.float32)) == (cut if cut is None else pytest.approx(cut))


def test_case_8_a_score_at_the_threshold_counts_and_what_is_no_number_is_refused() -> None:
    assert compile_tags({"general": {"at": 0.35, "below": 0.3499}}, Policy(threshold=0.35)) == ["at"]
    with pytest.raises(ValueError, match="not a number"):
        mcut(np.array([0.5, math.nan], np.float32))


@given(st.permutations(["1girl", "solo", "hat", "witch_hat", "^_^", "red_eyes", "smile", "long_hair"]))
def test_case_9_the_order_in_which_scores_come_does_not_matter(tags: list[str]) -> None:
    scores = {tag: 0.5 + len(tag) / 100 for tag in tags}
    assert compile_tags({"general": scores}, Policy()) == compile_tags({"general": dict(sorted(scores.items()))}, Policy())


def test_every_edit_has_its_place() -> None:
    assert list(EDITS) == ["alias", "unwanted", "constant", "mixed", "expanded", "implied", "order", "strongest", "words"]
