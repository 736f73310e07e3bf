"""Releases whose files are not what they should be: refused by name, at once, and nothing in them runs."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glus.common.errors import ModelError, UserError
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.model.glus import Glus
from glus.model.precision import LARGEST, why_unusable
from glus.model.released.load_release import load_segmenter
from glus.model.released.release_files import ReleasedWeights
from glus.model.released.safetensors_file import save_tensors

from .reference import CARRIED, NANO
from .releases import SEG, VOCABULARY, open_glus, sam2_tensors, write_clip, write_glus

#: Values and how they are stored; none of them is a weight.
UNUSABLE = {
    "NaN": (torch.tensor(float("nan")), "holds NaN, infinite values"),
    "inf": (torch.tensor(float("inf")), "holds NaN, infinite values"),
    "-inf in float16": (torch.tensor(-float("inf")).half(), "holds NaN, infinite values"),
    "above bf16": (torch.tensor(3.4e38), r"holds NaN, infinite values or some above 3\.38953e\+38"),
    "float64": (torch.tensor(1e300, dtype=torch.float64), r"holds NaN, infinite values or some above 3\.38953e\+38"),
    "int8": (torch.tensor(7, dtype=torch.int8), r"holds int8 numbers \(quantised\?\)"),
    "float8": (torch.tensor(7.0).to(torch.float8_e4m3fn), "holds float8_e4m3fn numbers"),
    "complex": (torch.tensor(1j), "holds complex64 numbers"),
}


@pytest.fixture(scope="module")
def segmenter_alone() -> Glus:
    torch.manual_seed(0)
    return Glus(NANO, VOCABULARY, SEG)


@pytest.mark.parametrize("form", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_numbers_that_are_no_weights_are_refused_by_their_parameter(segmenter_alone, tmp_path, kind, form):
    value, message = UNUSABLE[kind]
    name, tensors = "memory_attention.norm.weight", dict(sam2_tensors())
    changed = torch.ones(tensors[name].shape).to(value.dtype)
    changed[-1] = value
    file = tmp_path / f"sam2.{form}"
    tensors = {each: tensor.contiguous().clone() for each, tensor in tensors.items()} | {name: changed}
    torch.save({"model": tensors}, file) if form == "pt" else save_tensors(tensors, file)
    with pytest.raises(ModelError, match=rf"{file}: memory_attention\.norm\.weight {message}.*; download"):
        load_segmenter(segmenter_alone, file)


def test_the_largest_value_of_bf16_and_empty_tensors_are_weights():
    assert why_unusable(torch.tensor([-LARGEST, LARGEST])) == why_unusable(torch.zeros(0)) == ""
    assert why_unusable(torch.tensor([1.0, LARGEST]).bfloat16()) == ""


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


def _pointer(file: Path) -> None:
    file.write_bytes(POINTER)


#: Kind of file -> what makes it, and what the message says.
KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pointer": (_pointer, "a Git LFS pointer instead of the .*: run `git lfs pull`"),
    "pipe": (os.mkfifo, "a named pipe instead of a regular file"),
    "endless": (lambda file: file.symlink_to("/dev/zero"), "a device instead of a regular file"),
    "dangling": (lambda file: file.symlink_to("gone"), "gone, which is not there|is not there|no such"),
}
#: Every file of a release that is read, by what it is.
FILES = {
    "config": "glus/config.json",
    "index": "glus/pytorch_model.bin.index.json",
    "shard": "glus/pytorch_model-00001-of-00002.bin",
    "tokenizer": "glus/tokenizer.model",
    "added tokens": "glus/added_tokens.json",
    "sums": "glus/SHA256SUMS",
    "sizes": "glus/glus_model.json",
    "tower's config": "clip/config.json",
    "tower's pixels": "clip/preprocessor_config.json",
    "tower": "clip/pytorch_model.bin",
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """glus/ and clip/, without the lists that only an export has."""
    root = tmp_path_factory.mktemp("release")
    write_glus(root / "glus")
    write_clip(root / "clip")
    return root


def open_all(root: Path) -> None:
    """As a command does that predicts with a release."""
    from glus.model.released.release_sums import check_sums

    check_sums(root / "glus")
    open_glus(root / "glus", str(root / "clip"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_release_that_is_none_is_named_with_what_it_is(release, tmp_path, name, kind):
    root = tmp_path / "release"
    shutil.copytree(release, root, copy_function=os.link)
    make, message = KINDS[kind]
    file = root / FILES[name]
    file.unlink(missing_ok=True)
    make(file)
    with pytest.raises(UserError, match=message) as caught:
        open_all(root)
    assert file.name in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["sam2.pt", "pytorch_model.bin", "model.safetensors", "model.safetensors.index.json"])
def test_a_file_of_weights_that_is_none_is_named_with_what_it_is(tmp_path, name, kind):
    make, message = KINDS[kind]
    make(tmp_path / name)
    for place in (tmp_path / name, tmp_path) if name.startswith(("model", "pytorch")) else (tmp_path / name,):
        with pytest.raises(UserError, match=message) as caught:
            ReleasedWeights.open(place)
        assert name in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_file_of_a_fast_tokenizer_that_is_none_is_named_with_what_it_is(tmp_path, name, kind):
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "<e>": 1}, [])).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<e>"}))
    assert Tokenizer(tmp_path).eos_id == 1
    make, message = KINDS[kind]
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        Tokenizer(tmp_path)
    assert name in str(caught.value)


def test_a_vocabulary_that_is_none_is_not_replaced_by_the_other_kind_next_to_it(tmp_path):
    shutil.copy(CARRIED / "tokenizer.model", tmp_path / "tokenizer.json")
    os.mkfifo(tmp_path / "tokenizer.model")
    with pytest.raises(UserError, match=r"tokenizer\.model: a named pipe"):
        Tokenizer(tmp_path)


class Marking:
    """A pickle that makes a file where it is opened carelessly."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def rewritten(file: Path, method: int, changed: tuple[bytes, bytes] = (b"", b"")) -> None:
    """Write the parts of a zip again, the pickle among them changed."""
    with zipfile.ZipFile(file) as archive:
        parts = {each.filename: archive.read(each) for each in archive.infolist()}
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(*changed) if name.endswith("data.pkl") and changed[0] else content)


@pytest.mark.parametrize("content", ["tensors", "payload"])
def test_compressed_parts_are_refused_before_they_are_unpacked(tmp_path, content):
    file, mark = tmp_path / "pytorch_model.bin", tmp_path / "ran"
    torch.save({"w": torch.zeros(10**6) if content == "tensors" else Marking(mark)}, file)
    rewritten(file, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin holds compressed parts, which torch never writes"):
        ReleasedWeights.open(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_plain_pickle_is_no_file_of_weights_and_does_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    (tmp_path / "sam2.pt").write_bytes(pickle.dumps({"model": Marking(mark)}, protocol))
    with pytest.raises(ModelError, match=r"sam2\.pt (holds more than tensors|cannot be read)"):
        ReleasedWeights.open(tmp_path / "sam2.pt")
    assert not mark.exists()


def expanded() -> Tensor:
    return torch.zeros(1).expand(2**20, 2**20)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path, zipped):
    """One number that is said to be 4 TB of weights."""
    file = tmp_path / "sam2.pt"
    torch.save({"w": expanded()}, file, _use_new_zipfile_serialization=zipped)
    assert file.stat().st_size < 10_000
    with pytest.raises(ModelError, match=r"w has fewer numbers than its shape \[1048576, 1048576\]"):
        ReleasedWeights.open(file)


def test_a_shape_beyond_its_storage_is_refused(tmp_path):
    """As no torch writes it: the pickle says a larger size than the bytes that are there."""
    file = tmp_path / "sam2.pt"
    torch.save({"w": torch.zeros(5, 7)}, file)
    rewritten(file, zipfile.ZIP_STORED)
    assert ReleasedWeights.open(file).shapes == {"w": (5, 7)}
    rewritten(file, zipfile.ZIP_STORED, (b"K\x05K\x07", b"K\xffK\x07"))
    with pytest.raises(ModelError, match=r"sam2\.pt"):
        ReleasedWeights.open(file)
