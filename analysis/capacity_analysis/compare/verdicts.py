"""What comparisons allow to say, in words. A side is taken only if an interval excludes 0 and there are two seeds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from capacity.runs.cell import apart_from
from capacity_analysis.compare.comparison import Comparison, Difference
from capacity_analysis.data.recipes import told_apart
from capacity_analysis.statistics.estimate import Estimate, labels

_NOTHING = ("there is nothing to compare",)
_GAINS = {1: "gains over the base", -1: "falls below the base", 0: "does not clearly differ from the base"}


@dataclass(frozen=True)
class Verdict:
    """Claims about one model and task.

    Attributes:
        head: at which size, or over which sizes: "With 84 trained parameters".
        claims: clauses without an end.
        scope: what intervals are for, how many items there are, which seeds collapsed, and which runs are left out.
    """

    head: str
    claims: tuple[str, ...]
    scope: str

    @property
    def sentence(self) -> str:
        """All claims in one sentence, the scope at its end."""
        return f"{self.head}: {'; '.join(self.claims)} ({self.scope})."

    @property
    def sentences(self) -> tuple[str, ...]:
        """A sentence a claim, the scope in the first."""
        first, *others = self.claims
        return f"{self.head} ({self.scope}): {first}.", *(f"{claim}." for claim in others)


def verdict(comparison: Comparison) -> Verdict:
    """The claims of one comparison."""
    alone = _one_seed([comparison])
    claims = [f"{_side(d, alone=alone)}{_value(d)}" for d in _known(comparison)]
    for gain in _gains(comparison):
        doubtful = f", {_points(gain.doubtful)}" if gain.doubtful is not None else ""
        claims.append(f"{gain.name} {gain.words}, {_points(gain.estimate)}{gain.doubt}{doubtful}")
    size = comparison.cells[0].cell.trained_parameters if comparison.cells else 0
    return _verdict(f"With {size:,} trained parameter{'' if size == 1 else 's'}", claims, [comparison])


def verdicts(comparisons: Sequence[Comparison]) -> tuple[Verdict, ...]:
    """The claims of each model and task that has some; of comparisons at several sizes one claim a pair of methods."""
    families: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        families.setdefault(apart_from(comparison.recipe, "adapter"), []).append(comparison)
    names = told_apart([family[0].recipe for family in families.values()], "adapter")
    found = []
    for name, family in zip(names, families.values(), strict=True):
        own = verdict(family[0]) if len(family) == 1 else _over_sizes(family)
        if own.claims != _NOTHING:
            found.append(replace(own, head=f"{name}: {own.head}" if name else own.head))
    return tuple(found)


def _over_sizes(family: Sequence[Comparison]) -> Verdict:
    """Where a side is taken the numbers are given; elsewhere the sizes."""
    alone = _one_seed(family)
    pairs: dict[tuple[str, str], dict[str, list[str]]] = {}
    gains: dict[str, dict[str, list[str]]] = {}
    for size, comparison in zip(_sizes(family), family, strict=True):
        for d in _known(comparison):
            undecided = d.estimate.sign == 0 and d.estimate.seeds > 1
            side = _side(d, alone=alone).removesuffix(", ") or f"{d.first} − {d.second}"
            number = "" if undecided else f" ({_points(d.estimate).replace(' (', ', ')}"
            pairs.setdefault((d.first, d.second), {}).setdefault(side, []).append(f"{size}{number}")
        for gain in _gains(comparison):
            gains.setdefault(gain.name, {}).setdefault(f"{gain.words}{gain.doubt}", []).append(size)
    claims = [_phrases(found) for found in pairs.values()]
    claims += [f"{name} {_phrases(found)}" for name, found in gains.items()]
    return _verdict("By trained parameters", claims, family)


def _phrases(found: dict[str, list[str]]) -> str:
    return ", ".join(f"{phrase} at {_listed(at)}" for phrase, at in found.items())


def _verdict(head: str, claims: Sequence[str], family: Sequence[Comparison]) -> Verdict:
    if not any(c.cells for c in family):
        return Verdict("Nothing can be said", ("no trained run is complete",), _scope(family))
    first = "One seed: no claim about methods. " if _one_seed(family) else ""
    return Verdict(f"{first}{head}", tuple(claims) or _NOTHING, _scope(family))


def _one_seed(family: Iterable[Comparison]) -> bool:
    """Every trained cell has one seed."""
    return {c.cell.accuracy.seeds for comparison in family for c in comparison.cells} == {1}


def _known(comparison: Comparison) -> Iterator[Difference]:
    """Differences with an interval: of others nothing says whether they are more than chance."""
    return (d for d in comparison.differences if d.estimate.over is not None)


def _side(d: Difference, *, alone: bool) -> str:
    """The side that a difference takes, up to its number."""
    if d.estimate.seeds == 1:
        return "" if alone else f"one seed in common allows no claim about {d.first} and {d.second}, "
    if d.estimate.sign > 0:
        return f"{d.first} scores higher than {d.second}, "
    if d.estimate.sign < 0:
        return f"{d.second} scores higher than {d.first}, "
    return f"{d.first} and {d.second} cannot be told apart, "


def _value(d: Difference) -> str:
    """The number, with what it is a difference of unless the words before say that."""
    said = d.estimate.sign > 0 and d.estimate.seeds > 1
    return _points(d.estimate) if said else f"{d.first} − {d.second} {_points(d.estimate)}"


@dataclass(frozen=True)
class _Gain:
    """What a cell gained over the base. `doubtful`: over its best temperature, if sharpening alone gave as much."""

    name: str
    words: str
    estimate: Estimate
    doubtful: Estimate | None
    best_temperature: float | None

    @property
    def doubt(self) -> str:
        """A clause; empty without doubt."""
        if self.doubtful is None:
            return ""
        return f", but not clearly over the base at its best temperature {self.best_temperature:g}"


def _gains(comparison: Comparison) -> Iterator[_Gain]:
    for compared in comparison.cells:
        gain, over = compared.gain, compared.gain_over_best_temperature
        if gain is not None and gain.over is not None:
            words = _GAINS[gain.sign] + (" in its one run" if gain.seeds == 1 else "")
            doubtful = over if gain.sign > 0 and over is not None and over.sign <= 0 else None
            yield _Gain(compared.name, words, gain, doubtful, comparison.best_temperature)


def _points(estimate: Estimate) -> str:
    """ "+12.3 points (+10.1 to +14.5)"."""
    value, bracket, ends = estimate.points().partition(" (")
    return f"{value} points{bracket}{ends}"


def _sizes(family: Sequence[Comparison]) -> list[str]:
    """Trained parameters of each comparison, with what tells those of equal sizes apart."""
    counts = [c.cells[0].cell.trained_parameters if c.cells else 0 for c in family]
    words: dict[int, str] = {}
    for count in set(counts):
        places = [place for place, other in enumerate(counts) if other == count]
        words.update(zip(places, told_apart([family[place].recipe for place in places]), strict=True))
    return [f"{count:,} {words[place]}".rstrip() for place, count in enumerate(counts)]


def _scope(family: Sequence[Comparison]) -> str:
    cells = [c for comparison in family for c in comparison.cells]
    used = [d.estimate for comparison in family for d in comparison.differences] + [c.gain for c in cells if c.gain]
    parts = [labels(used)]
    items = {c.cell.accuracy.items for c in cells}
    parts += [f"{n:,} items" for n in items if n is not None and len(items) == 1]
    if cells and any(comparison.base is None for comparison in family):
        parts.append("the untrained base has no run, so gains are not known")
    for comparison in family:
        for compared in comparison.cells:
            if compared.collapsed.count:
                at = f" at {compared.cell.trained_parameters:,}" if len(family) > 1 else ""
                parts.append(
                    f"{compared.collapsed.count} of {compared.collapsed.seeds} {compared.name} seeds collapsed{at}"
                )
    lost: dict[str, int] = {}
    for comparison in family:
        for method, count in comparison.incomplete.items():
            known = lost.get(method, 0)
            lost[method] = max(known, count) if method == "base" else known + count  # one base serves all sizes
    for method, count in lost.items():
        runs, are = ("runs", "are") if count > 1 else ("run", "is")
        parts.append(f"{count} {method} {runs} gave no result and {are} left out")
    return "; ".join(parts)


def _listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
