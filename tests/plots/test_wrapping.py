"""Texts in lines."""

from caap_lab.plots.wrapping import wrapped


def test_words_stay_whole_where_they_fit() -> None:
    assert wrapped("a map of integrated_gradients (steps=50)", 22) == "a map of\nintegrated_gradients\n(steps=50)"


def test_long_words_are_broken_after_punctuation() -> None:
    assert wrapped("caap:direction=remove,neighbourhood=none", 18) == "caap:direction=\nremove,\nneighbourhood=none"
    assert wrapped("transformer_attribution", 18) == "transformer_\nattribution"
    assert wrapped("caap:direction=remove", 21) == "caap:direction=remove"


def test_words_without_punctuation_are_broken_at_the_end_of_a_line() -> None:
    assert wrapped("abcdefgh", 3) == "abc\ndef\ngh"


def test_the_rest_of_a_long_text_is_cut() -> None:
    assert wrapped("one two three four five", 9, most=2) == "one two\nthree ..."
