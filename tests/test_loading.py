"""Models by alias and from folders: whole and as they were saved, or refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from capacity.errors import DataError, SpecError
from capacity.models.loading import load, model_folder

TEXTS = ("3+4=", "12+34*5=", "7 plus 8", "First 7+8 gives 15, then 15*2 gives 30.\nThe answer is 30", "", " 1  2")
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def saved(loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as transformers saves it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    for part in loaded:
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copied"))


def test_an_alias_and_a_saved_copy_give_the_same_model(loaded: Any, saved: Path) -> None:
    for name in ("abacus", "Abacus-0.9M", str(saved)):
        model, _ = load(name, "cpu")
        state = model.state_dict()
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert all(torch.equal(t, state[key]) for key, t in loaded[0].state_dict().items())


def test_a_saved_copy_has_the_same_tokenizer(loaded: Any, saved: Path) -> None:
    """AutoTokenizer would put byte-level splitting onto the tokenizer of a Qwen2 folder."""
    from transformers import AutoTokenizer

    here, there = loaded[1], load(str(saved), "cpu")[1]
    assert [there.encode(text) for text in TEXTS] == [here.encode(text) for text in TEXTS]
    assert [there.decode(here.encode(text)) for text in TEXTS] == [here.decode(here.encode(text)) for text in TEXTS]
    assert (there.bos_token_id, there.eos_token_id, there.pad_token_id) == (1, 2, 0)
    auto = AutoTokenizer.from_pretrained(saved, local_files_only=True)
    assert [auto.encode(text) for text in TEXTS] != [here.encode(text) for text in TEXTS]


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_come_in_the_dtype_asked_for(loaded: Any, name: str, dtype: torch.dtype) -> None:
    model, _ = load("abacus", "cpu", name)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.equal(model.get_parameter(DOWN), loaded[0].get_parameter(DOWN).to(dtype))


def test_a_tokenizer_without_padding_pads_with_its_end(copied: Path) -> None:
    path = copied / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))
    assert load(str(copied), "cpu")[1].pad_token_id == 2


def _truncate(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_bytes((folder / file).read_bytes()[:-100])

    return change


def _remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def _without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[DOWN]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _of_another_width(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 400}))


def _a_list(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")


def _without_end(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    absent = ("eos_token", "pad_token")
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in absent}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_truncate("model.safetensors"), "the model cannot be loaded: .*file not fully covered"),
        (_remove("model.safetensors"), r"the model cannot be loaded: .*no file named model\.safetensors"),
        (_without_a_tensor, f"the model is not whole: 1 of its tensors .*{DOWN} first"),
        (_of_another_width, f"the model is not whole: 12 of its tensors .*another shape, {DOWN} first"),
        (_truncate("tokenizer.json"), "the tokenizer cannot be loaded: Expecting"),
        (_remove("tokenizer.json"), r"the model has no tokenizer \(tokenizer\.json\)"),
        (_a_list, "the tokenizer cannot be loaded: 'list' object"),
        (_without_end, "the tokenizer names no end-of-sequence token, .*set eos_token in tokenizer_config.json"),
        (_truncate("config.json"), "cannot be read as JSON"),
    ],
    ids=["truncated", "no weights", "no tensor", "width", "tokenizer", "no tokenizer", "list", "no end", "config"],
)
def test_broken_folders_are_refused_in_one_line(copied: Path, change: Any, message: str) -> None:
    change(copied)
    with pytest.raises(DataError, match=rf"^\S*{copied}\S*: {message}") as refusal:
        load(str(copied), "cpu")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("abakus", "^unknown model 'abakus': did you mean abacus"),
        ("./abacus", r"^\./abacus: no such folder$"),
    ],
)
def test_names_that_stand_for_no_local_model_are_refused(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        model_folder(name)
    with pytest.raises(SpecError, match=message):
        load(name, "cpu")


def test_a_hub_model_that_is_not_here_says_what_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"^model Qwen/Qwen2\.5-3B-Instruct is not in the cache .* give its folder$"):
        load("qwen2.5-3b", "cpu")


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r": no model folder, it has no config\.json$"):
        load(str(tmp_path), "cpu")
