"""`capacity export` of a study: which run is meant, updates stored anew, and READMEs whose lines load what they say."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from in_process import Done, capacity
from small import small_spec

from capacity.adapters.files.artifact import read_file
from capacity.adapters.open import open_model
from capacity.library.export_readme import Contents, readme
from capacity.plan.engine_memory import engine_rank
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.training.run import execute


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study: an sft run that was made, and grpo runs with the same update and other answers."""
    folder = tmp_path_factory.mktemp("exports")
    spec = small_spec("sft", rate=0.05)
    record = execute(spec, "cpu")
    study = Study(folder / "study")
    with study.locked():
        fingerprint = current("cpu", "fp32")
        study.add(spec, fingerprint, record.result, record.steps, record.outcomes, record.artifact)
        for seed, answers in enumerate(([1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0])):
            fakes.add(study, small_spec("grpo", rate=0.05, seed=seed), answers)
        fakes.add(study, fakes.spec("base"), [1, 0, 0, 0])
    return folder


def chosen(folder: Path, *options: str) -> Done:
    return capacity(folder, "export", "study", *options)


def test_a_run_is_named_by_its_method_or_by_how_it_begins(folder: Path) -> None:
    identity = Study(folder / "study").runs()
    sft = next(run.spec for run in identity if run.spec.method == "sft")
    by_method = json.loads(chosen(folder, "--method", "sft", "--out", "by-method", "--json").out)
    by_prefix = json.loads(chosen(folder, "--run", sft.identity[:10].upper(), "--out", "by-prefix", "--json").out)
    assert by_method["run"] == by_prefix["run"]
    assert by_method["run"]  # the first digits of the identity
    assert sft.identity.startswith(by_method["run"])
    assert (by_method["chosen"], by_prefix["chosen"]) == (None, None)


def test_the_best_run_is_the_most_accurate_and_the_first_seed_of_equals(folder: Path) -> None:
    from capacity.library.chosen_run import chosen_run

    found = chosen_run(folder / "study", method="grpo", best=True)
    assert (found.run.spec.method, found.run.spec.seed, found.run.result.accuracy) == ("grpo", 1, 0.75)
    assert found.remark.startswith("grpo 84 seed 1 is the best of 3 runs on the test items, 75.0 %.")
    assert chosen_run(folder / "study", where=["method=sft"]).run.spec.method == "sft"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "study: 4 runs are meant: add --best, or --run"),
        (("--method", "grpo"), "study: 3 runs are meant: add --best"),
        (("--method", "gpro", "--best"), "unknown method of this study 'gpro': did you mean grpo?"),
        (("--run", "zzz"), "--run 'zzz': no trained run begins so; `capacity runs study` lists them"),
        (("--where", "methd=sft"), "did you mean method"),
    ],
)
def test_what_means_no_single_run_ends_in_one_line(folder: Path, options: tuple[str, ...], said: str) -> None:
    assert said in chosen(folder, *options).refused(2)


def test_a_prefix_of_several_runs_is_refused(folder: Path) -> None:
    from capacity.errors import SpecError
    from capacity.library.chosen_run import _named

    runs = [run for run in Study(folder / "study").runs() if run.spec.training is not None]
    with pytest.raises(SpecError, match="--run '': no trained run begins so"):
        _named(runs, "", folder)
    doubled = [*runs[:1], *runs[:1]]
    with pytest.raises(SpecError, match=r"2 runs begin so, .* among them: give more digits"):
        _named(doubled, runs[0].spec.short_id, folder)


@pytest.mark.parametrize("dtype", ["fp8", "int8", "int4", "entropy", "fp32"])
def test_an_update_is_stored_anew_in_another_dtype(folder: Path, dtype: str) -> None:
    options = ("--to", "native") if dtype == "fp32" else ()
    result = json.loads(chosen(folder, "--method", "sft", "--dtype", dtype, *options, "--out", dtype, "--json").out)
    assert (result["form"], result["dtype"]) == ("native", dtype)
    stored = read_file(folder / dtype)
    (run,) = (r for r in Study(folder / "study").runs() if r.spec.method == "sft")
    assert stored.recipe.storage_dtype == dtype
    assert run.spec.identity.startswith(stored.recipe.run or "none")
    trained, anew = (open_model(None, path, "cpu").adapted.vector().double() for path in (run.folder, folder / dtype))
    moved = float((anew - trained).norm() / trained.norm())
    assert result["rounding"] == pytest.approx(moved, rel=1e-6, abs=1e-12)
    assert moved <= {"fp32": 0.0, "fp8": 0.05, "int8": 0.01, "int4": 0.2, "entropy": 0.1}[dtype]


def blocks(page: str) -> dict[str, str]:
    return dict(re.findall(r"## (\S+)\n\n```python\n(.*?)```", page, re.DOTALL))


@pytest.fixture(scope="module")
def peft_folder(folder: Path) -> Path:
    assert chosen(folder, "--method", "sft", "--out", "lora").code == 0
    return folder / "lora"


@pytest.mark.parametrize("library", ["PEFT", "transformers"])
def test_the_lines_of_the_readme_load_the_update(folder: Path, peft_folder: Path, library: str) -> None:
    scope: dict[str, Any] = {}
    with contextlib.chdir(peft_folder):
        exec(blocks((peft_folder / "README.md").read_text())[library], scope)
    text = "51+67+66+12=look er 67=118 now : 66=184 hence 12#196"
    assert scope["tokenizer"].decode(scope["tokenizer"].encode(text), skip_special_tokens=True) == text
    tokens = torch.tensor([scope["tokenizer"].encode(text)])
    (run,) = (r for r in Study(folder / "study").runs() if r.spec.method == "sft")
    native, bare = open_model(None, run.folder, "cpu").model, open_model("abacus-0.9m", None, "cpu").model
    with torch.no_grad():
        found, wanted, base = (model.eval()(tokens).logits for model in (scope["model"], native, bare))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    assert float((wanted - base).abs().max()) > 1e-3


def test_the_lines_of_the_readme_load_merged_weights(folder: Path) -> None:
    assert chosen(folder, "--method", "sft", "--to", "merged", "--out", "whole").code == 0
    scope: dict[str, Any] = {}
    with contextlib.chdir(folder / "whole"):
        exec(blocks((folder / "whole" / "README.md").read_text())["transformers"], scope)
    assert scope["model"].config.vocab_size == len(scope["tokenizer"])


def test_the_lines_for_vllm_name_the_base_the_rank_and_the_folder(peft_folder: Path) -> None:
    lines = blocks((peft_folder / "README.md").read_text())["vLLM"]
    compile(lines, "README.md", "exec")
    rank = json.loads((peft_folder / "adapter_config.json").read_text())["r"]
    assert f'LLM("abacus-0.9m", tokenizer="tokenizer", enable_lora=True, max_lora_rank={engine_rank(rank)})' in lines
    assert 'LoRARequest("update", 1, ".")' in lines
    assert (peft_folder / "abacus-0.9m" / "config.json").is_file()


def test_no_path_of_the_machine_is_written(folder: Path, peft_folder: Path) -> None:
    assert chosen(folder, "--method", "sft", "--dtype", "int8", "--out", "anew").code == 0
    assert chosen(folder, "--method", "sft", "--to", "merged", "--out", "again").code == 0
    for made in (peft_folder, folder / "anew", folder / "again"):
        for path in made.rglob("*"):
            assert path.is_dir() or str(folder).encode() not in path.read_bytes(), path
            assert path.is_dir() or str(Path.home()).encode() + b"/" not in path.read_bytes(), path


def test_a_base_that_was_a_folder_is_named_without_the_way_to_it(folder: Path, peft_folder: Path) -> None:
    import shutil

    shutil.copytree(peft_folder / "abacus-0.9m", folder / "mine")
    options = ("--method", "sft", "--model", str(folder / "mine"), "--out", "of-folder")
    assert chosen(folder, *options).code == 0
    exported = folder / "of-folder"
    assert json.loads((exported / "adapter_config.json").read_text())["base_model_name_or_path"] == "mine"
    assert (
        "The base was a folder named `mine`. Put that folder beside this file." in (exported / "README.md").read_text()
    )
    shutil.copytree(folder / "mine", exported / "mine")
    assert capacity(folder, "evaluate", "--adapter", "of-folder", "--items", "8", "--json").json()["form"] == "peft"


def test_readmes_say_where_a_base_comes_from() -> None:
    def page(base: str, origin: Any) -> str:
        return readme(Contents("peft", base, origin, "lora-xs", 49, "bf16", 600, base, None))

    assert "The base is fetched from the Hugging Face hub." in page("Qwen/Qwen2.5-3B-Instruct", "hub")
    assert "model_folder('smollm2-135m')" in page("smollm2-135m", "package")
    assert "vLLM" not in page("mine", "folder")
    assert 'capacity.load("update.safetensors")' in readme(
        Contents("native", "m", "hub", "lora", 1, "int4", None, "m", None)
    )
