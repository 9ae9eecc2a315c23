"""What ends a completion: the model's own list of tokens, and the token that ends a turn in its chat format."""

from typing import Any

import pytest
import torch
from chatting import FORMATS, tokenizer_of, writes
from small import small_spec

from capacity.adapters.attach import attach
from capacity.errors import DataError
from capacity.library.measured import Measured
from capacity.models.ends import end_tokens, turn_end
from capacity.sampling.evaluate import evaluate
from capacity.sampling.own_model import TransformersSampler
from capacity.sampling.prompts import prompt_ids
from capacity.spec.adapters import FullUpdate
from capacity.spec.parts import EvaluationSpec
from capacity.tasks.abacus import AbacusTask
from capacity.tasks.task import Item
from capacity.training.batches import DEMONSTRATION_STREAM, encode_completions, generator
from capacity.training.sft import SftArm

CHAT = Item("test-0", "2+2?", "4", (("user", "2+2?"),))
PLAIN = Item("test-0", "2+2?", "4")


class FourTask(AbacusTask):
    """One item, whose answer and demonstration is 4."""

    def __init__(self, item: Item) -> None:
        super().__init__()
        self.item = item

    def items(self, split: Any, count: int | None = None) -> Any:  # noqa: ARG002
        return [self.item]

    def demonstrations(self, item: Item, count: int, rng: Any) -> list[str]:  # noqa: ARG002
        return ["4"] * count

    def grade(self, item: Item, completion: str) -> bool:
        return completion == item.answer


def answering(name: str, end: str) -> tuple[Any, Any]:
    """A model that writes 4 and then `end`, and its tokenizer."""
    form = FORMATS[name]
    tokenizer = tokenizer_of(form)
    (four,) = tokenizer.encode("4", add_special_tokens=False)
    asked = prompt_ids(tokenizer, CHAT if form.template else PLAIN)
    tokenizer.pad_token = tokenizer.eos_token
    follows = {asked[-1]: four, four: tokenizer.convert_tokens_to_ids(end)}
    return writes(tokenizer, follows, tokenizer.convert_tokens_to_ids(list(form.listed))), tokenizer


@pytest.mark.parametrize("name", FORMATS)
def test_ends_are_those_that_the_model_lists_and_the_turns_own(name: str) -> None:
    form, (model, tokenizer) = FORMATS[name], answering(name, FORMATS[name].turn)
    found = end_tokens(model, tokenizer)
    named = tokenizer.convert_ids_to_tokens
    assert set(named(list(found.ids))) == {*form.listed, form.turn}
    assert (named(found.text), named(found.turn)) == (form.eos, form.turn)
    assert (found.after(CHAT), found.after(PLAIN)) == (found.turn, found.text)
    assert (turn_end(tokenizer) is None) == (form.template is None)


@pytest.mark.parametrize(("name", "end"), [(name, end) for name, form in FORMATS.items() for end in form.listed])
def test_a_completion_ends_where_transformers_generate_ends_it(name: str, end: str) -> None:
    model, tokenizer = answering(name, end)
    item = CHAT if FORMATS[name].template else PLAIN
    ids = torch.tensor([prompt_ids(tokenizer, item)])
    theirs = model.generate(ids, do_sample=False, max_new_tokens=5, attention_mask=torch.ones_like(ids))
    assert tokenizer.convert_ids_to_tokens(theirs[0, ids.shape[1] :].tolist()) == ["4", end]
    spec = EvaluationSpec(split="test", items=1, temperature=0.0, max_new_tokens=5)
    found = evaluate(model, tokenizer, FourTask(item), spec)
    assert [row.completions for row in found.outcomes] == [("4",)]
    assert (found.n_correct, found.n_unfinished) == (1, 0)
    assert found.end_tokens == end_tokens(model, tokenizer).ids


@pytest.mark.parametrize(("name", "folds"), [("gemma3", True), ("mistral", True), ("phi3.5", False)])
def test_an_evaluation_records_that_a_system_message_was_folded(name: str, folds: bool) -> None:
    model, tokenizer = answering(name, FORMATS[name].turn)
    item = Item("test-0", "2+2?", "4", (("system", "S"), ("user", "2+2?")))
    spec = EvaluationSpec(split="test", items=1, temperature=0.0, max_new_tokens=5)
    found = evaluate(model, tokenizer, FourTask(item), spec)
    assert (found.n_correct, found.system_folded) == (1, folds)
    assert Measured(found).to_json()["system_folded"] == folds
    assert not evaluate(model, tokenizer, FourTask(CHAT), spec).system_folded


def test_a_completion_ends_with_the_turn_of_a_chat_format_that_the_model_does_not_list() -> None:
    model, tokenizer = answering("qwen2.5-base", "<|im_end|>")
    spec = EvaluationSpec(split="test", items=1, temperature=0.0, max_new_tokens=5)
    found = evaluate(model, tokenizer, FourTask(CHAT), spec)
    assert (found.n_correct, found.n_unfinished) == (1, 0)


@pytest.mark.parametrize("name", FORMATS)
def test_a_demonstration_teaches_the_token_that_ends_a_turn(name: str) -> None:
    model, tokenizer = answering(name, FORMATS[name].turn)
    arm_of = {}
    for item in (CHAT, PLAIN) if FORMATS[name].template else (PLAIN,):
        task = FourTask(item)
        arm = SftArm(attach(model, FullUpdate(), None), tokenizer, task, small_spec("sft"))
        (ids,) = arm.demonstrated([item], 1, generator(0, DEMONSTRATION_STREAM))
        arm_of[bool(item.messages)] = tokenizer.convert_ids_to_tokens(ids)
    wanted = {True: ["4", FORMATS[name].turn], False: ["4", FORMATS[name].eos]}
    assert arm_of == {chat: wanted[chat] for chat in arm_of}


@pytest.mark.parametrize("end", FORMATS["phi3.5"].listed)
def test_a_demonstration_that_holds_any_of_them_is_refused(end: str) -> None:
    model, tokenizer = answering("phi3.5", end)
    with pytest.raises(DataError, match=r"a demonstration holds '<\|\w+\|>', which ends a sequence: take it out of '4"):
        encode_completions(tokenizer, ["4", f"4{end}5"], end_tokens(model, tokenizer), PLAIN)


def test_samples_for_training_end_where_those_of_the_evaluation_do() -> None:
    model, tokenizer = answering("gemma3", "<end_of_turn>")
    sampler = TransformersSampler(attach(model, FullUpdate(), None), tokenizer)
    drawn = sampler.sample([prompt_ids(tokenizer, CHAT)], generator(0, 3), temperature=0.0, max_new_tokens=5)
    assert tokenizer.convert_ids_to_tokens(drawn.completion_ids[0].tolist()) == ["4", "<end_of_turn>"]
