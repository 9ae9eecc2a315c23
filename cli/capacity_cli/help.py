"""What `--help` shows beside the options themselves: groups of options, groups of commands, and examples."""

import inspect
from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Annotated, Any, get_args

from typer.models import OptionInfo

from capacity.plan.sizes import SizeChoice

_SIZE = "Size of the update"
_ASKED = "What is asked"
_CHOSEN = "Which runs"
_MADE = "How runs are made"
_SHOWN = "Output"

# The group of each option, wherever it stands. What is not here stands under "Options".
_OPTIONS = {
    **dict.fromkeys(
        ("storage_dtype", "together", "workers", "trainer", "rollouts", "allow_mixed", "reuse", "dry_run"), _MADE
    ),
    **dict.fromkeys(("checkpoint_minutes", "executor", "devices", "ray"), _MADE),
    **dict.fromkeys(
        ("learning_rates", "match", "tokens_per_step", "seeds", "draws", "until", "within", "most_seeds"), _MADE
    ),
    **dict.fromkeys(
        (
            "model",
            "task",
            "methods",
            "margin",
            "alpha",
            "baseline",
            "inconclusive",
            "target",
            "gain",
            "unit",
            "ceiling",
            "metric",
            "column",
            "fact",
            "common",
        ),
        _ASKED,
    ),
    **dict.fromkeys(
        (
            "lower",
            "upper",
            "items",
            "by",
            "requantise",
            "scaling",
            "epsilon",
            "configurations",
            "memory",
            "new_tokens",
            "reference",
            "grade",
            "method",
            "best",
            "bundle",
            "number",
            "run",
        ),
        _ASKED,
    ),
    **dict.fromkeys(("where", "split", "protocol", "demonstrations", "rate"), _CHOSEN),
    **dict.fromkeys(("replicates", "seed", "null"), "Random draws"),
    **dict.fromkeys(
        (
            "json",
            "details",
            "out",
            "no_report",
            "markdown",
            "junit",
            "history",
            "modules",
            "formats",
            "force",
            "watch",
            "to",
            "dtype",
        ),
        _SHOWN,
    ),
    **dict.fromkeys(SizeChoice.model_fields, _SIZE),
}
# Where a command means something else by an option than the others do.
_HERE: dict[tuple[str, str], str] = {
    ("threshold", "study"): _MADE,
    ("threshold", "out"): _MADE,
    ("threshold", "scaling"): _ASKED,
    ("threshold", "task"): _CHOSEN,
    ("threshold", "adapter"): _CHOSEN,
    ("threshold", "storage_dtype"): _CHOSEN,
    ("threshold", "allow_mixed"): _CHOSEN,
    ("bits", "task"): _CHOSEN,
    ("bits", "allow_mixed"): _CHOSEN,
    ("describe", "allow_mixed"): _CHOSEN,
    ("report", "allow_mixed"): _CHOSEN,
    ("runs", "allow_mixed"): _CHOSEN,
    ("runs", "points"): _SHOWN,
    ("factors", "rank"): "Options",
    ("factors", "targets"): "Options",
    ("evaluate", "adapter"): _ASKED,
    ("evaluate", "split"): _ASKED,
    ("evaluate", "control"): _ASKED,
    ("evaluate", "drift"): _ASKED,
    ("evaluate", "code_length"): _ASKED,
    ("evaluate", "samples"): "Random draws",
    ("evaluate", "temperature"): "Random draws",
    ("express", "items"): _ASKED,
    ("express", "largest"): _ASKED,
    ("express", "evaluations"): _ASKED,
    ("certify", "items"): _ASKED,
    ("certify", "level"): _ASKED,
    ("certify", "parameters"): _SIZE,
    ("certify", "choice_bits"): _SIZE,
    ("certify", "level_bits"): _SIZE,
    ("certify", "scale"): _SIZE,
    ("verdict", "seed_spread"): _ASKED,
    ("view", "port"): _SHOWN,
    ("check", "alarms_per_100"): _SHOWN,
}
_COMMANDS = {
    "Plan and make runs": ("compare", "sweep", "plan", "runs", "tasks", "models"),
    "Ask a study": ("report", "view", "threshold", "bits", "describe", "express"),
    "Adapters": ("evaluate", "export", "certify", "factors"),
    "Continuous integration": ("baseline", "check"),
    "Results of other programs": ("verdict", "import"),
    "Other": ("doctor", "version"),
}
EXAMPLES: dict[str, tuple[str, ...]] = {
    "compare": ("capacity compare --model abacus --budget 100 --seeds 3",),
    "sweep": ("capacity sweep studies/smoke.toml --dry-run", "capacity sweep studies/smoke.toml"),
    "plan": ("capacity plan --model qwen2.5-7b --budget 26B --memory 24GB",),
    "runs": ("capacity runs capacity-studies/smoke --points points.csv",),
    "evaluate": ("capacity evaluate abacus --items 64", "capacity evaluate --adapter RUN_FOLDER"),
    "tasks": ("capacity tasks gsm8k --grade",),
    "models": ("capacity models qwen2.5-7b",),
    "export": (
        "capacity export capacity-studies/smoke --method grpo --best",
        "capacity export capacity-studies/smoke --run 1e9531f9 --to merged",
        "capacity export capacity-studies/smoke --bundle --out all.safetensors",
    ),
    "express": (
        "capacity express capacity-studies/smoke --evaluations 100",
        "capacity express --model abacus-0.2m --budget 13 --projection chosen",
    ),
    "certify": ("capacity certify --choice-bits 6 --level-bits 1",),
    "factors": ("capacity factors MODEL_FOLDER --rank 8",),
    "baseline": ("capacity baseline capacity-studies/ci-abacus -o baseline.json",),
    "check": ("capacity check --run studies/ci-abacus.toml --baseline baseline.json",),
    "verdict": ("capacity verdict before=logs/main after=logs/branch --metric acc",),
    "import": ("capacity import sft=samples.jsonl --out imported --set method=sft",),
    "threshold": (
        "capacity threshold studies/results/abacus-sizes.csv",
        "capacity threshold --study studies/abacus-sizes.toml --gain 0.8",
    ),
    "bits": ("capacity bits studies/results/abacus-sizes.csv", "capacity bits --requantise capacity-studies/smoke"),
    "describe": ("capacity describe capacity-studies/smoke",),
    "report": ("capacity report capacity-studies/smoke -o report.html",),
    "view": ("capacity view capacity-studies/smoke",),
    "doctor": ("capacity doctor",),
    "version": ("capacity version",),
}


def panel_of(command: str) -> str:
    """The group that a command stands in."""
    return next(panel for panel, names in _COMMANDS.items() if command in names)


def epilog_of(command: str) -> str:
    """What the help of a command ends with: its examples, a paragraph each."""
    return "\n\n".join(f"Example: {line}" for line in EXAMPLES[command])


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each of its options in its group, and with defaults in plain words."""

    @wraps(command)
    def same(**given: Any) -> None:
        command(**given)

    signature = inspect.signature(command)
    parameters = [_grouped(parameter, command.__name__) for parameter in signature.parameters.values()]
    same.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return same


def _grouped(parameter: inspect.Parameter, command: str) -> inspect.Parameter:
    kind, option = get_args(parameter.annotation)
    option = copy(option)
    if isinstance(option, OptionInfo):
        option.rich_help_panel = _HERE.get((command, parameter.name), _OPTIONS.get(parameter.name))
    if isinstance(option.show_default, str):
        option.help = f"{option.help} Default: {option.show_default}."
        option.show_default = False
    return parameter.replace(annotation=Annotated[kind, option])
