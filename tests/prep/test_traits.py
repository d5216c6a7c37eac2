import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.rules import rules_of
from prep.traits import constant, family, is_trait, mixed, several

LOOKS = """
    red_hair blue_eye blue_eyes sheep_ear pointy_ears hair_bun hair_over_heads hair_between_breasts horns bangs hair_between_eyes purple_eyes cat_ears
    messy_hair very_long_hair breasts large_breasts hair_over_one_eye ahoge freckles mole_under_eye dark-skinned_male fox_tail
"""
OTHERS = """
    chair hear drill drills dress closed_eyes half-closed_eyes empty_eyes pubic_hair hat long_sleeves hair_ornament hair_bow spear wet_hair smile ^_^
    fake_animal_ears cityscape one_eye_closed holding_horns solo 1girl
"""


@pytest.mark.parametrize("tag", LOOKS.split())
def test_looks_are_traits(tag: str) -> None:
    assert is_trait(tag) and is_trait(tag.replace("_", " ").title())


@pytest.mark.parametrize("tag", OTHERS.split())
def test_clothes_poses_and_parts_of_words_are_none(tag: str) -> None:
    assert not is_trait(tag)


def test_a_list_loses_its_traits_as_imgutils_has_it() -> None:
    tags = ["1girl", "solo", "red_hair", "cat ears", "chair", "hear"]
    assert [tag for tag in tags if not is_trait(tag)] == ["1girl", "solo", "chair", "hear"]


def test_traits_have_families() -> None:
    assert [family(tag) for tag in ("blonde_hair", "long_hair", "twintails", "red_eyes", "long_sleeves", "ahoge", "hat")] == [
        "hair colour", "hair length", "hairstyle", "eye colour", "sleeves", "other", "",
    ]  # fmt: skip
    assert mixed(["blonde_hair", "long_hair", "very_long_hair", "red_hair", "ahoge"], rules_of()) == {"hair colour": ["blonde_hair", "red_hair"]}


@pytest.mark.parametrize("tags", ["2girls", "6+boys", "multiple_others", "1girl 1boy", "12girls"])
def test_several_people_are_counted(tags: str) -> None:
    assert several(tags.split()) and not several(["1girl", "solo"]) and not several(["no_humans"])


def test_what_never_changes_is_constant() -> None:
    pictures = [["1girl", "very_long_hair", "red_eyes", "hat"], ["1girl", "long_hair", "red_eyes"], ["1girl", "long_hair", "blue_eyes"]]
    assert constant(pictures, 0.9, rules_of()) == {"long_hair": 1.0}
    assert constant(pictures, 0.6, rules_of()) == {"long_hair": 1.0, "red_eyes": 2 / 3}
    assert constant([], 0.5, rules_of()) == {}


@given(st.lists(st.lists(st.sampled_from(["red_eyes", "blue_eyes", "ahoge", "hat", "very_long_hair", "long_hair"])), max_size=6), st.floats(0.01, 1))
def test_a_larger_share_absorbs_no_more(pictures: list[list[str]], share: float) -> None:
    some, all_ = constant(pictures, share, rules_of()), constant(pictures, 1.0, rules_of())
    assert set(all_) <= set(some) and all(share <= found <= 1 for found in some.values())
