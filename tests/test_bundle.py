"""Bundles: many updates under one header, what they take, and how one of them comes out again."""

import base64
import copy
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import capacity as command
from safetensors.torch import load, save
from stored import CHOSEN, NUMBERS, updated

import capacity
from capacity.adapters.files import artifact
from capacity.adapters.files.bundle import bundle, member, unbundle
from capacity.adapters.layout import Layout
from capacity.errors import DataError, MissingPathError, SpecError
from capacity.spec.adapters import Lora, TinyLora

RANDOM = TinyLora(groups=13, u=1, projection_seed=7)
LAYOUT = Layout(candidates=NUMBERS)


def with_seeds(model: Any, seeds: Any) -> list[artifact.Artifact]:
    """One update under many seeds. Only the bytes matter here: the candidates are those of the first seed."""
    first = artifact.read(updated(model, CHOSEN, LAYOUT)[1], "u")
    adapter = first.recipe.adapter
    return [replace(first, recipe=first.recipe.model_copy(update={"adapter": adapter.seeded(s)})) for s in seeds]


def test_a_thousand_updates_take_their_payload_and_two_bytes_each(model: Any) -> None:
    many = with_seeds(model, range(1000))
    data = bundle(many)
    assert len(data) == pytest.approx(41_800, abs=40)  # docs/adapters.md
    assert len(updated(model, CHOSEN, LAYOUT)[1]) == pytest.approx(679, abs=20)
    assert len(bundle(with_seeds(model, [7] * 1000))) <= 1000 * (26 + 13) + 1024
    assert [a.recipe.adapter for a in unbundle(data, "b")] == [a.recipe.adapter for a in many]


@pytest.mark.parametrize(("largest", "width"), [(255, 1), (256, 2), (65536, 4), (1 << 32, 8)])
def test_seeds_take_the_smallest_width_that_holds_them(model: Any, largest: int, width: int) -> None:
    many = with_seeds(model, (0, largest))
    data = bundle(many)
    same = bundle(with_seeds(model, (0, 0)))
    assert len(data) - len(same) < 2 * width + 120
    assert [a.recipe.adapter.projection_seed for a in unbundle(data, "b")] == [0, largest]


def test_a_seed_beyond_eight_bytes_is_refused(model: Any) -> None:
    with pytest.raises(DataError, match="is too large for a bundle"):
        bundle(with_seeds(model, (0, 1 << 64)))


def test_the_updates_of_a_bundle_are_rebuilt(model: Any) -> None:
    made = [updated(model, CHOSEN.model_copy(update={"projection_seed": seed}), LAYOUT, 0.1 + seed) for seed in (7, 8)]
    read = unbundle(bundle([artifact.read(data, "u") for _, data in made]), "b")
    for (adapted, _), found in zip(made, read, strict=True):
        rebuilt = artifact.rebuild(found, copy.deepcopy(model), None)
        assert torch.equal(rebuilt.vector(), adapted.vector())
        for (_, _, b), (_, _, d) in zip(adapted.pairs(), rebuilt.pairs(), strict=True):
            assert torch.equal(b, d)


def test_updates_without_frozen_factors_are_bundled_too(model: Any) -> None:
    made = [updated(model, Lora(rank=1, init_seed=seed)) for seed in (1, 2)]
    read = unbundle(bundle([artifact.read(data, "u") for _, data in made]), "b")
    for (adapted, _), found in zip(made, read, strict=True):
        assert torch.equal(artifact.rebuild(found, copy.deepcopy(model), None).vector(), adapted.vector())


def test_other_recipes_and_damage_are_refused(model: Any) -> None:
    one = artifact.read(updated(model, CHOSEN, LAYOUT)[1], "one")
    other = artifact.read(updated(model, RANDOM)[1], "other")
    with pytest.raises(DataError, match=r"^other: its recipe differs from that of one in adapter.choice; the updates"):
        bundle([one, other])
    with pytest.raises(DataError, match="needs at least one update"):
        bundle([])
    data = bytearray(bundle([one, one]))
    data[-1] ^= 1
    with pytest.raises(DataError, match=r"^b: the bundle was edited or damaged"):
        unbundle(bytes(data), "b")
    for length in (0, 8, 100, len(data) - 1):
        with pytest.raises(DataError, match=r"^b: not a readable bundle"):
            unbundle(bytes(data[:length]), "b")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda header: header.update(seed=8), "was edited or damaged"),
        (lambda header: header["recipe"]["adapter"].update(sharing="structured"), "was edited or damaged"),
        (lambda header: header["layout"].update(theta=["float16", [13]]), "was edited or damaged"),
        (lambda header: header.update(seed=float("nan")), ""),
    ],
)
def test_an_edited_header_is_refused(model: Any, edit: Any, message: str) -> None:
    data = bundle(with_seeds(model, (7, 7)))
    metadata = artifact.read_metadata(data)
    header = artifact.recipe_from(metadata["recipe"], "b")
    edit(header)
    text = base64.b85encode(zlib.compress(json.dumps(header).encode())).decode()
    edited = save(load(data), metadata={"capacity": json.dumps({**metadata, "recipe": text})})
    with pytest.raises(DataError, match=f"^b: .*{message}"):
        unbundle(edited, "b")


def test_other_files_are_no_bundles_and_bundles_no_artifacts(model: Any) -> None:
    alone = updated(model, CHOSEN, LAYOUT)[1]
    for data, found in ((alone, "'capacity-update-3'"), (save({"theta": torch.zeros(1)}), "None")):
        with pytest.raises(DataError, match=f"^b: bundle format {found}, this program reads 'capacity-bundle-2'$"):
            unbundle(data, "b")
    with pytest.raises(DataError, match=r"^b: a bundle of many updates: take one with capacity export b --number N$"):
        artifact.read(bundle([artifact.read(alone, "u")]), "b")


# The command and the library


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, loaded: tuple[Any, Any]) -> Path:
    """Two artifacts that differ in their seeds, and one with a random projection."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, adapter, layout in (
        ("one", CHOSEN, LAYOUT),
        ("two", CHOSEN.model_copy(update={"projection_seed": 8}), LAYOUT),
        ("random", RANDOM, Layout()),
    ):
        (folder / f"{name}.safetensors").write_bytes(updated(loaded[0], adapter, layout)[1])
    return folder


def test_the_command_writes_a_bundle_and_takes_an_update_out(folder: Path) -> None:
    done = command(
        folder, "export", "one.safetensors", "two.safetensors", "--bundle", "--out", "both.safetensors", "--json"
    )
    said = json.loads(done.out)
    assert (said["updates"], said["payload_bytes"]) == (["one.safetensors", "two.safetensors"], 39)
    assert said["bytes"] == (folder / "both.safetensors").stat().st_size < said["bytes_alone"]
    out = json.loads(command(folder, "export", "both.safetensors", "--number", "1", "--to", "native", "--json").out)
    alone, again = (artifact.read_file(folder / name) for name in ("two.safetensors", f"{out['folder']}"))
    assert again.recipe.adapter == alone.recipe.adapter
    assert all(torch.equal(again.payload[name], tensor) for name, tensor in alone.payload.items())


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("one.safetensors", "two.safetensors"), 2, "one is exported at a time, or all with --bundle"),
        (("one.safetensors", "--bundle", "--to", "peft"), 2, "--bundle holds artifacts as they are: leave out --to"),
        (("one.safetensors", "random.safetensors", "--bundle"), 1, "from that of one.safetensors in adapter.choice"),
        (("one.safetensors", "--bundle", "--out", "two.safetensors"), 1, "two.safetensors exists already"),
        (("one.safetensors", "--bundle", "--out", "no/b.safetensors"), 1, "--out no/b.safetensors: no folder no"),
        (("one.safetensors", "none", "--bundle"), 2, "none: no such file or folder"),
        (("one.safetensors", "--bundle", "--method", "sft"), 2, "one.safetensors is no study folder"),
        (("one.safetensors", "--number", "0"), 1, "bundle format 'capacity-update-3'"),
    ],
)
def test_what_cannot_be_bundled_is_refused_in_one_line(
    folder: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    assert said in command(folder, "export", *options).refused(code)


def test_a_number_beyond_the_bundle_is_refused(folder: Path) -> None:
    path = folder / "small.safetensors"
    path.write_bytes(bundle([artifact.read_file(folder / "one.safetensors")]))
    with pytest.raises(DataError, match="no update 1: it holds 0 to 0"):
        member(path, 1)


def test_no_updates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="at least one update"):
        capacity.bundle([])
    with pytest.raises(MissingPathError):
        capacity.bundle(tmp_path / "none")


def test_every_file_says_in_plain_json_which_format_it_has(model: Any) -> None:
    """So a program that does not know a format can refuse it in one line."""
    alone = updated(model, CHOSEN, LAYOUT)[1]
    assert artifact.read_metadata(alone)["format"] == "capacity-update-3"
    assert artifact.read_metadata(bundle([artifact.read(alone, "u")]))["format"] == "capacity-bundle-2"
