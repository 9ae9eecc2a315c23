"""Every shipped study file is read, its sizes exist on its models, and its cost can be estimated. Nothing is run."""

from pathlib import Path
from typing import Any

import pytest

from capacity.plan.adaptive_file import AdaptiveFile, is_adaptive, read_any_study
from capacity.plan.cost import GPU_BYTES, run_estimate, study_estimate
from capacity.plan.grid import grid_points
from capacity.plan.model_names import parse_model
from capacity.plan.models import ALIASES
from capacity.plan.study_file import read_study_file, read_toml
from capacity.spec.adapters import ProjectionChoice, TinyLora
from capacity.spec.methods import METHODS, Method

FILES = sorted((Path(__file__).parents[1] / "studies").glob("*.toml"))
STUDIES = [path for path in FILES if not is_adaptive(read_toml(path))]
ADAPTIVE = [path for path in FILES if path not in STUDIES]
PAPER = [path for path in STUDIES if path.stem.startswith("paper-")]
RATES: dict[Method, float] = dict.fromkeys(METHODS, 1e-3)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_it_is_read_and_every_run_has_a_spec(path: Path) -> None:
    study = read_study_file(path)
    assert study.name == path.stem
    assert study.question.endswith("?")
    specs = [point.spec(m, 0, RATES, validation=False) for point in grid_points(study) for m in point.grid.methods]
    assert specs
    for spec in specs:
        assert spec.task.name == "abacus" or spec.task.options["template"]  # also for methods without demonstrations


@pytest.mark.parametrize("path", ADAPTIVE, ids=lambda path: path.stem)
def test_an_adaptive_file_is_read_and_its_sizes_exist(path: Path) -> None:
    study = read_any_study(path)
    assert isinstance(study, AdaptiveFile)
    assert study.name == path.stem
    assert study.question.endswith("?")
    assert len(study.points()) >= 5


def test_the_papers_figures_and_table_are_all_there() -> None:
    assert [path.stem for path in PAPER] == [
        "paper-figure-4-sharing-precision", "paper-figure-5-math-dynamics", "paper-figure-7-rank",
        "paper-figures-1-2-sizes", "paper-figures-3-6-backbones", "paper-figures-8-9-u-groups", "paper-table-2",
    ]  # fmt: skip


def test_table_2_has_the_published_sizes() -> None:
    study = read_study_file(next(path for path in PAPER if path.stem == "paper-table-2"))
    found: dict[str, list[int]] = {}
    for point in grid_points(study):
        found.setdefault(parse_model(point.model).base, []).append(point.size.trained_parameters)
    assert found == {
        "qwen2.5-3b": [16, 63, 252, 504, 8064, 129024],
        "qwen2.5-7b": [13, 49, 196, 392, 6272, 100352],
        "qwen2.5-math-7b": [196, 392, 6272, 100352],
    }


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_protocol(path: Path) -> None:
    study = read_study_file(path)
    assert study.tuning is not None
    assert study.tuning.rates == (1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 1e-4, 2e-4)
    for point in grid_points(study):
        training = point.spec("grpo", 0, RATES, validation=False).training
        assert training is not None
        sequences, tokens = training.prompts_per_step * training.samples_per_prompt, training.max_new_tokens
        gsm8k = point.task.name == "gsm8k"
        assert (training.samples_per_prompt, sequences, tokens) == ((4, 64, 4096) if gsm8k else (8, 256, 3072))
        assert len(point.grid.seeds) == 3


def test_every_size_of_the_paper_fits_one_gpu_of_80_gb_but_lora_on_the_largest_models() -> None:
    too_large = set()
    for path in PAPER:
        for point in grid_points(read_study_file(path)):
            spec = point.spec("grpo", 0, RATES, validation=False)
            estimate = run_estimate(spec)
            assert estimate.least.peak <= estimate.memory.peak, (path.stem, point.model)
            assert estimate.rows >= 1
            if estimate.least.peak >= 80e9:
                too_large.add((point.model, spec.adapter.kind))
    # A trained A keeps the inputs of its modules in fp32, beside activations in bf16.
    assert too_large == {(f"{m}?dtype=bf16", "lora") for m in ("qwen2.5-7b", "qwen3-8b", "llama-3.1-8b")}


def test_estimates_count_what_a_method_does() -> None:
    point = next(grid_points(read_study_file(next(p for p in PAPER if p.stem == "paper-figures-1-2-sizes"))))
    grpo_spec, sft_spec = (point.spec(m, 0, RATES, validation=False) for m in ("grpo", "sft"))  # type: ignore[arg-type]
    grpo, sft = run_estimate(grpo_spec), run_estimate(sft_spec)
    parameters, sequences = ALIASES["qwen2.5-7b"].shape.parameters, 1314 * 64
    assert grpo.training_flops == sft.training_flops == 6 * parameters * sequences * (256 + 4096)
    assert grpo.sampling_flops - sft.sampling_flops == 2 * parameters * sequences * (256 + 4096)
    both = study_estimate([grpo, sft])
    assert both.runs == 2
    assert both.gpu_hours == grpo.gpu_hours + sft.gpu_hours
    assert both.peak_bytes == max(grpo.memory.peak, sft.memory.peak)
    assert both.least_bytes == grpo.least.peak <= both.peak_bytes < GPU_BYTES
    assert both.advice is None
    shorter = run_estimate(point.spec("grpo", 0, RATES, validation=False), completion_tokens=300)
    assert shorter.gpu_hours < grpo.gpu_hours / 5


@pytest.mark.parametrize(
    ("method", "by", "dealt", "measured", "sampled"),
    [
        ("grpo", "grpo", False, 3, 3),
        ("sft", "grpo", False, 3, 3),
        ("sft", "own", False, 3, 0),
        ("sft", "grpo", True, 3 + 4, 3),
    ],
)
def test_estimates_count_the_gradients_before_the_training(
    method: Method, by: Any, dealt: bool, measured: int, sampled: int
) -> None:
    point = next(grid_points(read_study_file(next(p for p in PAPER if p.stem == "paper-figures-1-2-sizes"))))
    spec = point.spec(method, 0, RATES, validation=False)
    assert isinstance(spec.adapter, TinyLora)
    choice = {"choice": ProjectionChoice(bits=8, by=by, batches=3), "allocation": "gradient" if dealt else "even"}
    chosen = run_estimate(spec.model_copy(update={"adapter": spec.adapter.model_copy(update=choice)}))
    random, batch = run_estimate(spec), 2 * ALIASES["qwen2.5-7b"].shape.parameters * 64 * (256 + 4096)
    assert chosen.training_flops - random.training_flops == 3 * measured * batch
    assert chosen.sampling_flops - random.sampling_flops == sampled * batch
