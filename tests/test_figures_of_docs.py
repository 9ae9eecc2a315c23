"""The figures of the README and of the documentation, which `make figure` draws from stored tables."""

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from studies.tools import figures

ROOT = Path(__file__).parent.parent


def test_every_figure_in_the_documents_is_drawn_by_the_command() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {name for page in documents for name in re.findall(r"images/([a-z-]+)\.(?:svg|png)", page.read_text())}
    assert shown - {"python", "licence"} == set(figures.FIGURES)
    for name in figures.FIGURES:
        assert (figures.IMAGES / f"{name}.svg").is_file()
        assert (figures.IMAGES / f"{name}.png").is_file()


def test_accuracy_against_size_shows_the_means_of_the_stored_study() -> None:
    axes = Figure().add_subplot()
    figures.accuracy_against_size(axes)
    drawn = {bars.get_label(): list(bars.lines[0].get_ydata()) for bars in axes.containers}
    # The rows of abacus-0.9m in docs/abacus-sizes.md.
    chosen, random = drawn["grpo, chosen"], drawn["grpo, random"]
    assert [100 * y for y in chosen] == pytest.approx([46.3, 61.2, 66.3, 76.8, 86.3, 84.1, 93.9, 97.0], abs=0.06)
    assert [100 * y for y in random[:6]] == pytest.approx([40.0, 42.9, 44.0, 56.6, 63.9, 82.7], abs=0.06)
    assert random[6:] == chosen[6:]
    assert [100 * y for y in drawn["sft, chosen"][4:]] == pytest.approx([80.9, 83.3, 86.7, 94.2], abs=0.06)


def test_thresholds_are_drawn_against_the_size_of_the_model() -> None:
    axes = Figure().add_subplot()
    figures.threshold_against_model(axes)
    drawn = {bars.get_label(): list(bars.lines[0].get_ydata()) for bars in axes.containers}
    # The rows for 65 % in docs/abacus-sizes.md, from the smallest model to the largest.
    assert drawn["rft, random"] == pytest.approx([217, 120, 96], abs=0.5)
    assert drawn["grpo, chosen"] == pytest.approx([67, 19, 20], abs=0.5)
    assert all(sizes[0] > max(sizes[1:]) for sizes in drawn.values())


def test_chosen_projections_are_drawn_beside_random_ones() -> None:
    axes = Figure().add_subplot()
    figures.chosen_projections(axes)
    drawn = {bars.get_label(): list(bars.lines[0].get_ydata()) for bars in axes.containers}
    # The rows of grpo in docs/abacus-message.md.
    assert [100 * y for y in drawn["grpo, chosen"]] == pytest.approx([40.4, 46.3, 61.2, 66.3, 76.8], abs=0.06)
    assert [100 * y for y in drawn["grpo, random"]] == pytest.approx([39.2, 40.0, 42.9, 44.0, 56.6], abs=0.06)


def test_accuracy_is_drawn_against_the_bits_of_the_update_with_its_choice() -> None:
    axes = Figure().add_subplot()
    figures.accuracy_against_bits(axes)
    drawn = {bars.get_label(): dict(zip(*bars.lines[0].get_data(), strict=True)) for bars in axes.containers}
    # The rows of grpo in docs/abacus-message.md.
    assert 100 * drawn["random"][1344] == pytest.approx(56.6, abs=0.05)
    assert [100 * drawn["chosen, 4 bits"][bits] for bits in (264, 1680)] == pytest.approx([54.4, 72.9], abs=0.05)
    assert [100 * drawn["chosen, 12 bits"][bits] for bits in (368, 2352)] == pytest.approx([67.8, 81.7], abs=0.05)
