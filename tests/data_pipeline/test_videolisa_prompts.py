"""VideoLISA's prompts, ids and labels against the recorded ones, letter by letter; Phi-3's tokenizer on its own."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import DataError
from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.chat_prompts import VIDEOLISA, VIDEOLISA_SHORT
from glus.data_pipeline.batches.prompt_style import WORDINGS
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer

from .tiny_splits import PARITY
from .videolisa_recording import CARRIED, Recorded, toy_tokenizer

#: The recording's names of our wordings.
KINDS = {"mevis": "expression", "reason_sentence": "sentence", "reason_phrase": "scene", "chat": "chat"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return toy_tokenizer()


def recorded_conversations(recorded: Recorded) -> list:
    return [
        VIDEOLISA.say(text, "", 32, [tuple(pair)])
        for video in recorded.values["train"]
        for text, pair in zip(video["expressions"], video["question_answer_index"], strict=True)
    ]


def test_conversations_of_training_are_the_references(recorded: Recorded):
    assert [each.text for each in recorded_conversations(recorded)] == recorded.values["train_conversations"]


def test_ids_and_labels_of_training_are_the_references(recorded: Recorded):
    tokenizer = Tokenizer(recorded.tokenizer)
    said = recorded_conversations(recorded)
    rows = [tokenizer.encode(each.text) for each in said]
    ids, attention = padded_ids(rows, tokenizer.pad_id)
    assert ids.tolist() == recorded.arrays["train_input_ids"].tolist()
    assert attention.tolist() == recorded.arrays["train_attention_mask"].tolist()
    for row, each, labels in zip(rows, said, recorded.arrays["train_labels"].tolist(), strict=True):
        begins = len(tokenizer.encode(each.asked))
        due = [-100] * begins + row[begins:]
        assert due + [-100] * (len(labels) - len(due)) == labels


def test_prompts_of_inference_and_their_ids_are_the_references(recorded: Recorded):
    tokenizer = Tokenizer(recorded.tokenizer)
    assert (tokenizer.seg_id, tokenizer.vocab_size) == (recorded.values["seg_token_id"], recorded.values["vocab"])
    for case in recorded.values["infer_prompts"]:
        prompt = VIDEOLISA.ask(case["text"], KINDS[case["kind"]], 32, 4, True)
        assert prompt == case["prompt"]
        assert tokenizer.encode(prompt) == case["input_ids"]


def test_answers_in_words_have_the_recorded_ids_and_labels(recorded: Recorded):
    tokenizer, turn = Tokenizer(recorded.tokenizer), "<|assistant|>\n"
    texts = recorded.values["image_conversations"]
    rows = [tokenizer.encode(text) for text in texts]
    assert padded_ids(rows, tokenizer.pad_id)[0].tolist() == recorded.arrays["image_input_ids"].tolist()
    for row, text, labels in zip(rows, texts, recorded.arrays["image_labels"].tolist(), strict=True):
        begins = len(tokenizer.encode(text[: text.index(turn) + len(turn)]))
        due = [-100] * begins + row[begins:]
        assert due + [-100] * (len(labels) - len(due)) == labels


def test_a_sentence_keeps_its_letters_and_takes_a_long_question():
    said = VIDEOLISA.say("Who  wins the Race?", "sentence", 32, [(3, 4)])
    assert "<image>\nWho  wins the Race? Please output segmentation mask.<|end|>" in said.text
    assert said.text.removeprefix(said.asked) == "[SEG].<|end|>"
    phrase = VIDEOLISA.say(" The  Winner ", "phrase", 32, [(0, 0)])
    assert "Can you segment the the winner in this image?" in phrase.text


def test_images_are_asked_as_the_script_of_image_benchmarks_does():
    """VideoValDataset of the reference's utils/dataset.py."""
    said = VIDEOLISA.ask(" Who Wins? ", "image_sentence", 32, 4, True)
    assert "<image>\n Who Wins? Please output segmentation mask.<|end|>\n<|assistant|>\n[SEG].<|end|>" in said
    said = VIDEOLISA.ask("The Winner ", "image_phrase", 32, 4, True)
    assert "<image>\n What is The Winner in this video? Please output segmentation mask.<|end|>" in said
    assert " left dog in this video?" in VIDEOLISA.ask(" Left Dog", "image", 32, 4, True)


@given(text=st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=40), style=st.sampled_from([0, 1]))
def test_what_is_asked_begins_the_ids_of_the_conversation(text, style):
    """The label rule rests on this: the ids before the answer do not depend on the answer."""
    words, tokenizer = (VIDEOLISA, VIDEOLISA_SHORT)[style], TOY
    for question in range(len(words.questions)):
        for answer in range(len(words.answers)):
            said = words.say(text, "", 4, [(question, answer)])
            asked = tokenizer.encode(said.asked)
            assert tokenizer.encode(said.text)[: len(asked)] == asked


TOY = toy_tokenizer()


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("words", [VIDEOLISA, VIDEOLISA_SHORT])
def test_every_prompt_has_one_image_and_one_seg(words, wording, tokenizer):
    ids = tokenizer.encode(words.ask("a Dog", wording, 32, 4, True))
    assert ids.count(IMAGE_TOKEN_ID) == ids.count(tokenizer.seg_id) == 1
    assert ids.index(IMAGE_TOKEN_ID) < ids.index(tokenizer.seg_id)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CARRIED / "tokenizer", tmp_path / "tokenizer"))


def test_a_phi3_tokenizer_without_seg_says_so(copied: Path):
    """Loading weights refuses it (training/pretrained.py); a run that starts from Phi-3 draws the row."""
    known = json.loads((copied / "added_tokens.json").read_text())
    del known["[SEG]"]
    (copied / "added_tokens.json").write_text(json.dumps(known))
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    del settings["added_tokens_decoder"]["571"]
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer(copied)
    assert tokenizer.fresh == ("[SEG]",) and tokenizer.seg_id == 571
    assert toy_tokenizer().fresh == ()


def test_without_its_settings_phi3s_tokens_swallow_white_space_all_the_same(copied: Path):
    before = Tokenizer(copied).encode(VIDEOLISA.ask("the dog", "expression", 32, 4, True))
    (copied / "tokenizer_config.json").unlink()
    assert Tokenizer(copied).encode(VIDEOLISA.ask("the dog", "expression", 32, 4, True)) == before


def test_two_ids_for_one_token_are_refused(copied: Path):
    known = json.loads((copied / "added_tokens.json").read_text())
    (copied / "added_tokens.json").write_text(json.dumps(known | {"<|end|>": 599}))
    with pytest.raises(DataError, match=r"'<\|end\|>' is 599 in added_tokens.json and 567 in tokenizer_config.json"):
        Tokenizer(copied)


@pytest.mark.parametrize("entry", [{"x": {"content": "a"}}, {"5": {}}, {"5": 3}, {"99999999": {"content": "a"}}])
def test_settings_whose_tokens_are_none_are_refused(copied: Path, entry):
    (copied / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entry}))
    with pytest.raises(DataError, match="is no token; copy it again from the release"):
        Tokenizer(copied)


def test_a_damaged_vocabulary_of_phi3_is_refused(copied: Path):
    (copied / "tokenizer.model").write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match="is no SentencePiece model"):
        Tokenizer(copied)


def test_glus_keeps_its_own_form():
    tokenizer = Tokenizer(PARITY)
    assert "<|end|>" not in tokenizer.added and tokenizer.encode("<|end|>")[0] == tokenizer.bos_id


def test_a_checkpoint_of_phi3s_tokenizer_reads_back_alike(copied: Path):
    again = Tokenizer(copied / "tokenizer.model")
    text = VIDEOLISA.ask("Été \U0001f436\n dog", "chat", 32, 4, True)
    assert again.encode(text) == toy_tokenizer().encode(text)
    assert toy_tokenizer().decode(again.encode("a dog")) != ""
