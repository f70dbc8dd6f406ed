# One verb each; every target sets up .venv (and, as root on Debian, system libraries) by itself.
#   make demo    open the bundled synthetic slide in napari, predict, and compare with the truth
#   make test    run the tests, one process per core 
#   make test-slow   run the tests that take longer: real sections, other libraries, killed processes
#   make tour    20 tours of 200 random steps through a workspace of three slides (ARGS="3 6": these seeds)
#   make fuzz    an hour of files changed by chance (ARGS="--seconds 60 --seeds 4 5 --out counts.md")
#   make kills   seven commands that write (predict, compare, export, prepare, train, fit, evaluate) killed
#                200 times each at random moments (ARGS="--kills 40 --commands predict fit")
#   make soak    a window in use for long: a million gene switches, 500 slides opened, predicted and closed; hours
#                (ARGS="--switches 20000 --rounds 40 --minutes 30 --seed 2 --out runs/soak.md")
#   make check   lint, types, manifest, wheel and sdist
#   make bench   time each stage of a prediction beside its floor, into benchmarks/README.md
#   make docs    build the docs site into site/, strictly
#   make screenshots   follow docs/first-steps.md with a script, which takes its pictures; then those of every page
#   make notebooks   run the notebooks of the docs and keep their output
#   make demo-weights   train the demo's weights anew on other simulated slides
#   make clean   remove .venv and caches
# Another Python: make PYTHON=/path/to/python3.12 demo

VENV ?= .venv
PYTHON ?=
PY := $(VENV)/bin/python
export VENV PYTHON
# compiled tests and sources are kept: without, every test process compiles them again
unexport PYTHONDONTWRITEBYTECODE

# a display of one's own when there is none; macOS and Windows need none
HEADLESS := $(shell [ "$$(uname -s)" != Linux ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || echo yes)
SHOWN := $(if $(HEADLESS),xvfb-run -a,)
LARGE := $(if $(HEADLESS),xvfb-run -a -s "-screen 0 1920x1080x24",)

.PHONY: help demo test test-slow tour fuzz kills soak check bench docs notebooks screenshots demo-weights clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/.ready-dev: pyproject.toml tools/setup
	@tools/setup dev

$(VENV)/.ready-demo: pyproject.toml tools/setup
	@if [ -f $(VENV)/.ready-dev ]; then tools/setup dev; else tools/setup all; fi

demo: $(VENV)/.ready-demo
	@$(VENV)/bin/napari-flag demo $(ARGS)

test: $(VENV)/.ready-dev
	@if [ -n "$(HEADLESS)" ] && ! command -v xvfb-run >/dev/null; then \
	  echo "The tests open napari and need a display, and there is none: install xvfb (sudo apt-get install xvfb xauth) and run this again." >&2; exit 2; fi
	$(SHOWN) $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow:
	@$(MAKE) --no-print-directory test ARGS="-m 'slow and not gpu' $(ARGS)"

tour: $(VENV)/.ready-dev
	$(SHOWN) $(PY) -m tests.gui.tours $(ARGS)

fuzz: $(VENV)/.ready-dev
	$(PY) -m tests.fuzz $(ARGS)

kills: $(VENV)/.ready-dev
	$(PY) -m tests.kills $(ARGS)

soak: $(VENV)/.ready-dev
	$(SHOWN) $(PY) -m tests.soak $(ARGS)

check: $(VENV)/.ready-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/npe2 validate src/napari_flag/napari.yaml
	$(PY) tools/check_distributions.py

bench: $(VENV)/.ready-dev
	$(SHOWN) $(PY) -m benchmarks.stages --write $(ARGS)

docs: $(VENV)/.ready-dev
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict $(ARGS)

notebooks: $(VENV)/.ready-dev
	$(PY) docs/run_notebooks.py

screenshots: $(VENV)/.ready-demo
	$(LARGE) $(PY) docs/follow_first_steps.py
	$(LARGE) $(PY) docs/make_screenshots.py runs/pictures

demo-weights: $(VENV)/.ready-dev
	$(PY) -m napari_flag.simulation --seeds 101-106 --out runs/demo/slides
	$(VENV)/bin/napari-flag train training/configs/demo.toml --data runs/demo/slides --run runs/demo/state \
	  --out src/napari_flag/weights/demo.safetensors

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist site
