"""Starts the check: see `proofs.gpu_check`."""

import os
import sys


def main() -> int:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from capacity.studies.device import keep_one_gpu
    from capacity.studies.quiet import quiet

    keep_one_gpu()  # before torch is imported
    quiet()  # before PEFT is imported
    from proofs.gpu_check.run import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
