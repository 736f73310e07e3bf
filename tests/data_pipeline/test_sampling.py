"""Which videos, frames and expressions meet at a step."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glus.common.errors import DataError
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig, Slot, middle_context, random_context
from glus.data_pipeline.shards.reader import ShardedSplit

from .tiny_splits import Drawing, draw, write_splits

BOTH = SamplingConfig(mixture={"mevis/train": 3.0, "refer_youtube_vos/train": 1.0}, expressions=3)
SLOTS = 6


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> list[ShardedSplit]:
    return write_splits(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def plan(splits) -> SamplePlan:
    return SamplePlan(splits, BOTH, seed=5, slots=SLOTS)


def name_of(plan: SamplePlan, slot: Slot) -> str:
    return plan.splits[slot.split].videos[slot.video].video


def drawn(plan: SamplePlan, steps: int) -> list[Slot]:
    return [slot for step in range(steps) for slot in plan.global_batch(step)]


@settings(max_examples=30)
@given(steps=st.lists(st.integers(0, 10**7), min_size=1, max_size=4))
def test_a_step_is_the_same_whenever_and_wherever_it_is_asked_for(plan, splits, steps):
    first = {step: plan.global_batch(step) for step in steps}
    elsewhere = SamplePlan(splits, BOTH, seed=5, slots=SLOTS)
    assert {step: elsewhere.global_batch(step) for step in reversed(steps)} == first
    assert {step: plan.global_batch(step) for step in reversed(steps)} == first


def test_a_plan_sent_to_another_process_draws_the_same(plan):
    sent = pickle.loads(pickle.dumps(plan))  # noqa: S301  our own bytes: this is how a worker gets it
    assert drawn(sent, 5) == drawn(plan, 5)


def test_seeds_steps_and_slots_differ(plan, splits):
    other = SamplePlan(splits, BOTH, seed=6, slots=SLOTS)
    assert drawn(other, 5) != drawn(plan, 5)
    assert len(set(drawn(plan, 50))) > 290


def test_a_larger_batch_begins_with_the_smaller_one(plan, splits):
    larger = SamplePlan(splits, BOTH, seed=5, slots=2 * SLOTS)
    assert larger.global_batch(3)[:SLOTS] == plan.global_batch(3)


@pytest.mark.parametrize(("first", "second"), [(3.0, 1.0), (1.0, 1.0), (40.0, 150.0)])
def test_splits_are_drawn_by_their_weights(splits, first, second):
    config = replace(BOTH, mixture={"mevis/train": first, "refer_youtube_vos/train": second})
    slots = drawn(SamplePlan(splits, config, seed=0, slots=SLOTS), 400)
    share = first / (first + second)
    deviation = (share * (1 - share) / len(slots)) ** 0.5
    assert abs(np.mean([slot.split == 0 for slot in slots]) - share) < 4 * deviation


def test_a_split_of_weight_0_is_never_drawn(splits):
    config = replace(BOTH, mixture={"mevis/train": 0.0, "refer_youtube_vos/train": 1.0})
    plan = SamplePlan(splits, config, seed=0, slots=SLOTS)
    assert [split.dataset for split in plan.splits] == ["refer_youtube_vos"]
    assert {name_of(plan, slot) for slot in drawn(plan, 20)} == {"long", "exact"}


def test_short_videos_and_those_without_targets_are_never_drawn(plan):
    counts = Counter(name_of(plan, slot) for slot in drawn(plan, 200))
    assert set(counts) == {"groups", "one_object", "no_pair", "long", "exact"}
    # Videos of one split are drawn alike: 300 of 1200 each, deviation 15.
    assert all(abs(counts[name] - 300) < 60 for name in ("groups", "one_object", "no_pair"))


def test_query_frames_are_consecutive_and_every_start_is_drawn(plan):
    starts = {}
    for slot in drawn(plan, 300):
        entry = plan.splits[slot.split].videos[slot.video]
        assert slot.query == tuple(range(slot.query[0], slot.query[0] + 4))
        assert slot.query[0] >= 0 and slot.query[-1] < len(entry.frame_names)
        starts.setdefault(entry.video, set()).add(slot.query[0])
    assert starts["groups"] == set(range(6)) and starts["exact"] == {0} and starts["long"] == set(range(20))


def test_context_frames_come_one_from_each_quarter_of_the_video(plan):
    for slot in drawn(plan, 100):
        if name_of(plan, slot) == "long":
            # 23 frames in quarters that begin at 0, 5, 11 and 17.
            first, second, third, fourth = slot.context
            assert 0 <= first < 5 <= second < 11 <= third < 17 <= fourth < 23


@given(frames=st.integers(1, 400), parts=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_any_video_gives_one_context_frame_for_each_part_of_it(frames, parts, seed):
    chosen = random_context(frames, parts, np.random.Generator(np.random.Philox(key=seed)))
    bounds = np.linspace(0, frames, parts + 1, dtype=int)
    assert len(chosen) == parts and list(chosen) == sorted(chosen)
    for frame, low, high in zip(chosen, bounds[:-1], bounds[1:], strict=True):
        assert (low <= frame < high) if high > low else (frame == max(low - 1, 0))


def test_every_frame_of_a_part_is_drawn_sooner_or_later():
    random = np.random.Generator(np.random.Philox(key=0))
    assert {frame for _ in range(300) for frame in random_context(23, 4, random)} == set(range(23))


@given(frames=st.integers(1, 400))
def test_inference_takes_the_middle_of_each_quarter(frames):
    offsets = np.arange(int(np.ceil(frames / 4)))
    bounds = np.linspace(0, frames, 5, dtype=int)
    middle = offsets[len(offsets) // 2]
    expected = [min(low + middle, max(high - 1, 0)) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
    assert list(middle_context(frames, 4)) == expected
    assert all(0 <= frame < frames for frame in middle_context(frames, 4))


def test_context_frames_of_inference_by_hand():
    assert middle_context(9, 4) == (1, 3, 5, 7)
    assert middle_context(100, 4) == (12, 37, 62, 87)
    assert middle_context(1, 4) == (0, 0, 0, 0)
    assert middle_context(9, 0) == ()


def test_expressions_are_different_ones_with_known_masks_and_each_has_its_templates(plan):
    seen = set()
    for slot in drawn(plan, 200):
        entry = plan.splits[slot.split].videos[slot.video]
        known = [number for number, each in enumerate(entry.expressions) if each.object_ids]
        assert len(set(slot.expressions)) == len(slot.expressions) == min(3, len(known))
        assert set(slot.expressions) <= set(known)
        assert np.shape(slot.templates) == (len(slot.expressions), 4, 2)
        seen |= {(entry.video, number) for number in slot.expressions}
    assert {number for video, number in seen if video == "groups"} == {0, 1, 2, 3, 4, 5}


def holds_a_pair_and_a_rival(plan: SamplePlan, slot: Slot) -> bool:
    said = plan.splits[slot.split].videos[slot.video].expressions
    sets = [frozenset(said[number].object_ids) for number in slot.expressions]
    pairs = [one for place, one in enumerate(sets) if one in sets[place + 1 :]]
    return any(not pair & rival for pair in pairs for rival in sets)


@pytest.mark.parametrize("expressions", [3, 4, 5])
def test_a_grouped_slot_holds_a_pair_of_one_object_and_a_rival(splits, expressions):
    plan = SamplePlan(splits, replace(BOTH, expressions=expressions), seed=1, slots=SLOTS)
    grouped = [slot for slot in drawn(plan, 100) if slot.grouped]
    assert {name_of(plan, slot) for slot in grouped} == {"groups", "long"}
    assert all(holds_a_pair_and_a_rival(plan, slot) for slot in grouped)
    # Every pair is drawn: two in "groups", two in "long".
    assert len({(name_of(plan, slot), frozenset(slot.expressions[:2])) for slot in grouped}) == 4


def test_a_slot_is_grouped_wherever_its_first_expression_has_a_part_in_it(splits):
    plan = SamplePlan(splits, BOTH, seed=1, slots=SLOTS)
    slots = drawn(plan, 200)
    assert all(slot.grouped for slot in slots if name_of(plan, slot) == "long")
    in_groups = [slot for slot in slots if name_of(plan, slot) == "groups"]
    # Number 5 has no partner but is a rival of both pairs. Number 4 overlaps both pairs: no group can hold it.
    assert all((4 in slot.expressions) != slot.grouped for slot in in_groups)
    assert any(slot.grouped and 5 in slot.expressions for slot in in_groups)
    assert 0.75 < np.mean([slot.grouped for slot in in_groups]) < 0.92  # 5 of 6


def test_with_room_for_four_the_rival_has_a_partner_too(splits):
    plan = SamplePlan(splits, replace(BOTH, expressions=4), seed=1, slots=SLOTS)
    for slot in (slot for slot in drawn(plan, 100) if slot.grouped and name_of(plan, slot) == "long"):
        said = plan.splits[slot.split].videos[slot.video].expressions
        assert sorted(said[number].object_ids for number in slot.expressions) == [("1",), ("1",), ("4",), ("4",)]


def test_the_plain_way_draws_as_the_reference_does(splits):
    config = replace(BOTH, group_by_object=False, independent_draws=True)
    plan = SamplePlan(splits, config, seed=3, slots=SLOTS)
    slots = drawn(plan, 400)
    share = np.mean([slot.split == 0 for slot in slots])
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / len(slots)) ** 0.5
    # Independent: how often two neighbours come of one split is what chance gives, 10 of 16.
    same = np.mean([one.split == other.split for one, other in zip(slots[::2], slots[1::2], strict=True)])
    assert abs(same - 0.625) < 0.06 and not any(slot.grouped for slot in slots)


@pytest.mark.parametrize("change", [{"group_by_object": False}, {"expressions": 2}])
def test_without_grouping_or_room_for_it_expressions_are_drawn_at_random(splits, change):
    plan = SamplePlan(splits, replace(BOTH, **change), seed=1, slots=SLOTS)
    slots = drawn(plan, 100)
    assert not any(slot.grouped for slot in slots)
    count = change.get("expressions", 3)
    of_groups = Counter(number for slot in slots if name_of(plan, slot) == "groups" for number in slot.expressions)
    times = sum(of_groups.values()) / count
    # Six expressions, each in `count` of six draws.
    assert all(abs(of_groups[number] / times - count / 6) < 0.17 for number in range(6))


def test_context_frames_that_are_drawn_apart_change_nothing_else(splits):
    """Without the switch, other numbers of context frames mean other expressions."""
    counts = (0, 2, 4)
    for apart in (True, False):
        plans = [
            SamplePlan(splits, replace(BOTH, context_frames=count, context_apart=apart), seed=5, slots=SLOTS)
            for count in counts
        ]
        seen = [[(slot.split, slot.video, slot.query, slot.expressions) for slot in drawn(plan, 20)] for plan in plans]
        assert (seen[0] == seen[1] == seen[2]) == apart
    context = [slot.context for slot in drawn(plans[2], 20)]
    assert len(set(context)) > 1


def test_the_single_frame_control_shows_one_frame_in_all_places(splits, plan):
    control = SamplePlan(splits, replace(BOTH, single_frame=True), seed=5, slots=SLOTS)
    for slot, full in zip(drawn(control, 50), drawn(plan, 50), strict=True):
        assert len(slot.context) == len(slot.query) == 4 and len({*slot.context, *slot.query}) == 1
        # Nothing else differs, so that the two runs can be compared.
        assert replace(slot, context=full.context, query=full.query) == full
        assert slot.query[0] == full.query[0]


def test_the_fingerprint_is_that_of_the_data_and_changes_with_it(plan, splits):
    assert plan.fingerprint == "-".join(split.fingerprint[:16] for split in splits)
    alone = SamplePlan(splits, replace(BOTH, mixture={"mevis/train": 1.0}), seed=5, slots=SLOTS)
    assert alone.fingerprint == splits[0].fingerprint[:16]


def test_a_mixture_with_an_unknown_split_is_refused_with_those_there_are(splits):
    config = SamplingConfig(mixture={"mevis/train": 1.0, "mevis/trian": 1.0})
    with pytest.raises(DataError, match="names mevis/trian, but the shards hold mevis/train, refer_youtube_vos/train"):
        SamplePlan(splits, config, seed=0, slots=1)


@pytest.mark.parametrize("weight", [-1.0, -1e-9, float("nan"), float("inf")])
def test_weights_that_are_no_weights_are_refused(splits, weight):
    config = SamplingConfig(mixture={"mevis/train": 1.0, "refer_youtube_vos/train": weight})
    with pytest.raises(DataError, match=r"the weight of refer_youtube_vos/train is .*numbers from 0 up"):
        SamplePlan(splits, config, seed=0, slots=1)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64, 1024])
@given(step=st.integers(0, 10**6), workers=st.integers(0, 4))
@settings(max_examples=3, deadline=None)
def test_any_number_of_ranks_shares_the_same_global_batch_in_the_same_order(plan, ranks, step, workers):
    many = SamplePlan(plan.splits, plan.config, plan.seed, slots=3072)
    settings = {"ranks": ranks, "size": 1, "start": step, "stop": step + 1, "workers": workers}
    own = [Loader(many, None, rank=rank, **settings) for rank in range(ranks)]
    turns = [[loader.slots_of(loader.position + turn) for turn in range(3072 // ranks)] for loader in own]
    together = [place for turn in zip(*turns, strict=True) for place in turn]
    assert together == [(step, range(slot, slot + 1)) for slot in range(3072)]
    slots = {slot: many.slot(*slot) for slot in [(step, 0), (step, 1535), (step, 3071)]}
    assert slots[step, 0] == plan.global_batch(step)[0]
    assert SamplePlan(plan.splits, plan.config, plan.seed, slots=3072).slot(step, 3071) == slots[step, 3071]


@pytest.mark.parametrize("mixture", [{}, {"mevis/train": 0.0}])
def test_an_empty_mixture_is_refused(splits, mixture):
    with pytest.raises(DataError, match=r"sampling\.mixture is empty: name at least one split"):
        SamplePlan(splits, SamplingConfig(mixture=mixture), seed=0, slots=1)


def test_a_split_whose_videos_are_all_too_short_is_refused(splits):
    config = SamplingConfig(mixture={"mevis/train": 1.0}, query_frames=10)
    with pytest.raises(DataError, match="mevis/train has no video with 10 frames and an expression .* take it out of"):
        SamplePlan(splits, config, seed=0, slots=1)


def of_kinds(drawing: Drawing, *kinds: str) -> Drawing:
    said = [replace(each, kind=kind) for each, kind in zip(drawing.expressions, kinds, strict=True)]
    return replace(drawing, expressions=tuple(said))


@pytest.fixture(scope="module")
def kinds_of_expressions(tmp_path_factory) -> list[ShardedSplit]:
    """Video "moves" has a look whose target nobody knows: of it only motion can be drawn."""
    videos = [
        of_kinds(draw("both", 6, 32, 48, ["1", "4", "1", "4"]), "look", "motion", "motion", "relation"),
        of_kinds(draw("moves", 6, 32, 48, ["1", "4", ""]), "motion", "motion", "look"),
        of_kinds(draw("looks", 6, 32, 48, ["1", "4"]), "look", "look"),
    ]
    return write_splits(tmp_path_factory.mktemp("kinds"), {"mevis/train": videos})


def test_expressions_of_the_kinds_asked_for_are_drawn_alone(kinds_of_expressions):
    config = replace(BOTH, mixture={"mevis/train": 1.0}, kinds=("look", "relation"))
    slots = drawn(SamplePlan(kinds_of_expressions, config, seed=0, slots=SLOTS), 30)
    videos = kinds_of_expressions[0].videos
    assert {videos[slot.video].video: set(slot.expressions) for slot in slots} == {"both": {0, 3}, "looks": {0, 1}}
    every = SamplePlan(kinds_of_expressions, replace(config, kinds=(), expressions=4), seed=0, slots=SLOTS)
    assert {videos[slot.video].video: set(slot.expressions) for slot in drawn(every, 30)} == {
        "both": {0, 1, 2, 3},
        "moves": {0, 1},
        "looks": {0, 1},
    }


def test_a_split_without_the_kinds_asked_for_is_refused(kinds_of_expressions):
    config = replace(BOTH, mixture={"mevis/train": 1.0}, kinds=("reasoning",))
    with pytest.raises(DataError, match=r"whose kind is among sampling.kinds=\['reasoning'\]: take it"):
        SamplePlan(kinds_of_expressions, config, seed=0, slots=SLOTS)


def test_kinds_do_not_go_with_references():
    with pytest.raises(DataError, match="sampling.kinds does not go with"):
        replace(BOTH, frame_choice="references", query_frames=1, frame_scores="scores", kinds=("look",))
