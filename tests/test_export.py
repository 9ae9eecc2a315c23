"""`capacity export` and `capacity evaluate`: every form of an update answers as its run did, or is refused."""

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import architectures
import pytest
import torch
from architectures import WEIGHTS, tiny
from in_process import Done, capacity
from peft import LoraConfig, VeraConfig, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from small import small_spec

from capacity.adapters.attach import attach
from capacity.adapters.files import artifact
from capacity.adapters.files.peft_folder import load_peft_lora, save_peft_lora
from capacity.adapters.open import open_model, open_native
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.spec.adapters import Adapter, LoraXs
from capacity.spec.result import Outcome, Result
from capacity.training.run import execute

ITEMS = 64
EXPORTS = {**architectures.adapters(), **WEIGHTS}
TYPES = ["q_proj", "v_proj"]
RANKS = {"tinylora": 2, "tinylora-split": 2, "lora-xs": 3, "lora": 2, "vera": 6, "vb-lora": 2, "uni-lora": 2}


def evaluated(folder: Path, *arguments: str, items: int = ITEMS) -> Any:
    return capacity(folder, "evaluate", *arguments, "--items", str(items), "--json").json()


def written(base: Any, adapter: Adapter, path: Path, scale: float) -> Path:
    """The artifact of a random update on a copy of `base`."""
    adapted = attach(copy.deepcopy(base), adapter, None)
    generator = torch.Generator().manual_seed(2)
    adapted.set_vector(adapted.vector() + scale * torch.randn(adapted.trained_parameters, generator=generator))
    payload = artifact.store(adapted, "fp32")
    name = artifact.base_fingerprint(base)
    path.write_bytes(artifact.pack(adapted, payload, model="abacus-0.9m", base=name, dtype="fp32"))
    return path


@dataclass(frozen=True)
class Made:
    """A run and its exports: `folder` holds run/, update.safetensors, peft/, merged/."""

    folder: Path
    run: Path
    identity: str
    result: Result
    outcomes: Sequence[Outcome]
    exports: dict[str, Any]


@pytest.fixture(scope="module")
def made(loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    spec = small_spec("sft", rate=0.05)
    spec = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"items": ITEMS})})
    record = execute(spec, "cpu")
    study = Study(folder / "study")
    with study.locked():
        made_by = current("cpu", "fp32")
        run = study.add(spec, made_by, record.result, record.steps, record.outcomes, record.artifact)
    shutil.copy(run / "update.safetensors", folder)
    exports = {
        form: capacity(folder, "export", "update.safetensors", "--to", form, "--out", form, "--json").json()
        for form in ("peft", "merged")
    }
    return Made(folder, run, spec.identity, record.result, record.outcomes, exports)


@pytest.fixture(scope="module")
def base(made: Made) -> Any:
    return evaluated(made.folder, "abacus")


@pytest.mark.parametrize(
    ("form", "model", "adapter"),
    [
        ("native", "abacus-0.9m", "update.safetensors"),
        ("native", "abacus-0.9m", "run"),
        ("peft", "abacus-0.9m", "peft"),
        ("base", "./merged", None),
    ],
    ids=["artifact", "run", "peft", "merged"],
)
def test_every_form_answers_as_the_run_recorded(
    made: Made, base: Any, form: str, model: str, adapter: str | None
) -> None:
    where = str(made.run) if adapter == "run" else adapter
    result = evaluated(made.folder, *(("--adapter", where) if where else (model,)))
    assert result["outcomes"] == as_json(made.outcomes)
    assert result["accuracy"] == made.result.accuracy
    assert (result["n_items"], result["n_correct"]) == (ITEMS, made.result.n_correct)
    assert result["low"] < result["accuracy"] < result["high"]
    assert (result["form"], result["model"], result["adapter"]) == (form, model, where)
    assert result["trained_parameters"] == (84 if form == "native" else None)
    assert (result["task"], result["split"], result["protocol"]) == ("abacus", "test", "T1-k1-n26-s0")
    assert result["outcomes"] != base["outcomes"]


def test_the_base_itself_answers_as_a_base_run_recorded(base: Any) -> None:
    record = execute(small_spec("base"), "cpu")
    assert base["outcomes"][:16] == as_json(record.outcomes)
    assert (base["form"], base["model"], base["adapter"], base["trained_parameters"]) == ("base", "abacus", None, None)


def test_options_of_the_protocol_change_what_is_asked(made: Made, base: Any) -> None:
    options = ("--split", "validation", "--temperature", "0", "--samples", "2", "--seed", "3")
    result = evaluated(made.folder, "abacus", *options, items=8)
    assert (result["split"], result["protocol"], result["n_items"]) == ("validation", "T0-k2-n26-s3", 8)
    assert result["n_correct"] == sum(sum(row["correct"]) for row in result["outcomes"])
    assert result["accuracy"] == result["n_correct"] / 16
    assert all(len(row["correct"]) == 2 and len(set(row["completions"])) == 1 for row in result["outcomes"])
    assert {row["item"] for row in result["outcomes"]}.isdisjoint(row["item"] for row in base["outcomes"])


def test_without_json_evaluate_prints_a_few_lines(made: Made, base: Any) -> None:
    done = capacity(made.folder, "evaluate", "--adapter", "peft", "--items", str(ITEMS))
    share, low, high = (100 * made.result.accuracy, *done_interval(made))
    assert (done.code, done.err) == (0, "")
    first, second, last = done.out.splitlines()
    assert first == (
        f"abacus-0.9m with the PEFT adapter peft on abacus, test: {share:.1f} % "
        f"({low:.1f}–{high:.1f}) of 64 items, protocol T1-k1-n26-s0"
    )
    assert last == "Intervals: 95 %, fresh items, one seed."
    assert re.fullmatch(r"KL to the base: \d+\.\d+ bits a token", second)


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [outcome.model_dump(mode="json") for outcome in outcomes]


def done_interval(made: Made) -> tuple[float, float]:
    import numpy as np

    from capacity_analysis.statistics.estimate import accuracy_estimate

    interval = accuracy_estimate(np.array([[row.correct[0] for row in made.outcomes]], dtype=float))
    return 100 * interval.low, 100 * interval.high


def test_a_model_whose_tokenizer_has_no_padding_is_evaluated_all_the_same(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.folder / "merged", tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))
    assert evaluated(tmp_path, "./model", items=16)["outcomes"] == as_json(made.outcomes[:16])


def test_exports_say_what_they_are(made: Made) -> None:
    for form, result in made.exports.items():
        files = [path for path in (made.folder / form).iterdir() if path.is_file() and path.name != "README.md"]
        assert result["bytes"] == sum(path.stat().st_size for path in files)
        assert {key: result[key] for key in ("form", "folder", "dtype", "base", "adapter", "trained_parameters")} == {
            "form": form, "folder": form, "dtype": "fp32", "base": "abacus-0.9m", "adapter": "tinylora",
            "trained_parameters": 84,
        }  # fmt: skip
        assert result["run"] == made.identity[:32]
    assert made.exports["peft"]["rank"] == 2
    assert made.exports["merged"]["merge"]["cosine"] > 0.99999
    config = json.loads((made.folder / "peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "abacus-0.9m"
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (2, 2, "LORA")


def test_exported_files_may_be_read_by_whoever_may_read_new_files(made: Made, tmp_path: Path) -> None:
    """safetensors writes files that only their owner can read, and a server often is somebody else."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for form in ("peft", "merged"):
        folder = made.folder / form
        assert folder.stat().st_mode == (tmp_path / "folder").stat().st_mode
        files = {path.stat().st_mode for path in folder.rglob("*") if path.is_file()}
        assert files == {(tmp_path / "file").stat().st_mode}


def test_default_folders_are_named_after_what_was_exported(made: Made, tmp_path: Path) -> None:
    shutil.copy(made.folder / "update.safetensors", tmp_path / "mine.safetensors")
    for update, form, folder in (
        ("mine.safetensors", "peft", "mine-peft"),
        ("mine.safetensors", "merged", "mine-merged"),
        (str(made.run), "peft", f"{made.run.name}-peft"),
    ):
        done = capacity(tmp_path, "export", update, "--to", form)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"{folder}: ")
        assert (tmp_path / folder).is_dir()
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())
    assert capacity(tmp_path, "export", "mine.safetensors", "--out", "x").out == (
        f"x: a PEFT LoRA adapter of rank 2, {made.exports['peft']['bytes']:,} bytes in fp32, of abacus-0.9m\n"
    )


def test_merging_a_tiny_update_warns_in_bf16_and_not_in_fp32(made: Made, loaded: Any, tmp_path: Path) -> None:
    written(loaded[0], EXPORTS["tinylora"], tmp_path / "tiny.safetensors", 1e-4)
    result = capacity(tmp_path, "export", "tiny.safetensors", "--to", "merged", "--dtype", "bf16", "--json").json()
    report = result["merge"]
    assert report["worst_cosine"] <= report["cosine"] < 0.5
    assert {t.dtype for t in load_file(tmp_path / "tiny-merged" / "model.safetensors").values()} == {torch.bfloat16}
    words = capacity(tmp_path, "export", "tiny.safetensors", "--to", "merged", "--dtype", "bf16", "--out", "again").out
    first, second, third = words.splitlines()
    assert first.startswith("again: a transformers model with the update merged, ")
    assert second.startswith(f"Merged in fp32 arithmetic: cosine of realised and intended ΔW {report['cosine']:.6f} ")
    assert third == (
        "Rounding to bf16 has changed the update: merge with --dtype fp32, or serve it as a LoRA (--to peft)."
    )
    exact = capacity(tmp_path, "export", "tiny.safetensors", "--to", "merged", "--out", "exact")
    assert "ΔW 1.0000" in exact.out or "ΔW 0.9999" in exact.out
    assert "Rounding" not in exact.out


@pytest.mark.parametrize("kind", EXPORTS)
def test_every_adapter_is_exported_in_the_forms_it_has(loaded: Any, tmp_path: Path, kind: str) -> None:
    update = written(loaded[0], EXPORTS[kind], tmp_path / "u.safetensors", 0.01 if kind in WEIGHTS else 0.1)
    ids = torch.tensor([loaded[1].encode("12+34*5="), loaded[1].encode("99-88*7=")])

    def logits(opened: Any) -> torch.Tensor:
        with torch.no_grad():
            return opened.model(input_ids=ids).logits

    native = logits(open_native(update, None, "cpu"))
    with torch.no_grad():
        assert not torch.allclose(native, loaded[0](input_ids=ids).logits, atol=1e-3)
    merged = capacity(tmp_path, "export", "u.safetensors", "--to", "merged", "--json").json()
    assert merged["adapter"] == EXPORTS[kind].kind
    assert merged["merge"]["cosine"] > 0.9999
    torch.testing.assert_close(
        logits(open_model(str(tmp_path / "u-merged"), None, "cpu")), native, atol=1e-4, rtol=1e-4
    )
    done = capacity(tmp_path, "export", "u.safetensors", "--json")
    if kind in WEIGHTS:
        line = done.refused(2)
        assert (
            line
            == f"capacity: adapter {kind} is no low-rank update of linear modules: export it merged (--to merged)\n"
        )
    else:
        assert done.json()["rank"] == RANKS[kind]
        torch.testing.assert_close(logits(open_model(None, tmp_path / "u-peft", "cpu")), native, atol=1e-4, rtol=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {"u-merged", "u.safetensors"} | ({"u-peft"} if kind in RANKS else set())
    )


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=TYPES, init_lora_weights=False, use_dora=True),
        LoraConfig(r=2, target_modules=TYPES, init_lora_weights=False, modules_to_save=["lm_head"]),
        LoraConfig(r=2, target_modules=[*TYPES, "embed_tokens"], init_lora_weights=False),
        LoraConfig(r=2, target_modules=TYPES, init_lora_weights=False, bias="all"),
        VeraConfig(r=4, target_modules=TYPES, save_projection=False, d_initial=1.0, init_weights=False),
    ],
    ids=["dora", "head", "embeddings", "bias", "vera"],
)
def test_adapters_that_others_made_with_peft_are_opened(tmp_path: Path, config: Any) -> None:
    theirs = get_peft_model(tiny("qwen2"), config)
    theirs.save_pretrained(str(tmp_path))
    opened = load_peft_lora(tiny("qwen2"), tmp_path)
    assert float((architectures.logits(opened) - architectures.logits(tiny("qwen2"))).abs().max()) > 1e-3
    assert torch.equal(architectures.logits(opened), architectures.logits(theirs))


@pytest.fixture(scope="module")
def broken(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that cannot be used."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copy(made.folder / "update.safetensors", folder)
    shutil.copytree(made.folder / "peft", folder / "peft")
    (folder / "taken").mkdir()
    (folder / "empty").mkdir()
    (folder / "truncated.safetensors").write_bytes((folder / "update.safetensors").read_bytes()[:-10])
    (folder / "base-run").mkdir()
    (folder / "base-run" / "spec.json").write_text("{}")
    shutil.copytree(made.folder / "merged", folder / "half-model")
    weights = folder / "half-model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    shutil.copytree(made.folder / "merged", folder / "moved-model")
    weights = folder / "moved-model" / "model.safetensors"
    save_file({n: t + 1e-3 for n, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
    for name, architecture in (("foreign", "qwen2"), ("gpt2", "gpt2")):
        (folder / name).mkdir()
        save_peft_lora(attach(tiny(architecture), LoraXs(rank=2), None), folder / name, "fp32", "abacus")
    shutil.copytree(made.folder / "peft", folder / "nameless")
    config = folder / "nameless" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    shutil.copytree(made.folder / "peft", folder / "lost")
    config = folder / "lost" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "elsewhere"}))
    shutil.copytree(made.folder / "peft", folder / "half-peft")
    tensors = folder / "half-peft" / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    # One of a model of the same widths with two blocks less: everything in it finds its place.
    shutil.copytree(made.folder / "peft", folder / "shallow")
    tensors = folder / "shallow" / "adapter_model.safetensors"
    kept = {n: t for n, t in load_file(tensors).items() if ".layers.2." not in n and ".layers.3." not in n}
    save_file(kept, tensors, metadata={"format": "pt"})
    return folder


REFUSED = [
    ("export update.safetensors --out taken", 1, "taken exists already: choose another --out, or remove it"),
    ("export update.safetensors --out truncated.safetensors/x", 1, "truncated.safetensors/x cannot be made: "),
    ("export absent.safetensors", 2, "absent.safetensors: no such file or folder"),
    ("export truncated.safetensors", 1, "truncated.safetensors: not a readable update artifact, or truncated"),
    ("export base-run", 1, "base-run/update.safetensors: No such file or directory"),
    ("export update.safetensors --to pfet", 2, "unknown form 'pfet': did you mean peft?"),
    ("export update.safetensors --to gguf", 2, "unknown form 'gguf': choose from merged, native, peft"),
    ("export update.safetensors --dtype bf61", 2, "unknown dtype 'bf61': did you mean bf16"),
    ("export update.safetensors --model abakus", 2, "unknown model 'abakus': did you mean abacus"),
    (
        "export update.safetensors --model qwen2.5-3b",
        1,
        "model Qwen/Qwen2.5-3B-Instruct is not in the cache and the hub cannot be reached: connect once, or download",
    ),
    ("export update.safetensors --model ./empty", 2, "empty: no model folder, it has no config.json"),
    ("export update.safetensors --model ./half-model", 1, "half-model: the model cannot be loaded: "),
    (
        "export update.safetensors --model ./moved-model",
        1,
        "update.safetensors: made on another base: its weights have",
    ),
    ("export update.safetensors --to peft --dtype int4", 2, "--dtype int4 is one of native artifacts: leave --to out"),
    ("export update.safetensors --best", 2, "update.safetensors is no study folder: --method, --best, --run and"),
    ("evaluate --adapter lost", 2, "names the base 'elsewhere': give it as MODEL, or put its folder into lost"),
    ("export", 2, "Missing argument 'UPDATE...'"),
    ("evaluate", 2, "give a MODEL, or --adapter with an adapter that names its model"),
    ("evaluate abakus", 2, "unknown model 'abakus': did you mean abacus"),
    ("evaluate ./empty", 2, "empty: no model folder, it has no config.json"),
    ("evaluate ./peft", 2, "peft: no model folder, it has no config.json"),
    ("evaluate ./half-model", 1, "half-model: the model cannot be loaded: "),
    ("evaluate llama-3.2-1b", 1, "model meta-llama/Llama-3.2-1B-Instruct is not in the cache and the hub cannot be"),
    ("evaluate --adapter absent", 2, "absent: no such file or folder"),
    ("evaluate --adapter empty", 1, "empty: neither a run folder (update.safetensors) nor a PEFT folder (adapter_"),
    ("evaluate --adapter truncated.safetensors", 1, "truncated.safetensors: not a readable update artifact, or trunc"),
    (
        "evaluate ./moved-model --adapter update.safetensors",
        1,
        "made on another base: its weights have the fingerprint",
    ),
    ("evaluate --adapter foreign", 1, "foreign: this adapter does not fit the model: "),
    ("evaluate --adapter gpt2", 1, "gpt2: this adapter does not fit the model: "),
    ("evaluate --adapter nameless", 2, "nameless/adapter_config.json names no base model: give it as MODEL"),
    ("evaluate --adapter half-peft", 1, "half-peft: the PEFT adapter cannot be read: "),
    (
        "evaluate --adapter shallow",
        1,
        "shallow: the adapter lacks base_model.model.model.layers.2.mlp.down_proj.lora_A",
    ),
    ("evaluate abacus --temperature -1", 2, "Invalid value for '--temperature'"),
    ("evaluate abacus --temperature nan", 2, "Invalid value for '--temperature'"),
    ("evaluate abacus --temperature inf", 2, "--temperature inf: give a finite number"),
    ("evaluate abacus --items 0", 2, "Invalid value for '--items'"),
    ("evaluate abacus --items 99999999", 1, "abacus test has "),
    ("evaluate abacus --seed 99999999999999999999999", 2, "--seed 99999999999999999999999: give a number below 2^63"),
    ("evaluate abacus --split train", 2, "--split 'train': choose test or validation"),
    ("evaluate abacus --task abakus", 2, "unknown task 'abakus': did you mean abacus?"),
]


@pytest.mark.parametrize(("command", "code", "message"), REFUSED, ids=[command for command, *_ in REFUSED])
def test_what_cannot_be_done_ends_in_one_line(broken: Path, command: str, code: int, message: str) -> None:
    before = sorted(broken.iterdir())
    assert message in capacity(broken, *command.split()).refused(code)
    assert sorted(broken.iterdir()) == before


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _disk_full(*_: Any) -> None:
    raise OSError(28, "No space left on device")  # a write names no file


def _disk_full_of_tensors(*_: Any) -> None:
    raise SafetensorError("No space left on device")


@pytest.mark.parametrize(
    ("stop", "code"),
    [(_interrupt, 130), (_disk_full, 1), (_disk_full_of_tensors, 1)],
    ids=["Ctrl-C", "disk full", "disk full of tensors"],
)
def test_an_export_that_ends_in_the_middle_leaves_nothing(
    made: Made, tmp_path: Path, monkeypatch: Any, stop: Callable[..., None], code: int
) -> None:
    seen = []

    def interrupted(_: Any, folder: Path, *__: Any) -> None:
        (folder / "adapter_config.json").write_text("{}")
        seen.extend(tmp_path.iterdir())
        stop()

    shutil.copy(made.folder / "update.safetensors", tmp_path / "u.safetensors")
    monkeypatch.setattr("capacity.adapters.files.peft_folder.save_peft_lora", interrupted)
    done = capacity(tmp_path, "export", "u.safetensors")
    assert (done.code, done.out) == (code, "")
    if code == 1:
        assert done.refused(1) == "capacity: u-peft cannot be written: No space left on device\n"
    assert len(seen) == 2  # the artifact and the folder in the making
    assert [path.name for path in tmp_path.iterdir()] == ["u.safetensors"]


def test_a_folder_that_appears_meanwhile_is_not_overwritten(made: Made, tmp_path: Path, monkeypatch: Any) -> None:
    def meanwhile(_: Any, folder: Path, *__: Any) -> int:
        (folder / "adapter_config.json").write_text("{}")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
        return 2

    monkeypatch.setattr("capacity.adapters.files.peft_folder.save_peft_lora", meanwhile)
    done = capacity(tmp_path, "export", str(made.folder / "update.safetensors"), "--out", "out")
    assert "out cannot be made: " in done.refused(1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_the_console_script_prints_json_and_nothing_else(made: Made, tmp_path: Path) -> None:
    """Libraries may print where this process does not look: at their import, and past Python's streams."""
    script = str(Path(sys.executable).parent / "capacity")
    command = [script, "export", str(made.run), "--to", "merged", "--out", "merged", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    result = Done(done.returncode, done.stdout, done.stderr).json()
    assert result["merge"] == made.exports["merged"]["merge"]
    assert sorted(p.name for p in (tmp_path / "merged").iterdir()) == sorted(
        p.name for p in (made.folder / "merged").iterdir()
    )
