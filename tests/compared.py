"""Small studies of a comparison, with answers that a test chooses, and cells that are made up."""

import random

import fakes

from capacity_analysis.compare.costs import costs_of
from capacity_analysis.compare.result import compare_runs, comparison_json
from capacity_analysis.compare.verdicts import verdict

ITEMS = 40
TEMPERATURES = (0.0, 0.5, 1.0)
NOT_TOLD_APART = "grpo and sft cannot be told apart"
GRPO_HIGHER = "grpo scores higher than sft"
SFT_HIGHER = "sft scores higher than grpo"


def spec(method, seed=0, temperature=1.0, split="test"):
    return fakes.spec(method, seed, ITEMS, temperature, split)


def right(count, seed=0):
    """`count` right answers of ITEMS; which ones depends on the seed."""
    order = list(range(ITEMS))
    random.Random(seed).shuffle(order)
    chosen = set(order[:count])
    return [int(i in chosen) for i in range(ITEMS)]


def make(folder, base=(15, 18, 20), validation=(15, 18, 20), **arms):
    """The study of a comparison: right answers of the base by temperature, and of each seed of each arm."""
    study = fakes.study_in(folder)
    specs = []
    for method, counts in arms.items():
        for seed, count in enumerate(counts):
            specs.append(spec(method, seed))
            fakes.add(study, specs[-1], right(count, seed))
    for split, counts in (("test", base), ("validation", validation)):
        for temperature, count in zip(TEMPERATURES, counts, strict=False):
            specs.append(spec("base", temperature=temperature, split=split))
            fakes.add(study, specs[-1], right(count, 99))
    return study, specs


def compare(folder, **arms):
    study, specs = make(folder, **arms)
    return compare_runs(study.folder, study.runs(), specs)


def compared_json(folder, **arms):
    study, specs = make(folder, **arms)
    runs = study.runs()
    return comparison_json(compare_runs(study.folder, runs, specs), costs_of(runs))


def said(comparison):
    return verdict(comparison).sentence
