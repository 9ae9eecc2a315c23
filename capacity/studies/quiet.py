"""Third-party messages that mean nothing to the user of a worker process."""

import logging
import os
import warnings


def quiet() -> None:
    """Silences progress bars, hints and deprecations of the training libraries in this process.

    Call it before PEFT, TRL or datasets is imported. It imports none of them, since a run may need none but PEFT.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # speaks at its import, which is PEFT's
    import transformers

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    warnings.filterwarnings("ignore", module=r"(?!capacity).*")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
    logging.getLogger("accelerate").setLevel(logging.ERROR)
