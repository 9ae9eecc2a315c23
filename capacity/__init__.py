"""capacity: how small an update teaches a language model a task, by SFT and by GRPO, through one adapter layer.

The library is here by name: `capacity.compare(size=13)`, `capacity.Study("my-study").points`; docs/python.md shows it.
A name is imported when it is first used, so that `import capacity` is quick and needs neither torch nor pandas.

What `capacity plan` does is `capacity.plan_update`: `capacity.plan` is the sub-package that plans.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from capacity.version import __version__ as __version__

if TYPE_CHECKING:
    from capacity.library.baseline import baseline as baseline
    from capacity.library.bits import bits as bits
    from capacity.library.bundle import bundle as bundle
    from capacity.library.certify import certify as certify
    from capacity.library.check import check as check
    from capacity.library.compare import compare as compare
    from capacity.library.describe import describe as describe
    from capacity.library.doctor import doctor as doctor
    from capacity.library.evaluate import evaluate as evaluate
    from capacity.library.evaluate_adapters import evaluate_adapters as evaluate_adapters
    from capacity.library.export import export as export
    from capacity.library.express import express as express
    from capacity.library.expressible import expressible as expressible
    from capacity.library.import_results import import_results as import_results
    from capacity.library.open import attach as attach
    from capacity.library.open import load as load
    from capacity.library.plan_update import plan_update as plan_update
    from capacity.library.report import report as report
    from capacity.library.save import save as save
    from capacity.library.study import Study as Study
    from capacity.library.sweep import sweep as sweep
    from capacity.library.thresholds import thresholds as thresholds
    from capacity.library.verdict import verdict as verdict
    from capacity.plan.sizes import SizeChoice as SizeChoice

# Where each name of the library comes from.
_HOMES = {
    "SizeChoice": "capacity.plan.sizes",
    "Study": "capacity.library.study",
    "attach": "capacity.library.open",
    "baseline": "capacity.library.baseline",
    "bits": "capacity.library.bits",
    "bundle": "capacity.library.bundle",
    "certify": "capacity.library.certify",
    "check": "capacity.library.check",
    "compare": "capacity.library.compare",
    "describe": "capacity.library.describe",
    "doctor": "capacity.library.doctor",
    "evaluate": "capacity.library.evaluate",
    "evaluate_adapters": "capacity.library.evaluate_adapters",
    "export": "capacity.library.export",
    "express": "capacity.library.express",
    "expressible": "capacity.library.expressible",
    "import_results": "capacity.library.import_results",
    "load": "capacity.library.open",
    "plan_update": "capacity.library.plan_update",
    "report": "capacity.library.report",
    "save": "capacity.library.save",
    "sweep": "capacity.library.sweep",
    "thresholds": "capacity.library.thresholds",
    "verdict": "capacity.library.verdict",
}
__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
