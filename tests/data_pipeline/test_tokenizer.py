"""The SentencePiece tokenizer with GLUS's added tokens."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import DataError
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer

from .tiny_splits import PARITY


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The small tokenizer that comes with the recorded reference outputs: 560 pieces and three added tokens."""
    return Tokenizer(PARITY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of its tokenizer.model alone."""
    shutil.copy(PARITY / "tokenizer.model", tmp_path)
    return tmp_path


def test_a_folder_and_its_model_file_are_the_same_tokenizer(tokenizer):
    by_file = Tokenizer(PARITY / "tokenizer.model")
    text = "USER: <im_start><im_end>\nthe red bird ASSISTANT: It is [SEG].</s>"
    assert by_file.encode(text) == tokenizer.encode(text)
    assert by_file.path == tokenizer.path


def test_added_tokens_have_the_ids_of_their_file_or_follow_the_vocabulary(tokenizer, folder):
    for each in (tokenizer, Tokenizer(folder)):
        assert each.added == {"[SEG]": 560, "<im_start>": 561, "<im_end>": 562}
        assert (each.seg_id, each.vocab_size) == (560, 563)
        assert (each.bos_id, each.eos_id, each.pad_id) == (1, 2, 0)


def test_the_embedding_table_reaches_to_the_highest_added_id(folder):
    (folder / "added_tokens.json").write_text(json.dumps({"<im_start>": 700, "<im_end>": 701, "[SEG]": 900}))
    assert Tokenizer(folder).vocab_size == 901
    assert Tokenizer(folder).encode("[SEG]") == [1, 900]


def test_the_end_token_is_plain_text_unless_the_folder_names_special_tokens(tokenizer, folder):
    assert tokenizer.encode("dog</s>")[-1] == 2
    assert 2 not in Tokenizer(folder).encode("dog</s>")


def test_blanks_beside_an_added_token_are_dropped_and_others_kept(tokenizer):
    assert tokenizer.encode("it is [SEG] .") == tokenizer.encode("it is[SEG].")
    assert tokenizer.encode("it  is") != tokenizer.encode("it is")


def test_every_image_becomes_one_id_between_its_neighbours(tokenizer):
    ids = tokenizer.encode("<im_start><image><im_end><im_start><image><im_end> a dog")
    assert ids[:7] == [1, 561, IMAGE_TOKEN_ID, 562, 561, IMAGE_TOKEN_ID, 562]
    assert ids[7:] == tokenizer.encode("a dog")[1:]


@given(
    st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="<["), max_size=12), min_size=1)
)
def test_images_are_counted_and_the_text_between_them_is_encoded_on_its_own(parts):
    tokenizer = Tokenizer(PARITY)
    ids = tokenizer.encode("<image>".join(parts))
    assert ids.count(IMAGE_TOKEN_ID) == len(parts) - 1
    alone = [tokenizer.encode(part)[1:] for part in parts]
    assert ids == [1, *sum(([IMAGE_TOKEN_ID] + part for part in alone), [])[1:]]


@given(st.text(st.characters(whitelist_categories=["Ll", "Lu", "Nd", "Lo"]), min_size=1, max_size=30))
def test_any_text_comes_back_from_its_ids(text):
    tokenizer = Tokenizer(PARITY)
    assert tokenizer.decode(tokenizer.encode(text)).strip() == text


def test_decoding_names_images_and_added_tokens(tokenizer):
    ids = tokenizer.encode("<im_start><image><im_end>red bird [SEG]")
    assert tokenizer.decode(ids) == "<im_start><image><im_end>red bird[SEG]"


def test_it_can_be_sent_to_another_process(tokenizer):
    sent = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301  our own bytes: this is how a worker gets it
    assert sent.encode("the red bird [SEG]") == tokenizer.encode("the red bird [SEG]")


def test_an_absent_model_is_refused_with_the_setting_to_change(tmp_path):
    with pytest.raises(DataError, match=r"no SentencePiece model at .*tokenizer\.model: point model\.tokenizer at"):
        Tokenizer(tmp_path)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"tokenizer\.model is no SentencePiece model .*copy it again"):
        Tokenizer(tmp_path)


def test_tokens_that_the_table_lacks_are_added_after_all_others_and_named(tokenizer, folder):
    assert tokenizer.fresh == ()
    assert Tokenizer(folder).fresh == ("[SEG]", "<im_start>", "<im_end>")
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": 560, "<im_start>": 561}))
    added = Tokenizer(folder)
    assert added.fresh == ("[SEG]", "<im_end>")
    assert added.added == {"<pad>": 560, "<im_start>": 561, "[SEG]": 562, "<im_end>": 563}
    assert added.vocab_size == 564


@pytest.mark.parametrize("content", ['{"[SEG]": 560,', '["[SEG]"]', '{"[SEG]": "last"}'])
def test_a_damaged_table_of_added_tokens_is_refused(folder, content):
    (folder / "added_tokens.json").write_text(content)
    with pytest.raises(DataError, match=r"added_tokens\.json: .*copy it again"):
        Tokenizer(folder)
