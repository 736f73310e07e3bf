"""Partners and rivals, on sets made up and on real annotations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.data_contrast import bank_share, contrasted, our_shares, split_of
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.sampling.groups import contrast_of, draw_group
from glus.data_pipeline.shards.index import VideoEntry

object_sets = st.lists(st.frozensets(st.sampled_from("abcd"), min_size=1, max_size=2), min_size=1, max_size=9)


@given(object_sets, st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_group_is_what_was_drawn_first_with_as_much_contrast_as_its_video_offers(sets, room, random):
    order = list(range(len(sets)))
    random.shuffle(order)
    named = dict(enumerate(sets))
    drawn, whole = draw_group(named, order, room)
    assert order[0] in drawn and len(set(drawn)) == len(drawn) == min(room, len(sets))
    tokens = [("video", named[number]) for number in drawn]
    _, _, near = contrasted(tokens)
    assert not whole or near >= 2
    # Nothing is missed: where the first one drawn has a partner and the partner a rival, the slot shows both.
    first = sets[order[0]]
    has_partner = sets.count(first) > 1
    has_rival = any(not first & other for other in sets)
    assert whole or room < 3 or not (has_partner and has_rival)


def entry(*targets: str) -> VideoEntry:
    said = tuple(Expression(str(number), "", tuple(target)) for number, target in enumerate(targets))
    return VideoEntry("mevis", "train", "v", 4, 4, ("0",), said, ())


@pytest.mark.parametrize(
    ("targets", "partners", "rivals"),
    [
        (("1", "1", "4"), True, True),
        (("1", "1"), True, False),
        (("1", "4"), False, False),
        (("1", "1", "14"), True, False),
        (("14", "41", "7"), True, True),
        (("", "", "1"), False, False),
    ],
)
def test_a_video_offers_contrast_where_a_set_has_partners_and_a_rival(targets, partners, rivals):
    offer = contrast_of(entry(*targets))
    assert (offer.partners, offer.rivals, offer.complete) == (partners, rivals, partners and rivals)


def test_tokens_of_a_micro_batch_are_counted_by_hand():
    one, two = frozenset("1"), frozenset("2")
    # Of video a both objects have a partner; the lone expression of b has a rival but no partner.
    micro_batch = [("a", one), ("a", one), ("a", two), ("a", two), ("b", one)]
    assert contrasted(micro_batch) == (5, 4, 4)
    assert contrasted([("a", one), ("a", one), ("b", one)]) == (3, 2, 0)
    assert contrasted([("a", one), ("a", one)]) == (2, 0, 0)


def test_on_real_annotations_99_of_100_tokens_have_a_partner_and_a_rival(real_data):
    split = split_of(real_data / "Refer-YouTube-VOS" / "meta_expressions" / "train" / "meta_expressions.json")
    shares = our_shares(split, steps=15)
    assert shares.contrasted >= 0.99
    # More than the reference's bank gives, which has no rule for partners.
    assert bank_share(split, steps=5) < 0.8 < shares.contrasted
