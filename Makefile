# A thin front to make.py, which does the work and also runs where there is no make:
#   python make.py run
PYTHON ?= python3
COMMANDS := run test foreign mutants faults grading memory train tables bench lab lint strip lock environments readme picture book slides browser venv

.PHONY: help $(COMMANDS)
help:
	@$(PYTHON) make.py --help

$(COMMANDS):
	@$(PYTHON) make.py $@ $(ARGS)
