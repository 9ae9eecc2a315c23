"""Builds the tokenizer of the abacus models. It has one token for each digit, sign and word."""

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from capacity.tasks.abacus_language import BOS, EOS, PAD, VOCABULARY


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer that splits exactly at the vocabulary's strings and puts `<bos>` before prompts."""
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=PAD))
    # Longest first, so that " so " is found before "so ".
    words = sorted((t for t in VOCABULARY if t not in (PAD, BOS, EOS)), key=len, reverse=True)
    escaped = "|".join(word.replace("+", r"\+") for word in words)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(escaped), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
