"""Result files of PEFT's `method_comparison` (MetaMathQA): supervised fine-tuning, one run a file, means alone.

A file says the model, the adapter, the trained parameters, the rate, the seed and the test accuracy. It says neither
how many items there were nor which answers were right, so nothing can be paired.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capacity.errors import DataError


def is_result(whole: Mapping[str, Any]) -> bool:
    """Whether a JSON object is such a file."""
    return "train_info" in whole and "run_info" in whole


def point(path: Path, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The run as a row of a points table.

    Args:
        path: where it was read.
        whole: its JSON object.

    Raises:
        DataError: the run failed, or what must be there is not.
    """
    try:
        run, trained = whole["run_info"], whole["train_info"]
        if trained["status"] != "success":
            raise DataError(f"{path}: the run ended with status {trained['status']}")
        config, adapter = run["train_config"], run["peft_config"]
        return {
            "study": run["experiment_name"],
            "model": config["model_id"],
            "task": "gsm8k",
            "protocol": "peft-metamathqa",
            "method": "sft",
            "adapter": "full" if adapter is None else adapter["peft_type"].lower(),
            "trained_parameters": trained["num_trainable_params"],
            "learning_rate": config["optimizer_kwargs"].get("lr"),
            "seed": config["seed"],
            "split": "test",
            "accuracy": trained["metrics"][-1]["test accuracy"],
            "demonstrations": "metamathqa",
        }
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a whole result of PEFT's method_comparison: {error} is missing") from None
