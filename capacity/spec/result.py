"""A run leaves a result, training steps and outcomes. Each of them is a typed record."""

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from capacity.spec.frozen import Frozen

Share = Annotated[float, Field(ge=0, le=1)]
Grade = Literal[0, 1]


class Recorded(Frozen):
    """Records are written without the fields that were not measured.

    Unknown fields, which other versions of the program wrote, are ignored when a record is read.
    """

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="constants")  # so that writing refuses them

    @model_serializer(mode="wrap")
    def _measured_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if name in self.model_fields_set}


class Allocation(Recorded):
    """Says how the entries of θ were dealt to groups by the gradients at θ = 0.

    Attributes:
        scores: the root mean square gradient of each group.
        entries: the number of entries of θ that each group got.
        cost: what the measurement used, by the names of the costs in `Result`.
    """

    scores: tuple[float, ...]
    entries: tuple[NonNegativeInt, ...]
    cost: dict[str, NonNegativeInt]


class Choice(Recorded):
    """Says how the projection of each entry of θ was chosen by the gradient at θ = 0.

    Attributes:
        candidates: the number of the chosen candidate of each entry.
        energies: the energy of each chosen candidate: its squared gradient at θ = 0.
        expected: the energy that a random candidate is expected to have in its place.
        cost: what the measurement used, by the names of the costs in `Result`.
    """

    candidates: tuple[NonNegativeInt, ...]
    energies: tuple[float, ...]
    expected: tuple[float, ...]
    cost: dict[str, NonNegativeInt]


class Result(Recorded):
    """A result holds the counts, costs and accuracy of one run.

    Attributes:
        model_parameters: the number of parameters of the untrained model.
        family: the family of the model, such as "qwen2".
        base_fingerprint: the SHA-256 over the untrained weights, 64 hex digits.
        base_files: the SHA-256 over the files that the untrained model was loaded from, 64 hex digits.
        trained_parameters: the number of scalars that the optimiser changed.
        update_bytes: the bytes of the payload of the update in its storage dtype, with the choice of its projection.
        header_bytes: the bytes of the rest of the update's file.
        allocation: how entries were dealt to groups, if gradients decided it.
        choice: how the projection was chosen, if it was.
        update_square_sum: the squared norm of the trained θ minus its start.
        items_digest: the SHA-256 over names and contents of the items, 16 hex digits.
        n_items: the number of items in the evaluation.
        n_correct: the number of correct answers among `n_items` × samples per item.
        n_strict, n_lenient: the numbers of correct answers by strict and by lenient grading, for tasks graded twice.
        n_unfinished: the number of answers that were cut off at the token limit of the protocol.
        accuracy: the share of correct answers, 0 to 1.
        end_tokens: the ids of the tokens that end a completion, in ascending order.
        system_folded: True if the system message stood in the user's turn, because the chat template takes none.
        prompts: the number of prompts trained on. A repeated prompt counts each time.
        sequences: the number of sequences trained on.
        sampled_sequences, sampled_tokens: the numbers of sequences and completion tokens drawn for the training.
        trained_tokens: the number of completion tokens trained on.
        flops: the floating-point operations of sampling and training, without those of `preparation_flops`.
        heldout_code_length_bits, heldout_base_code_length_bits: the code length of held-out sequences under the trained
            and under the untrained model, in bits summed over tokens.
        heldout_demonstrations, heldout_tokens: the numbers of held-out sequences and of their completion tokens.
        heldout_sd_bits: the standard deviation, over held-out sequences, of the code length under the trained model.
        heldout_gain_sd_bits: that of the difference of the code lengths under the trained and the untrained model.
        gradient_steps: the number of steps whose gradient was not exactly zero. Only the last phase counts. Runs by
            TRL's trainers do not count them.
        output_change: the largest difference between the logits of the trained and the untrained model, at the first
            completion token of eight items.
        engine: the name and version of the engine that sampled, if it was not the trainer's own model.
        processes: the number of processes that made the run together.
        training_seconds: the time from the start of the run until the update was stored.
        wall_seconds: the time of the whole run.
        worker_peak_memory_bytes: the largest resident memory of the process.
    """

    model_parameters: PositiveInt
    family: str
    base_fingerprint: str | None = None
    base_files: str | None = None
    trained_parameters: NonNegativeInt
    update_bytes: NonNegativeInt
    header_bytes: NonNegativeInt = 0
    allocation: Allocation | None = None
    choice: Choice | None = None
    update_square_sum: float | None = None
    items_digest: str = ""
    n_items: PositiveInt
    n_correct: NonNegativeInt
    n_strict: NonNegativeInt | None = None
    n_lenient: NonNegativeInt | None = None
    n_unfinished: NonNegativeInt | None = None
    accuracy: Share
    end_tokens: tuple[NonNegativeInt, ...] | None = None
    system_folded: bool | None = None
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
    heldout_sd_bits: float | None = None
    heldout_gain_sd_bits: float | None = None
    gradient_steps: NonNegativeInt | None = None
    output_change: NonNegativeFloat | None = None
    engine: str | None = None
    processes: PositiveInt | None = None
    training_seconds: float | None = None
    wall_seconds: float | None = None
    worker_peak_memory_bytes: NonNegativeInt | None = None

    @property
    def preparation_flops(self) -> int:
        """Returns the floating-point operations of the gradients that dealt entries and chose projections.

        Runs may share such a gradient. It counts in each of them, as if that run were made alone.
        """
        return sum(part.cost.get("flops", 0) for part in (self.allocation, self.choice) if part is not None)


class Step(Recorded):
    """A step holds the metrics of one training step. All of them are measured before its update.

    Attributes:
        step: the number of the step, counted from 0 over the whole run.
        phase: the method that trains in this step, for runs of several phases.
        loss: the loss of the step. Its unit depends on the objective.
        mean_length: the mean number of completion tokens per sequence.
        trained_tokens: the number of completion tokens that the step trains on.
        passed_tokens: those of them that went through the model with a gradient. Groups whose gradient is exactly zero
            may be left out. A completion that occurs several times counts each time, although it passes once.
        entropy_bits: the mean entropy of the next token, in bits.
        code_length_bits: the code length of the step's completions, −log₂ p summed over tokens.
        kl_to_base_bits: the mean KL divergence of the model from its base, in bits per token. It is there for the steps
            that make a pass of the base: every tenth and the last, or what `base_every` in `GrpoSpec` says.
        base_code_length_bits: the code length of the completions under the base, for the same steps. Supervised
            methods have it for all steps.
        reward: the mean reward of the step's samples.
        group_hits: the number of rewarded samples in each group.
        dead_groups: the number of groups whose rewards are all equal.
        reward_bits: the code length of the rewards by the Krichevsky–Trofimov estimator, in bits. Each group is coded
            by itself.
        kl_to_sampler_bits: the mean KL divergence of the sampler from the trainer, in bits per token.
        importance_share: the effective sample size after importance weighting, as a share of the tokens.
        unsolved_prompts: the number of prompts without a correct sample (rft).
        different_samples: the number of different correct samples that were trained on (rft).
        sync_seconds, sync_bytes: the time and the amount of data that it took to send the update to another engine.
        realised_cosine: the cosine between the realised and the intended update of the engine.
        freshness, freshness_error, freshness_floor, divergence_ratio: the result of the check that the engine samples
            from the current update. See `capacity.sampling.vllm.freshness`.
    """

    step: NonNegativeInt
    phase: str | None = None
    loss: float
    mean_length: float | None = None
    trained_tokens: NonNegativeInt | None = None
    passed_tokens: NonNegativeInt | None = None
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
    """An outcome holds the answers to one item. Each answer has a grade (0 or 1) and a completion.

    Attributes:
        item: the name of the item.
        correct: the grades that count for the accuracy.
        strict, lenient: the grades by strict and by lenient grading, for tasks that are graded twice.
        completions: the texts that the model wrote.
    """

    item: str
    correct: Annotated[tuple[Grade, ...], Field(min_length=1)]
    strict: tuple[Grade, ...] | None = None
    lenient: tuple[Grade, ...] | None = None
    completions: tuple[str, ...] = ()
