# make demo: a simulated sky through the whole survey. make test: every test but the slow ones and
# those of jobs under faults, of the service and of the images (test-slow, test-chaos, test-service,
# test-image).
# Both do their own set-up in .venv; a second call finds it done.

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
DATA := ../shared/data

.PHONY: setup setup-dev demo test test-chaos test-service test-image test-slow test-openvino fuzz lint bench models clean

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

# What the demo and a user need: no torch, no compiler.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) --editable '.[cpu,serve,simulate]'
	touch $@

# What tests and training need besides.
$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) --editable '.[cpu,postgres,s3,serve,training,dev]'
	touch $@

demo: setup
	$(VENV)/bin/python -m training.simulate.sky demo/sky --seed 1
	$(VENV)/bin/lenspipe run demo/sky/survey.yaml
	$(VENV)/bin/python -m training.demo demo/sky demo/run

lint: setup-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: setup-dev lint
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not chaos and not service and not image"

# Jobs under faults: kills, full disks, failing object stores. CI runs these too.
test-chaos: setup-dev
	$(VENV)/bin/python -m pytest -m "chaos and not slow"

# The service of a run, as clients and browsers see it, and the jobs of the pages. CI runs these too.
test-service: setup-dev
	$(VENV)/bin/python -m pytest -m "service and not slow"

# Builds the image for CPUs and runs it, as root, with Debian's buildah. CI runs this too.
test-image: setup-dev
	$(VENV)/bin/python -m pytest -m "image and not slow"

test-slow: setup-dev
	$(VENV)/bin/python -m pytest -m slow

# The other build of ONNX Runtime lies in a folder of its own, found before the first.
$(VENV)/openvino/.ready: constraints.txt $(VENV)/.ready-dev
	rm -rf $(VENV)/openvino
	$(PIP) --no-deps --target $(VENV)/openvino onnxruntime-openvino
	touch $@

test-openvino: $(VENV)/openvino/.ready
	PYTHONPATH=$(VENV)/openvino $(VENV)/bin/python -c "import onnxruntime as o; assert 'OpenVINOExecutionProvider' in o.get_available_providers()"
	PYTHONPATH=$(VENV)/openvino $(VENV)/bin/python -m pytest tests/models/test_openvino.py

# Coverage-guided fuzzing, FUZZ_S seconds of each harness; ends at the first fault, with its input.
FUZZ_S ?= 60
FUZZ := PYTHONPATH=$(VENV)/fuzz:. $(VENV)/bin/python -m tests.fuzz
$(VENV)/fuzz/.ready: constraints.txt $(VENV)/.ready-dev
	rm -rf $(VENV)/fuzz
	$(PIP) --no-deps --target $(VENV)/fuzz atheris
	touch $@

fuzz: $(VENV)/fuzz/.ready
	$(FUZZ).fuzz_survey runs/fuzz/survey -timeout=20 -max_total_time=$(FUZZ_S)
	$(FUZZ).fuzz_card runs/fuzz/card -timeout=20 -max_total_time=$(FUZZ_S)
	$(FUZZ).fuzz_readers -timeout=20 -max_total_time=$(FUZZ_S)

bench: setup
	$(VENV)/bin/lenspipe bench

# Makes the shipped models anew: minutes on a GPU, hours on two cores.
models: setup-dev
	$(VENV)/bin/python -m training.pipeline training/recipes --work runs/models --zoo lenspipe/zoo

clean:
	rm -rf demo runs build dist
