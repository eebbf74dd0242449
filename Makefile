# make          the list of commands
# make demo     a fresh machine to executed notebooks
# make test     everything that must hold before a commit

PYTHON ?= python3
# Where torch and torchvision come from, if not PyPI:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu    (no CUDA: a much smaller download)
TORCH_INDEX ?=
# Notebooks tested side by side.  More than one uses one thread each.
JOBS ?= 1
# Where the page gets onnxruntime-web from: cdn (jsdelivr.net), or local, a copy that npm fetches.
RUNTIME ?= cdn

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# A file of versions to install, see test-colab.
VERSIONS :=
INSTALL = $(RUN) -m pip install --quiet $(if $(VERSIONS),-c $(VERSIONS))
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb notebooks/solutions/*.ipynb))
DEMO_NOTEBOOKS := $(sort $(wildcard notebooks/0[1-5]_*.ipynb))
REQUIREMENTS := requirements.txt requirements-dev.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo page test test-gpu test-colab lint notebooks clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12     the Python that makes the environment (3.10 or newer)"
	@echo "  TORCH_INDEX=https://download.pytorch.org/whl/cpu   torch without CUDA, a smaller download"
	@echo "  JOBS=2                test so many notebooks side by side"

# The stamp makes a second run skip the installation until a requirements file changes.
$(READY): $(REQUIREMENTS) $(VERSIONS)
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit( \
	    "Python 3.10 or newer is needed, $(PYTHON) is %d.%d: make ... PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "$(PYTHON) lacks venv; on Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing what requirements-dev.txt names; the first time takes minutes ..."
	$(if $(TORCH_INDEX),$(INSTALL) torch torchvision --index-url $(TORCH_INDEX))
	$(INSTALL) -r requirements-dev.txt
	@touch $@

demo: $(READY) ## environment, then notebooks 01-05 executed on the embedded data, as pages in out/demo
	@rm -rf out/demo
	$(RUN) tools/run_notebooks.py --out out/demo $(DEMO_NOTEBOOKS)
	$(RUN) -m nbconvert --log-level ERROR --to html $(DEMO_NOTEBOOKS:notebooks/%=out/demo/%)
	@echo
	@echo "Pages to open in a browser:"
	@ls out/demo/*.html | sed 's/^/  /'
	@echo "Pictures:"
	@ls out/pictures/*.jpg | sed 's/^/  /'

page: $(READY) ## the painter for any browser, as files for a web server, in out/site
	$(RUN) tools/build_page.py --runtime $(RUNTIME)

test: lint ## lint, then the unit tests, then every notebook compared with what it should print
	OMP_NUM_THREADS=1 $(RUN) -m pytest tests -n 2 --dist loadscope --no-loadscope-reorder
	$(if $(filter-out 1,$(JOBS)),OMP_NUM_THREADS=1) $(RUN) -m pytest notebooks \
	    $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --dist loadscope)

test-gpu: $(READY) ## what only a GPU can show; all other tests hide it
	$(RUN) -m pytest tests -m gpu

lint: $(READY) ## ruff: rules and formatting, notebooks too
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

test-colab: ## the same as make test, with Colab's versions of torch, numpy, ipywidgets ...
	$(MAKE) test VENV=.venv-colab VERSIONS=requirements-colab-versions.txt

notebooks: $(READY) ## execute the committed notebooks again and write them, without a GPU
	CUDA_VISIBLE_DEVICES= $(RUN) tools/run_notebooks.py $(NOTEBOOKS)

clean: ## remove the environments, out/ and the caches; data/ and runs/ stay
	rm -rf .venv .venv-colab out .pytest_cache .ruff_cache notebooks/.ipynb_checkpoints
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
