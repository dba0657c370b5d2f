"""Words for people, and hostile text made harmless."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from hansa.web.words import byte_size, clean, duration, listing, number, setting

anything = st.text(st.characters(exclude_categories=[]), max_size=200)


@given(anything, st.integers(2, 80))
def test_cleaned_text_is_short_visible_and_can_be_encoded(text, limit):
    shown = clean(text, limit)
    assert len(shown) <= limit
    shown.encode("utf-8")
    hidden = {unicodedata.category(c) for c in shown if c not in "\u200c\u200d"}
    assert not hidden & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert clean(shown, limit) == shown


def test_a_direction_override_is_spelt_out():
    assert clean("invoice\u202egnp.exe") == "invoice\\u202egnp.exe"


def test_letters_of_all_scripts_stay():
    for name in ("Krankenhaus Süd", "東京病院", "بیمارستان\u200cشمال", "👩\u200d⚕️ ward"):
        assert clean(name) == name


def test_ten_thousand_characters_are_cut():
    assert clean("A" * 10_000, 60) == "A" * 59 + "…"


def test_values_of_one_size_have_the_same_number_of_decimals():
    assert [number(v) for v in (0.5, 0.9531, 1.0)] == ["0.500", "0.953", "1.000"]


def test_negative_and_extreme_numbers_are_readable():
    assert [number(v) for v in (-0.25, -1234.5, 3e-9)] == ["-0.250", "-1,234", "3.00e-09"]


def test_a_second_below_a_minute_does_not_become_sixty():
    assert [duration(s) for s in (59.94, 59.96, 3599.6)] == ["59.9 s", "1 min 00 s", "1 h 00 min"]


def test_bytes_move_to_the_next_unit_before_they_read_one_thousand():
    assert [byte_size(n) for n in (0, 999, 999_949, 999_999)] == [
        "0 B",
        "999 B",
        "999.9 kB",
        "1.0 MB",
    ]


def test_lists_say_how_many_are_left_out():
    assert [listing([]), listing(["a"]), listing(["a", "b"])] == ["", "a", "a and b"]


def test_settings_read_as_in_a_plan():
    assert setting({"name": "clip", "norm": 1.0}) == '{"name": "clip", "norm": 1.0}'
    assert setting("") == '""'
