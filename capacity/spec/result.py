"""What a run leaves behind, typed: its result, its training steps, its answers."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, SerializerFunctionWrapHandler, model_serializer

from capacity.spec.frozen import Frozen

Share = Annotated[float, Field(ge=0, le=1)]
Grade = Literal[0, 1]


class Recorded(Frozen):
    """A record that is written without the fields that were not measured. Fields of other versions are left out."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="constants")  # so that writing refuses them

    @model_serializer(mode="wrap")
    def _measured_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if name in self.model_fields_set}


class Allocation(Recorded):
    """How the entries of θ were dealt to groups by the gradients at θ = 0.

    Attributes:
        scores: root mean square gradient of each group.
        entries: of θ that each group got.
        cost: what the measurement used, by the names of the costs in `Result`.
    """

    scores: tuple[float, ...]
    entries: tuple[NonNegativeInt, ...]
    cost: dict[str, NonNegativeInt]


class Result(Recorded):
    """Counts, costs and the accuracy of one run.

    Attributes:
        model_parameters: of the untrained model.
        family: of the model.
        base_fingerprint: SHA-256 over the untrained weights, 64 hex digits.
        trained_parameters: scalars that the optimiser changed.
        update_bytes: the payload of the update in its storage dtype.
        header_bytes: the rest of its file.
        allocation: how entries were dealt to groups, where gradients decided.
        update_square_sum: ‖θ‖² of the trained update less its start.
        items_digest: SHA-256 over names and contents of the items, 16 hex digits.
        n_items: items that were asked.
        n_correct: correct answers among `n_items` × samples per item.
        n_strict, n_lenient: correct answers by each way of grading, for tasks that are graded twice.
        n_unfinished: answers that were cut off at the protocol's number of tokens.
        accuracy: share of correct answers.
        prompts: prompts trained on, a prompt as often as it came.
        sequences: sequences trained on.
        sampled_sequences, sampled_tokens: drawn for the training.
        trained_tokens: completion tokens trained on.
        flops: floating-point operations of sampling and training.
        heldout_code_length_bits, heldout_base_code_length_bits: bits of held-out sequences under the trained and under
            the untrained model, summed over tokens.
        heldout_demonstrations, heldout_tokens: how many sequences and tokens those are.
        engine: name and version of the engine that sampled, where it was another than the trainer's model.
        processes: that made the run together.
        training_seconds, wall_seconds: until the update was stored, and in all.
        worker_peak_memory_bytes: largest resident memory of the process.
    """

    model_parameters: PositiveInt
    family: str
    base_fingerprint: str | None = None
    trained_parameters: NonNegativeInt
    update_bytes: NonNegativeInt
    header_bytes: NonNegativeInt = 0
    allocation: Allocation | None = None
    update_square_sum: float | None = None
    items_digest: str = ""
    n_items: PositiveInt
    n_correct: NonNegativeInt
    n_strict: NonNegativeInt | None = None
    n_lenient: NonNegativeInt | None = None
    n_unfinished: NonNegativeInt | None = None
    accuracy: Share
    prompts: NonNegativeInt | None = None
    sequences: NonNegativeInt | None = None
    sampled_sequences: NonNegativeInt | None = None
    sampled_tokens: NonNegativeInt | None = None
    trained_tokens: NonNegativeInt | None = None
    flops: NonNegativeInt | None = None
    heldout_code_length_bits: float | None = None
    heldout_base_code_length_bits: float | None = None
    heldout_demonstrations: PositiveInt | None = None
    heldout_tokens: PositiveInt | None = None
    engine: str | None = None
    processes: PositiveInt | None = None
    training_seconds: float | None = None
    wall_seconds: float | None = None
    worker_peak_memory_bytes: NonNegativeInt | None = None


class Step(Recorded):
    """Metrics of one training step, all of them from before its update.

    Attributes:
        step: counted from 0 over the whole run.
        phase: the method that trains, in runs of several phases.
        loss: of the step; its unit is the objective's.
        mean_length: completion tokens a sequence.
        trained_tokens: completion tokens of the step.
        entropy_bits: mean entropy of the next token.
        kl_to_base_bits: mean KL of the model to its base, a token.
        code_length_bits, base_code_length_bits: −log₂ p of the step's completions, summed, by model and base.
        reward: mean over the step's samples.
        group_hits: rewarded samples of each group.
        dead_groups: groups whose rewards are all equal.
        reward_bits: code length of the rewards by the Krichevsky–Trofimov estimator, a group at a time.
        kl_to_sampler_bits: mean KL of the sampler to the trainer, a token.
        importance_share: share of the loss that importance weights left.
        unsolved_prompts: prompts without a correct sample (rft).
        different_samples: different correct samples that were trained on (rft).
        sync_seconds, sync_bytes, realised_cosine: of sending the update to another engine.
        freshness, freshness_error, freshness_floor, divergence_ratio: of the check that this engine samples from the
            current update; see `capacity.sampling.vllm.freshness`.
    """

    step: NonNegativeInt
    phase: str | None = None
    loss: float
    mean_length: float | None = None
    trained_tokens: NonNegativeInt | None = None
    entropy_bits: float | None = None
    kl_to_base_bits: float | None = None
    code_length_bits: float | None = None
    base_code_length_bits: float | None = None
    reward: float | None = None
    group_hits: tuple[NonNegativeInt, ...] | None = None
    dead_groups: NonNegativeInt | None = None
    reward_bits: float | None = None
    kl_to_sampler_bits: float | None = None
    importance_share: float | None = None
    unsolved_prompts: NonNegativeInt | None = None
    different_samples: NonNegativeInt | None = None
    sync_seconds: float | None = None
    sync_bytes: NonNegativeInt | None = None
    realised_cosine: float | None = None
    freshness: str | None = None
    freshness_error: float | None = None
    freshness_floor: float | None = None
    divergence_ratio: float | None = None


class Outcome(Recorded):
    """The answers to one item, a grade and a completion each.

    Attributes:
        item: its name.
        correct: the grades that count.
        strict, lenient: the grades by each way, for tasks that are graded twice.
        completions: what the model wrote.
    """

    item: str
    correct: Annotated[tuple[Grade, ...], Field(min_length=1)]
    strict: tuple[Grade, ...] | None = None
    lenient: tuple[Grade, ...] | None = None
    completions: tuple[str, ...] = ()
