"""Options that several commands share."""

from typing import Annotated

import typer

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
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes.", show_default="cores, at most 4")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the runs and stop.")]
ReuseMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Reuse runs of this study that another environment made.")
]
AllowMixed = Annotated[bool, typer.Option("--allow-mixed", help="Runs that different environments made.")]
Points = Annotated[str, typer.Argument(help="Points table (CSV, Parquet), study folder, or reference:NAME.")]
OfTask = Annotated[str | None, typer.Option(help="Rows of this task.", show_default="the only one")]
OfItems = Annotated[str, typer.Option(help="Intervals for fresh seeds on these items, or a population of them.")]
Target = Annotated[float | None, typer.Option(help="Accuracy to reach: 0.85.", show_default="by --gain")]
Gain = Annotated[
    float | None, typer.Option(help="Share of the gain from the base up to the ceiling.", show_default="0.8")
]
