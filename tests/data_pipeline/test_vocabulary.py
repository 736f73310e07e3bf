"""A tokenizer.json, as SmolLM2 has it, behind the same Tokenizer as LLaMA's SentencePiece model."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from glus.common.errors import DataError
from glus.data_pipeline.batches.conversations import conversation
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer

from .tiny_splits import PARITY

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer.json (byte-level BPE) and tokenizer_config.json, made by the library that makes the real ones."""
    folder = tmp_path_factory.mktemp("smollm")
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["Can you segment the red bird in this frame?", "Sure, it is ."], trainer)
    made.enable_truncation(4)  # a release may bring such settings; a conversation must not be cut by them
    made.save(str(folder / "tokenizer.json"))
    names = {"unk_token": SPECIAL[0], "bos_token": {"content": SPECIAL[1]}, "eos_token": SPECIAL[2]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.fixture
def folder(released: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(released, tmp_path / "copy"))


def test_special_tokens_are_those_that_the_release_names_and_glus_own_are_added(released):
    tokenizer = Tokenizer(released)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    assert tokenizer.fresh == ("[SEG]", "<im_start>", "<im_end>")
    assert tokenizer.vocab_size == tokenizer.added["<im_end>"] + 1 == tokenizer.seg_id + 3
    assert tokenizer.path.name == "tokenizer.json"


def test_conversations_are_tokenized_whole_with_frames_seg_and_ends(released):
    tokenizer = Tokenizer(released)
    text = conversation("the red bird", 4, [(0, 2), (1, 0)])
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id
    assert ids.count(IMAGE_TOKEN_ID) == 6 and ids.count(tokenizer.seg_id) == 2 and ids.count(tokenizer.eos_id) == 2
    assert tokenizer.decode(tokenizer.encode("the red bird")[1:]) == "the red bird"


def test_tokens_that_the_release_holds_already_keep_their_ids(folder):
    made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.add_special_tokens(["[SEG]", "<im_start>", "<im_end>"])
    made.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder)
    assert tokenizer.fresh == ()
    assert tokenizer.seg_id == made.token_to_id("[SEG]") and tokenizer.vocab_size == made.get_vocab_size()


def test_a_sentencepiece_model_goes_before_a_tokenizer_json_unless_the_file_is_named(folder):
    shutil.copy(PARITY / "tokenizer.model", folder)
    assert Tokenizer(folder).path.name == "tokenizer.model"
    assert Tokenizer(folder / "tokenizer.json").path.name == "tokenizer.json"


def test_it_can_be_sent_to_another_process(released):
    tokenizer = Tokenizer(released)
    sent = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301  our own bytes: this is how a worker gets it
    assert sent.encode("a bird [SEG]") == tokenizer.encode("a bird [SEG]")


def test_a_release_that_names_no_end_is_refused(folder):
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(DataError, match=r"name no eos_token of tokenizer\.json: copy them from the release"):
        Tokenizer(folder)


def test_damaged_files_are_refused(folder):
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(DataError, match=r"tokenizer_config\.json: a JSON list .*copy it again"):
        Tokenizer(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json is no tokenizer .*copy it again"):
        Tokenizer(folder)
