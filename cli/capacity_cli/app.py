"""Entry point of `capacity`: the commands, their options, and how errors end."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from capacity.errors import CapacityError, SpecError

app = typer.Typer(
    help="How small an update teaches a language model a task, and does GRPO need a smaller one than SFT?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="End without writing the page of the study.")]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Largest update: 100 (parameters), 26B, 1KiB, 208bit.", show_default="100, if no adapter is chosen"
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        help="tinylora, lora-xs, lora, vera, vb-lora, uni-lora, bitfit or full.", show_default="the budget decides"
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        help="Frozen rank of tinylora and lora-xs, rank of the other LoRAs.",
        show_default="2; vera 256, vb-lora and uni-lora 4",
    ),
]
U = Annotated[
    int | None, typer.Option(help="Entries of the trained vector of each group (tinylora).", show_default="1")
]
Groups = Annotated[
    int | None,
    typer.Option(help="Number of groups that share a vector (tinylora).", show_default="every module its own"),
]
NTie = Annotated[int | None, typer.Option(help="Modules a group, instead of --groups (tinylora).")]
Vectors = Annotated[int | None, typer.Option(help="Vectors in the bank (vb-lora).", show_default="256")]
VectorLength = Annotated[
    int | None,
    typer.Option(help="Entries of each (vb-lora).", show_default="largest power of two up to 256 that fits"),
]
Length = Annotated[int | None, typer.Option(help="Entries of the one vector (uni-lora).", show_default="256")]
Targets = Annotated[
    str | None,
    typer.Option(help="Types of the modules to adapt: q_proj,k_proj.", show_default="all linear modules"),
]
Sharing = Annotated[str, typer.Option(help="tiled (neighbours by depth) or structured (only modules of one type).")]
Scaling = Annotated[str, typer.Option(help="paper (U Σ R Vᵀ) or split (U √Σ R √Σ Vᵀ), for tinylora and lora-xs.")]
Allocation = Annotated[
    str, typer.Option(help="even, or gradient: groups with larger gradients get more entries (tinylora).")
]
StorageDtype = Annotated[
    str, typer.Option(help="Dtype of the stored update: fp32, bf16, fp16, fp8, int8, int4 or entropy.")
]

Rollouts = Annotated[
    str,
    typer.Option(help="What samples: transformers (the trainer's own model), vllm, or auto (vllm for large models)."),
]


@app.command()
def compare(
    model: Annotated[str, typer.Option(help="Model alias.")] = "abacus",
    task: Annotated[
        str | None,
        typer.Option(help="Task, with options: abacus?demonstrations=own.", show_default="abacus; gsm8k for others"),
    ] = None,
    budget: Budget = None,
    methods: Annotated[
        str, typer.Option(help="Methods to train, by comma: sft, rft, rft-online, grpo, random-reward, sft+grpo.")
    ] = "sft,rft,grpo",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method: seeds 0 … N−1.")] = 3,
    learning_rates: Annotated[
        str | None, typer.Option(help="0.01, or sft=0.003,grpo=0.01. Tuned rates are shipped for abacus.")
    ] = None,
    adapter: Adapter = None,
    rank: Rank = None,
    u: U = None,
    groups: Groups = None,
    n_tie: NTie = None,
    vectors: Vectors = None,
    vector_length: VectorLength = None,
    length: Length = None,
    targets: Targets = None,
    sharing: Sharing = "tiled",
    scaling: Scaling = "paper",
    allocation: Allocation = "even",
    storage_dtype: StorageDtype = "bf16",
    match: Annotated[
        str, typer.Option(help="What the methods have in common: prompts, sequences or tokens.")
    ] = "prompts",
    tokens_per_step: Annotated[
        int | None, typer.Option(min=1, help="Completion tokens that a step trains on, with --match tokens.")
    ] = None,
    rollouts: Rollouts = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes.", show_default="cores, at most 4")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Study folder.", show_default="capacity-studies/…")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and stop.")] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Reuse runs of this study that another environment made.")
    ] = False,
    no_report: NoReport = False,
    json: Json = False,
) -> None:
    """Train matched pairs of runs of one size and compare them on the test items."""
    from capacity_cli.compare import compare_command
    from capacity_cli.sizes import size_choice

    choice = size_choice(
        budget=budget, adapter=adapter, rank=rank, u=u, groups=groups, n_tie=n_tie, vectors=vectors,
        vector_length=vector_length, length=length, targets=targets, sharing=sharing, scaling=scaling,
        allocation=allocation,
    )  # fmt: skip
    compare_command(
        model, task, choice, methods, seeds, learning_rates, storage_dtype, match, tokens_per_step,
        workers, out, dry_run=dry_run, allow_mixed=allow_mixed, report=not no_report, rollouts=rollouts,
        as_json=json,
    )  # fmt: skip


@app.command()
def sweep(
    study: Annotated[Path, typer.Argument(help="Study file (TOML).")],
    out: Annotated[Path | None, typer.Option(help="Study folder.", show_default="capacity-studies/NAME")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes.", show_default="cores, at most 4")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and stop.")] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Reuse runs of this study that another environment made.")
    ] = False,
    no_report: NoReport = False,
    json: Json = False,
) -> None:
    """Make all runs of a study file: models, tasks, methods, sizes, rates and seeds. Continues where it stopped."""
    from capacity_cli.sweep import sweep_command

    sweep_command(
        study, out, workers, dry_run=dry_run, allow_mixed=allow_mixed, report=not no_report, as_json=json
    )  # fmt: skip


@app.command()
def plan(
    model: Annotated[str, typer.Option(help="Model alias, or a folder with the config.json of a model.")] = "abacus",
    budget: Budget = None,
    adapter: Adapter = None,
    rank: Rank = None,
    u: U = None,
    groups: Groups = None,
    n_tie: NTie = None,
    vectors: Vectors = None,
    vector_length: VectorLength = None,
    length: Length = None,
    targets: Targets = None,
    sharing: Sharing = "tiled",
    scaling: Scaling = "paper",
    allocation: Allocation = "even",
    storage_dtype: StorageDtype = "bf16",
    rollouts: Annotated[
        str, typer.Option(help="With vllm: the memory of a device that trainer and engine share.")
    ] = "transformers",
    modules: Annotated[bool, typer.Option("--modules", help="List the adapted modules with their groups.")] = False,
    memory: Annotated[
        str | None, typer.Option(help="24GB: does training fit such a GPU, and if not, what to change?")
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Of the longest completion, for the memory.")] = 512,
    json: Json = False,
) -> None:
    """What an update of a given budget or choice is on a model. Offline, without torch."""
    from capacity_cli.plan import plan_command
    from capacity_cli.sizes import size_choice

    choice = size_choice(
        budget=budget, adapter=adapter, rank=rank, u=u, groups=groups, n_tie=n_tie, vectors=vectors,
        vector_length=vector_length, length=length, targets=targets, sharing=sharing, scaling=scaling,
        allocation=allocation,
    )  # fmt: skip
    plan_command(
        model, choice, storage_dtype, list_modules=modules, as_json=json, rollouts=rollouts,
        memory=memory, tokens=(256, new_tokens),
    )  # fmt: skip


@app.command()
def runs(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    points: Annotated[Path | None, typer.Option(help="Write the points table to this CSV file.")] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Points of runs that different environments made.")
    ] = False,
    json: Json = False,
) -> None:
    """What is in a study: complete, stale and failed runs, and their points table."""
    from capacity_cli.runs import runs_command

    runs_command(study, points, allow_mixed=allow_mixed, as_json=json)


@app.command()
def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Alias, or a folder such as merged weights. [default: the adapter's base]")
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="Native artifact, run folder, or PEFT folder to put on the model; several with vllm."),
    ] = None,
    task: Annotated[str, typer.Option(help="Task.")] = "abacus",
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    items: Annotated[int | None, typer.Option(min=1, help="Items. [default: the task's protocol]")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Completions of each item.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature, 0 is greedy. [default: the task's protocol]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    control: Annotated[bool, typer.Option("--control", help="Also with the adapter switched off.")] = False,
    code_length: Annotated[
        bool, typer.Option("--code-length", help="Also what a demonstration of each item costs to code, in bits.")
    ] = False,
    rollouts: Annotated[str, typer.Option(help="What samples: transformers, or vllm for all adapters at once.")] = (
        "transformers"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Write the result with per-item outcomes.", show_default="none")
    ] = None,
    json: Json = False,
) -> None:
    """Accuracy of a model on a task, with any form of adapter on it."""
    from capacity_cli.evaluate import evaluate_command
    from capacity_cli.evaluate_several import evaluate_several_command, through_engine

    adapters = adapter or []
    if through_engine(rollouts, adapters, code_length=code_length):
        evaluate_several_command(
            model, adapters, task, split, items, samples, temperature, seed, control=control, out=out, as_json=json
        )
        return
    one = adapters[0] if adapters else None
    evaluate_command(
        model, one, task, split, items, samples, temperature, seed,
        control=control, code_length=code_length, out=out, as_json=json,
    )  # fmt: skip


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="Task with options.")] = None,
    grade: Annotated[bool, typer.Option("--grade", help="Grade all references.")] = False,
    json: Json = False,
) -> None:
    """The tasks, or one of them: splits, a prompt, its references graded."""
    from capacity_cli.tasks import tasks_command

    tasks_command(name, grade=grade, as_json=json)


@app.command()
def models(name: Annotated[str | None, typer.Argument(help="Model with options.")] = None, json: Json = False) -> None:
    """The models, or one of them with its memory."""
    from capacity_cli.models import models_command

    models_command(name, as_json=json)


@app.command()
def export(
    update: Annotated[Path, typer.Argument(help="Native artifact (update.safetensors), or the run folder it is in.")],
    to: Annotated[str, typer.Option(help="peft (a standard LoRA folder) or merged (weights).")] = "peft",
    out: Annotated[Path | None, typer.Option(help="New folder. [default: named after the artifact]")] = None,
    dtype: Annotated[str, typer.Option(help="Of what is written: fp32, bf16 or fp16.")] = "fp32",
    model: Annotated[str | None, typer.Option(help="Alias or folder of the base. [default: as recorded]")] = None,
    json: Json = False,
) -> None:
    """Write a trained update as a PEFT LoRA adapter or merged into the weights."""
    from capacity_cli.export import export_command

    export_command(update, to, out, dtype, model, as_json=json)


@app.command()
def factors(
    folder: Annotated[Path, typer.Argument(help="Folder of a model in safetensors format.")],
    rank: Annotated[int, typer.Option(min=1, help="Singular triplets of each module.")] = 2,
    targets: Targets = None,
    json: Json = False,
) -> None:
    """Compute and cache the SVD factors of a local checkpoint, several modules at once."""
    from capacity_cli.factors import factors_command

    factors_command(folder, rank, targets, as_json=json)


@app.command()
def baseline(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; commit it.")] = Path("baseline.json"),
    force: Annotated[bool, typer.Option("--force", help="Replace an older baseline.")] = False,
    json: Json = False,
) -> None:
    """Write what a study measured to a baseline file, for `capacity check`."""
    from capacity_cli.baseline import baseline_command

    baseline_command(study, out, force=force, as_json=json)


@app.command()
def check(
    study: Annotated[Path | None, typer.Argument(help="Study folder.", show_default="--run makes one")] = None,
    run: Annotated[Path | None, typer.Option(help="Make this study first, from nothing.", show_default="none")] = None,
    baseline: Annotated[Path, typer.Option(help="File of `capacity baseline`.")] = Path("baseline.json"),
    margin: Annotated[float, typer.Option(help="Largest tolerated drop of the mean over sizes: 0.02 is 2 points.")] = (
        0.02
    ),
    alpha: Annotated[float, typer.Option(help="Error of each claim, one-sided.")] = 0.05,
    inconclusive: Annotated[str, typer.Option(help="fail (exit code 3) or warn (0).")] = "fail",
    history: Annotated[
        Path | None, typer.Option(help="File that remembers checks and limits false alarms.", show_default="none")
    ] = None,
    alarms_per_100: Annotated[
        float, typer.Option(help="With --history: false alarms in 100 checks, on average at most.")
    ] = 0.5,
    out: Annotated[
        Path | None, typer.Option(help="With --run: study folder.", show_default="capacity-studies/check-…")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --run: worker processes.", show_default="cores, at most 4")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the result as Markdown.", show_default="none")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the result as JUnit XML.", show_default="none")] = None,
    json: Json = False,
) -> None:
    """Compare a study with its baseline: identical, non-inferior (0), worse (1) or inconclusive (3)."""
    from capacity_cli.check import CheckOptions, check_command

    options = CheckOptions(margin, alpha, inconclusive, history, alarms_per_100)
    check_command(study, run, baseline, options, out, workers, markdown, junit, as_json=json)


@app.command()
def threshold(
    points: Annotated[str, typer.Argument(help="Points table (CSV, Parquet), study folder, or reference:NAME.")],
    target: Annotated[float | None, typer.Option(help="Accuracy to reach: 0.85.", show_default="by --gain")] = None,
    gain: Annotated[
        float | None, typer.Option(help="Share of the gain from the base up to the ceiling.", show_default="0.8")
    ] = None,
    unit: Annotated[str, typer.Option(help="parameters or bytes.")] = "parameters",
    ceiling: Annotated[
        float | None, typer.Option(help="Accuracy of the ceiling.", show_default="measured: docs/thresholds.md")
    ] = None,
    lower: Annotated[float | None, typer.Option(help="Fixed lower limit of the curves.", show_default="fitted")] = None,
    upper: Annotated[float | None, typer.Option(help="Fixed upper limit of the curves.", show_default="fitted")] = None,
    items: Annotated[str, typer.Option(help="Intervals for fresh seeds on these items, or a population of them.")] = (
        "these"
    ),
    replicates: Annotated[int, typer.Option(min=100, help="Resampled data sets.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random here.")] = 0,
    null: Annotated[int, typer.Option(min=0, help="Simulated studies of the null calibration; 0 for none.")] = 400,
    scaling: Annotated[bool, typer.Option("--scaling", help="Thresholds against model size too.")] = False,
    task: Annotated[str | None, typer.Option(help="Rows of this task.", show_default="the only one")] = None,
    demonstrations: Annotated[
        str | None, typer.Option(help="Rows on these demonstrations.", show_default="the only ones")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Rows of this split.", show_default="test")] = None,
    protocol: Annotated[str | None, typer.Option(help="Rows of this protocol.", show_default="the only one")] = None,
    adapter: Annotated[str | None, typer.Option(help="Rows of this adapter.", show_default="all")] = None,
    storage_dtype: Annotated[str | None, typer.Option(help="Rows of this dtype.", show_default="the only one")] = None,
    rate: Annotated[
        str | None,
        typer.Option(help="Learning rate: 0.001, or sft=0.001,grpo=0.003.", show_default="the best on validation"),
    ] = None,
    allow_mixed: Annotated[bool, typer.Option("--allow-mixed", help="Runs that different environments made.")] = False,
    json: Json = False,
) -> None:
    """The smallest update that reaches a target, for each model and method, and the ratios between methods."""
    from capacity_cli.threshold import question_of, threshold_command

    threshold_command(
        points, question_of(target, gain, ceiling, lower, upper, items, replicates),
        unit=unit, task=task, demonstrations=demonstrations, split=split, protocol=protocol, adapter=adapter,
        storage_dtype=storage_dtype, rate=rate, seed=seed, null=null, scaling=scaling, allow_mixed=allow_mixed,
        as_json=json,
    )  # fmt: skip


@app.command()
def bits(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[POINTS]", help="Points table (CSV, Parquet), study folder, or reference:NAME."),
    ] = None,
    requantise: Annotated[
        Path | None,
        typer.Option(help="Study whose updates to store anew in every dtype and evaluate.", show_default="none"),
    ] = None,
    by: Annotated[
        str, typer.Option(help="What tells arms apart, by comma: method, storage_dtype, sharing, u, adapter, …")
    ] = "method,demonstrations,storage_dtype",
    unit: Annotated[
        str | None, typer.Option(help="bytes or parameters.", show_default="bytes, where they are known")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Rows of this task.", show_default="the only one")] = None,
    items: Annotated[str, typer.Option(help="Intervals for fresh seeds on these items, or a population of them.")] = (
        "these"
    ),
    replicates: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    allow_mixed: Annotated[bool, typer.Option("--allow-mixed", help="Runs that different environments made.")] = False,
    json: Json = False,
) -> None:
    """Which updates are smallest at their accuracy, and what one arm saves over another at equal accuracy."""
    from capacity_cli.bits import bits_command

    bits_command(
        source, requantise, by, unit, task, items, replicates, seed, allow_mixed=allow_mixed, as_json=json
    )  # fmt: skip


@app.command()
def describe(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    epsilon: Annotated[
        float | None,
        typer.Option(help="Loss of the surplus description length, bits a token.", show_default="final held-out loss"),
    ] = None,
    configurations: Annotated[
        int | None,
        typer.Option(min=1, help="Among how many each run was chosen.", show_default="trials of the shipped rate"),
    ] = None,
    allow_mixed: Annotated[bool, typer.Option("--allow-mixed", help="Runs that different environments made.")] = False,
    json: Json = False,
) -> None:
    """Description lengths of a study in bits: demonstrations, rewards and updates, method by method."""
    from capacity_cli.describe import describe_command

    describe_command(study, epsilon, configurations, allow_mixed=allow_mixed, as_json=json)


@app.command()
def report(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY...", help="Study folders, points tables (CSV, Parquet), or reference:NAME."),
    ],
    reference: Annotated[
        str | None, typer.Option(help="Published figures to show beside: tinylora.", show_default="none")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File of the report.", show_default="report.html in the study folder"),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", help="By comma: html, md, pdf, png, svg, csv, json.", show_default="that of --out"),
    ] = None,
    target: Annotated[float | None, typer.Option(help="Accuracy to reach: 0.85.", show_default="by --gain")] = None,
    gain: Annotated[
        float | None, typer.Option(help="Share of the gain from the base up to the ceiling.", show_default="0.8")
    ] = None,
    items: Annotated[str, typer.Option(help="Thresholds for fresh seeds on these items, or a population of them.")] = (
        "these"
    ),
    null: Annotated[int, typer.Option(min=0, help="Simulated studies of the null calibration; 0 for none.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random here.")] = 0,
    allow_mixed: Annotated[bool, typer.Option("--allow-mixed", help="Runs that different environments made.")] = False,
    json: Json = False,
) -> None:
    """Write a study as one self-contained page, or as figures and tables; of several, each against the first."""
    from capacity_cli.report import report_command
    from capacity_cli.threshold import question_of
    from capacity_reports.views import Options

    options = Options(question_of(target, gain, None, None, None, items, 1000), seed, null)
    report_command(studies, out, formats, reference, options, allow_mixed=allow_mixed, as_json=json)


@app.command()
def version() -> None:
    """Print the version."""
    from capacity import __version__

    typer.echo(__version__)


class Interrupted(CapacityError):
    """Ctrl-C; complete runs are kept."""


_INTERRUPTED = 130
# Click's own base of usage errors, wherever Typer keeps it.
_UsageError = typer.BadParameter.__mro__[1]


def main() -> None:
    """Runs the command line. Every expected error is one line on stderr: exit 2 for wrong input, 1 for the rest."""
    try:
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:  # Typer swallows Ctrl-C
            _fail("interrupted", _INTERRUPTED)
        sys.exit(code)
    except CapacityError as error:
        _fail(str(error), 2 if isinstance(error, SpecError) else 130 if isinstance(error, Interrupted) else 1)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {error.strerror}", 1)
    except Exception as error:
        if not isinstance(error, _UsageError):
            raise
        if len(sys.argv) == 1:  # the help was shown
            sys.exit(2)
        _fail(" ".join(error.format_message().split()), 2)  # type: ignore[attr-defined]


def _fail(message: str, code: int) -> None:
    print(f"capacity: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
