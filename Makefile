# The whole pipeline: raw volumes -> slices and distance maps -> runs -> tables and figures. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

include experiments.mk

PYTHON ?= python3
VENV ?= .venv
# nnU-Net's own environment, and which of its configurations the rows nnunet-* train.
NNUNET_VENV ?= .venv-nnunet
CONFIGURATION ?= 2d
SEEDS ?= 0 1 2
BASELINE ?=
DEVICE ?= auto
ARGS ?=
SLICE_ARGS ?=
EVAL_ARGS ?=
SNAPSHOTS ?=
DATA ?= data
RESULTS ?= results
RAW ?=
# A data set of your own: LAYOUT=nnunet RAW=<folder> make <name>-<row>, a name without a hyphen.
LAYOUT ?=
# Where runs are trained: here, or as tasks of an array job with sbatch's flags, so many of them at once.
RUNNER ?= local
SLURM_FLAGS ?=
SLURM_MAX ?= 20
# What the job after the array runs, where it is not the goal itself.
SLURM_AFTER ?=
# Lesion masks (NIfTI) for make bench; without them it makes its own.
MASKS ?=

define newline


endef
ifneq ($(findstring $(newline),$(value RAW)),)
$(error RAW: expected a path on one line, found several)
endif
# These are parts of targets and of commands, which make and the shell take apart.
hash := \#
brackets := ( ) [ ] { }
backslash := \$(empty)
$(foreach v,DATA RESULTS VENV,$(foreach c,$$ ' " ` ; & | < > : = % * ? ! $(hash) $(brackets) $(backslash),$(if $(findstring $(c),$(value $(v))),$(error $(v): expected a path without $(c), found $(value $(v))))))
$(foreach v,DATA RESULTS VENV,$(if $(word 2,$(value $(v))),$(error $(v): expected a path without spaces, found $(value $(v)))))

ifneq ($(RUNNER),local)
ifneq ($(RUNNER),slurm)
$(error RUNNER: expected local or slurm, found $(RUNNER))
endif
endif

# OpenMP's threads give up waiting early: under -j, threads that spin take the cores from those that work.
export GOMP_SPINCOUNT ?= 2000

PY := $(VENV)/bin/python
READY := $(VENV)/.ready
NNUNET_PY := $(NNUNET_VENV)/bin/python
NNUNET_READY := $(NNUNET_VENV)/.ready
# What experiments.mk or the command line defines is a row or a table, not what the environment happens to have.
defined = $(sort $(foreach v,$(filter $(1)_%,$(.VARIABLES)),$(if $(filter file command,$(origin $(v))),$(v:$(1)_%=%))))
ROWS := $(call defined,ROW)
ifneq ($(LAYOUT),)
OWN := $(filter-out $(DATASETS),$(sort $(foreach goal,$(MAKECMDGOALS),$(firstword $(subst -, ,$(goal))))))
DATASETS += $(OWN)
endif
# A demo has the tables of its data set, any other name those of experiments.mk's "own": $(call paper,isles-demo)
paper = $(if $(filter $(OWN),$(1)),own,$(patsubst %-demo,%,$(1)))
# A table without a data set in its name, such as TABLE_two="gdl focal" on the command line, belongs to all of them.
tables = $(foreach t,$(call defined,TABLE),$(if $(findstring _,$(t)),$(patsubst $(call paper,$(1))_%,%,$(filter $(call paper,$(1))_%,$(t))),$(t)))
# The rows of a table: $(call rows,isles,table1)
rows = $(or $(TABLE_$(call paper,$(1))_$(2)),$(TABLE_$(2)))
# What a table's rows, or all of a data set, are compared with: $(call baseline,acdc,nnunet-table2)
baseline = $(or $(BASELINE),$(BASELINE_$(2)),$(BASELINE_$(call paper,$(1))),gdl)
# For the figures, which draw the rows that are finished in the order of the tables.
order = $(foreach table,$(call tables,$(1)),--table $(table) $(call rows,$(1),$(table)))
DEMO_ROWS := gdl gdl-boundary
# Three seeds are for tables; the demo shows one unless told otherwise.
DEMO_SEEDS := $(if $(filter file,$(origin SEEDS)),0,$(SEEDS))

# Raw data of a data set: $(call raw,isles). The demos' are generated, wherever RAW is. RAW is a path as it is, with its
# dollar signs, single or doubled.
raw = $(if $(filter %-demo,$(1)),$(DATA)/raw/$(1),$(or $(subst $$$$,$$,$(value RAW)),$(DATA)/raw/$(1)))
# One word for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
# The metrics of a row of a data set, all seeds: $(call metrics,isles,gdl)
metrics = $(foreach seed,$(SEEDS),$(RESULTS)/$(1)/$(2)/seed$(seed)/metrics.csv)
# The same of all rows of a table: $(call all_metrics,isles,table1)
all_metrics = $(foreach row,$(call rows,$(1),$(2)),$(call metrics,$(1),$(row)))
# Arguments of a table: $(call outputs,<data set>,<table>,<name of the output>)
outputs = $(RESULTS)/$(1) --rows $(call rows,$(1),$(2)) --name $(3) --seeds $(SEEDS) $(FLAGS_$(2))
# Whether a table's rows are tested: where the baseline is one of several, and cases have figures of their own.
tested = $(if $(filter %-pooled,$(2)),,$(and $(filter-out $(call baseline,$(1),$(2)),$(call rows,$(1),$(2))),$(filter $(call baseline,$(1),$(2)),$(call rows,$(1),$(2)))))
# After how many epochs the weights are kept: where signs of gradients are asked for, or SNAPSHOTS says.
snapshots = $(or $(SNAPSHOTS),$(if $(filter $(1)-gradients,$(MAKECMDGOALS)),$(or $(SNAPSHOTS_$(1)),1 2 4 8 16)))
snapshot_flags = $(if $(call snapshots,$(1)),--snapshot-epochs $(call snapshots,$(1)))
# The rows and tables of a data set among the goals: figures beside them wait for them under -j.
wanted = $(filter $(addprefix $(1)-,$(ROWS) $(call tables,$(1))),$(MAKECMDGOALS))

# With RUNNER=slurm a goal whose runs are not all there submits them. Before it come the slices and what the rows' runs
# are asked for, made here once, and the runs that are there, which are checked as ever. $(call before,<data set>,<rows>,
# <their metrics.csv>,<file that make makes of them here>)
before = $(if $(and $(filter slurm,$(RUNNER)),$(filter-out $(wildcard $(3)),$(3))),$(DATA)/$(1)/meta.json $(foreach row,$(2),$(RESULTS)/$(1)/$(row)/.options) $(wildcard $(3)),$(4))
# ROW/seedN of a list of metrics.csv: $(call runs,<data set>,<metrics.csv>)
runs = $(patsubst $(RESULTS)/$(1)/%/metrics.csv,%,$(2))
# $(call submit,<data set>,<goal>,<its metrics.csv>,<goals of the job after the array, where there are more>)
submit = $(PY) scripts/slurm.py submit $(RESULTS)/$(1) --goal $(2) --runs $(call runs,$(1),$(3)) --max=$(call quoted,$(SLURM_MAX)) \
  --flags=$(call quoted,$(SLURM_FLAGS)) --after=$(call quoted,$(or $(SLURM_AFTER),$(4)))
# Whether a recipe's goal is submitted: its first prerequisite is then not the file that is made here.
submitted = $(if $(filter %.md,$<),,yes)

.PHONY: help
help: ## every target, one line each
	@grep -hE '^[a-z0-9<>-]+:.*## ' Makefile | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  %-28s %s\n", $$1, $$2}'
	@printf '  %-28s %s\n' \
	  '<data set>-<row>' 'one row, all SEEDS, then its line of the table' \
	  '<data set>-nnunet-<row>' 'the row with nnU-Net v2 as the engine; ARGS are then flags of scripts/train_nnunet.py' \
	  '<data set>-data' 'slices and distance maps of a data set' \
	  '<data set>-nnunet-data' 'its raw cases and split in the form of nnU-Net, planned and preprocessed' \
	  '<data set>-<table>' 'all rows of a table, then the table and tests of its rows against BASELINE' \
	  '<data set>[-<row>]-status' 'a line per run, of a row, a table or all: waits, runs, ended, failed, missing' \
	  '<data set>-curves' 'learning curves of the runs that exist' \
	  '<data set>-pictures' 'contours and errors on validation slices, of the runs that exist' \
	  '<data set>-figures' 'curves, pictures, box plots, maps, lesion shares' \
	  '<data set>-gradients' 'signs of gradients over the softmax simplex, and over the epochs of two seeds of $(SIGNS)' \
	  '<data set>-convergence' 'validation Dice of the strategies of section 4.4 over SEEDS: distribution, tests, curves' \
	  '<data set>-report' 'a page of all runs that exist: tables, curves, slices to leaf through'
	@printf '\ndata sets: %s\nrows:      %s\ntables:    %s\n' '$(DATASETS)' '$(ROWS)' \
	  '$(foreach d,$(filter-out %-demo,$(DATASETS)),$(addprefix $(d)-,$(call tables,$(d))))' | fold -s -w 110
	@printf '\n'; printf '%s\n' 'variables: SEEDS="0 1 2"  RAW=<folder of the raw data>  LAYOUT=<how it is kept, of data of your own>  ARGS="<flags of train.py>"  SLICE_ARGS="<flags of preprocess.py>"' \
	  '           EVAL_ARGS="<flags of eval.py run>"  SNAPSHOTS="<epochs after which weights are kept>"' \
	  '           BASELINE=<row>  DEVICE=auto|cuda|cuda:N|cpu  PYTHON=<interpreter that makes .venv>  VENV=<its folder>' \
	  '           NNUNET_VENV=<environment of nnU-Net>  CONFIGURATION=2d|3d_fullres of nnU-Net' \
	  '           DATA=<folder of the slices>  RESULTS=<folder of the runs>: other folders keep variants side by side' \
	  '           RUNNER=local|slurm  SLURM_FLAGS="<flags of sbatch>"  SLURM_MAX=<tasks at once>: runs as tasks of one array job'

.PHONY: setup
setup: $(READY) ## .venv with the pinned requirements and the library, editable

PIP := $(PY) -m pip install --quiet --disable-pip-version-check
$(READY): requirements.txt requirements-test.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -r requirements-test.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: test
test: | $(READY) ## the whole test suite, on all cores
	$(PY) -m pytest -q -n auto --dist worksteal tests

.PHONY: setup-nnunet
setup-nnunet: $(NNUNET_READY) ## .venv-nnunet: the same and nnU-Net v2, for the rows nnunet-*

$(NNUNET_READY): requirements.txt requirements-test.txt requirements-nnunet.txt pyproject.toml
	$(PYTHON) -m venv $(NNUNET_VENV)
	$(NNUNET_PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-test.txt -r requirements-nnunet.txt
	$(NNUNET_PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: test-nnunet
test-nnunet: | $(NNUNET_READY) ## the tests of nnU-Net as the engine, in an environment that has it
	$(NNUNET_PY) -m pytest -q tests/test_nnunet_engine.py

.PHONY: lint
lint: | $(READY) ## style and types
	$(PY) -m ruff check .
	$(PY) -m mypy

.PHONY: bench
bench: | $(READY) ## speed, as ratios measured in one run
	$(PY) scripts/bench.py
	$(PY) scripts/bench_row.py
	$(PY) scripts/bench_engine.py
	$(PY) scripts/bench_growth.py
	$(PY) scripts/bench_runs.py
	$(PY) scripts/bench_distance.py $(if $(value MASKS),--masks $(call quoted,$(value MASKS)))
	$(PY) scripts/bench_metrics.py $(if $(value MASKS),--masks $(call quoted,$(value MASKS)))
	$(PY) scripts/bench_score.py $(if $(value MASKS),--masks $(call quoted,$(value MASKS)))

.PHONY: table2
table2: | $(READY) ## time of a step with each loss, in the form of Table 2, on this machine's device
	$(PY) scripts/bench_losses.py --device $(DEVICE)

DEMO := $(RESULTS)/isles-demo
DEMO_METRICS := $(foreach row,$(DEMO_ROWS),$(foreach seed,$(DEMO_SEEDS),$(DEMO)/$(row)/seed$(seed)/metrics.csv))

.PHONY: demo demo-status
demo: $(call before,isles-demo,$(DEMO_ROWS),$(DEMO_METRICS),$(DEMO)/demo.md $(DEMO)/demo-curves.pdf $(DEMO)/demo-pictures.pdf) ## the whole pipeline on a generated phantom: two rows, table, curves, picture
	@$(if $(submitted),$(call submit,isles-demo,$@,$(DEMO_METRICS)),cat $<; \
	  printf 'curves:  $(DEMO)/demo-curves.png\npicture: $(DEMO)/demo-pictures.png\n')

demo-status: | $(READY)
	@$(PY) scripts/slurm.py status $(DEMO) --runs $(call runs,isles-demo,$(DEMO_METRICS))

$(DEMO)/demo.md: $(DEMO_METRICS)
	$(PY) eval.py table $(DEMO) --rows $(DEMO_ROWS) --name demo > /dev/null

$(DEMO)/demo-curves.pdf: $(DEMO_METRICS)
	$(PY) eval.py curves $(DEMO) --rows $(DEMO_ROWS) --name demo-curves > /dev/null

$(DEMO)/demo-pictures.pdf: $(DEMO_METRICS)
	$(PY) eval.py pictures $(DEMO) --rows $(DEMO_ROWS) --name demo-pictures > /dev/null

# All tables and figures of the data sets whose raw data (or slices) are there; the phantoms of a demo always are.
here = $(strip $(foreach d,$(PAPERS),$(if $(filter %-demo,$(d))$(wildcard $(DATA)/raw/$(d) $(DATA)/$(d)/meta.json),$(d))))
own_tables = $(filter-out nnunet-%,$(call tables,$(1)))
all_rows = $(sort $(foreach t,$(call own_tables,$(1)),$(call rows,$(1),$(t))))
# Arguments of a plan: $(call planned,<data set>,<rows>,<folder of the runs>,<further flags>)
planned = $(foreach r,$(2),--row $(3)/$(1) $(r) $(call quoted,$(ROW_$(r)) $(TRAIN_$(1)) $(4) $(ARGS)))
# The data sets with the analyses of the region-wise paper. They come before its tables: their runs keep snapshots.
analysed = $(filter $(ANALYSES) $(ANALYSES:%=%-demo),$(PAPERS))
.PHONY: papers
papers: | $(READY) ## every table and figure of every paper, of the data that lie in data/raw/; says first how long it takes
	@$(PY) scripts/papers.py --data $(DATA) --device $(DEVICE) --seeds $(SEEDS) $(foreach d,$(PAPERS),$(call planned,$(d),$(call all_rows,$(d)),$(RESULTS))) \
	  $(foreach d,$(analysed),$(if $(CONVERGENCE_$(d)),$(call planned,$(d),$(STRATEGIES),$(RESULTS)/convergence,$(CONVERGENCE_$(d)))))
	@$(if $(filter $(analysed),$(here)),$(MAKE) --no-print-directory $(foreach d,$(filter $(analysed),$(here)),$(d)-gradients $(d)-convergence))
	@$(if $(here),$(MAKE) --no-print-directory $(foreach d,$(here),$(addprefix $(d)-,$(call own_tables,$(d)) figures report)),exit 2)

.PHONY: papers-demo
papers-demo: ## the same on the generated phantoms, one seed each: 25 minutes on two cores
	@$(MAKE) --no-print-directory papers PAPERS="$(PAPERS:%=%-demo)" SEEDS="$(DEMO_SEEDS)" RESULTS=$(RESULTS)/papers-demo SNAPSHOTS="1 2 4 6" ARGS="--epochs 6 --width 8 $(ARGS)"

.PHONY: clean
clean: ## remove the generated data sets, their results and caches; never real data, runs or the environment
	rm -rf $(foreach d,$(DEMOS),data/raw/.$(d).partial* data/$(d) data/.$(d).partial data/.$(d).options data/$(d)-nnunet results/$(d))
	for d in $(DEMOS); do if [ -d data/raw/$$d ] && ls -di data/raw/$$d | cmp -s - data/.$$d.phantom; then rm -rf data/raw/$$d data/.$$d.phantom; fi; done
	rm -rf .pytest_cache .mypy_cache .ruff_cache __pycache__ */__pycache__ */*/__pycache__

# Phantoms: raw data in the real layouts. The folder gets its name when it is whole.
# Two makes at once each make their own; the first to end gives it: renaming fails where the other has been faster
# (mv would move the folder into the other's). `make clean` knows it by its inode: a folder of the user's in its place
# is another one.
$(DATA)/raw/%-demo: | $(READY)
	@partial=$(DATA)/raw/.$*-demo.partial.$$$$; trap 'rm -rf "$$partial"' EXIT; \
	$(PY) scripts/phantom.py $* --out "$$partial"; \
	if error=$$($(PY) -c 'import os, sys; os.rename(*sys.argv[1:])' "$$partial" $@ 2>&1); \
	then ls -di $@ > $(DATA)/.$*-demo.phantom; else [ -d $@ ] || { echo "make: error: $${error##*$$'\n'}" >&2; exit 2; }; fi

# What was asked for is kept beside what was made. Where it changes, the commands are asked (--check) whether what is
# there was made with these options; if not they say so and exit with 2, and nothing passes in silence.
KEEP = mkdir -p $(@D); printf '%s\n' "$$ASKED" | cmp -s - $@ || printf '%s\n' "$$ASKED" > $@
.PHONY: FORCE
FORCE:

# The seeds and the baseline of the last make: where they change, tables are made anew, and only then.
$(RESULTS)/.choices: export ASKED = $(SEEDS) $(BASELINE)
$(RESULTS)/.choices: FORCE
	@$(KEEP)

# $(call dataset,D): the sliced data set D and its figures.
define dataset
# Made whole or not at all, like metrics.csv below: make, when it is stopped, must not delete them. Only a target's own
# words count here, no other pattern.
.PRECIOUS: $(DATA)/$(1)/meta.json
.PHONY: $(1)-data $(1)-nnunet-data $(1)-curves $(1)-pictures $(1)-figures $(1)-report $(1)-status
$(1)-data: $(DATA)/$(1)/meta.json

$(1)-nnunet-data: $(DATA)/$(1)/meta.json | $(NNUNET_READY)
	@$$(NNUNET_PY) scripts/train_nnunet.py --data $(DATA)/$(1) --configuration $$(CONFIGURATION) --prepare

$(DATA)/.$(1).options: export ASKED = $$(SLICE_$(1)) $$(SLICE_ARGS) --source $$(call raw,$(1))
$(DATA)/.$(1).options: FORCE
	@$$(KEEP)

$(DATA)/$(1)/meta.json: $(DATA)/.$(1).options | $(READY) $(if $(filter %-demo,$(1)),$(DATA)/raw/$(1))
	$$(PY) preprocess.py $(1) $(if $(filter $(OWN),$(1)),--layout $(LAYOUT)) --source $$(call quoted,$$(call raw,$(1))) --dest $$(@D) $$(SLICE_$(1)) $$(SLICE_ARGS) $$(if $$(wildcard $$@),--check)
	@touch $$@

$(1)-curves $(1)-pictures $(1)-report: $(1)-%: | $(READY) $(call wanted,$(1))
	@$$(PY) eval.py $$* $(RESULTS)/$(1) $$(call order,$(1)) $$(if $$(filter curves,$$*),,--baseline $$(call baseline,$(1)))

$(1)-figures: | $(READY) $(call wanted,$(1))
	@$$(PY) eval.py figures $(RESULTS)/$(1) $$(call order,$(1)) --baseline $$(call baseline,$(1))

# Section 3.4: of runs that keep their weights.
.PHONY: $(1)-gradients $(1)-convergence $(1)-convergence-runs
$(1)-gradients: $$(foreach row,$(SIGNS),$$(foreach seed,$$(wordlist 1,2,$(SEEDS)),$(RESULTS)/$(1)/$$(row)/seed$$(seed)/metrics.csv))
	@$$(PY) eval.py gradients $(RESULTS)/$(1) --rows $(SIGNS) --seeds $$(wordlist 1,2,$(SEEDS)) --device $$(DEVICE)

# Sections 4.3 and 4.4: of runs with epochs of their own where the paper's had such.
$(1)-convergence: $(if $(CONVERGENCE_$(1)),,$(1)-convergence-runs)
	$(if $(CONVERGENCE_$(1)),@$$(MAKE) --no-print-directory RESULTS=$(RESULTS)/convergence ARGS=$$(call quoted,$(CONVERGENCE_$(1)) $$(ARGS)) $(1)-convergence-runs)

$(1)-convergence-runs: $$(foreach row,$(STRATEGIES),$$(call metrics,$(1),$$(row)))
	@$$(PY) eval.py convergence $(RESULTS)/$(1) --rows $(STRATEGIES) --seeds $(SEEDS)

$(1)-status: | $(READY)
	@$$(PY) scripts/slurm.py status $(RESULTS)/$(1)

$(1)-%:
	@echo "make: error: $$@: expected a row or a table of $(1), one of $(ROWS) $(call tables,$(1)), found $$*" >&2; exit 2
endef

# Train and measure a run: $(call trained,D,R), with $* its seed. Of rows named nnunet-* nnU-Net is the engine.
define trained_own
	$(PY) train.py --data $(DATA)/$(1) --out $(@D) $(ROW_$(2)) $(TRAIN_$(1)) --seed $* --device $(DEVICE) $(if $(wildcard $@),--check,--resume) $(call snapshot_flags,$(1)) $(ARGS)
	$(PY) eval.py run $(@D) --device $(DEVICE) $(EVAL_ARGS) $(if $(wildcard $@),--check)
endef
define trained_nnunet
	$(NNUNET_PY) scripts/train_nnunet.py --data $(DATA)/$(1) --out $(@D) $(ROW_$(2)) $(NNUNET_$(1)) --configuration $(CONFIGURATION) --seed $* --device $(DEVICE) $(if $(wildcard $@),--check) $(ARGS)
endef
trained = $(if $(filter nnunet-%,$(2)),$(trained_nnunet),$(trained_own))
# The flags of a row, by its engine.
flags = $(ROW_$(2)) $(if $(filter nnunet-%,$(2)),$(NNUNET_$(1)) --configuration $(CONFIGURATION) $(ARGS),$(TRAIN_$(1)) $(call snapshot_flags,$(1)) $(ARGS); $(EVAL_ARGS))

# $(call row,D,R): the runs of row R on data set D. A killed run resumes where it stopped; metrics.csv comes last.
define row
.PRECIOUS: $(RESULTS)/$(1)/$(2)/seed%/metrics.csv
.PHONY: $(1)-$(2) $(1)-$(2)-status
$(1)-$(2): $$(call before,$(1),$(2),$$(call metrics,$(1),$(2)),$(RESULTS)/$(1)/$(2).md)
	@$$(if $$(submitted),$$(call submit,$(1),$$@,$$(call metrics,$(1),$(2))),cat $$<)

$(1)-$(2)-status: | $(READY)
	@$$(PY) scripts/slurm.py status $(RESULTS)/$(1) --runs $$(call runs,$(1),$$(call metrics,$(1),$(2)))

$(RESULTS)/$(1)/$(2).md: $$(call metrics,$(1),$(2)) $(RESULTS)/.choices
	@$$(PY) eval.py table $(RESULTS)/$(1) --rows $(2) --name $(2) --seeds $$(SEEDS) $$(FLAGS_$(2)) > /dev/null

$(RESULTS)/$(1)/$(2)/.options: export ASKED = $$(call flags,$(1),$(2))
$(RESULTS)/$(1)/$(2)/.options: FORCE
	@$$(KEEP)

$(RESULTS)/$(1)/$(2)/seed%/metrics.csv: $(RESULTS)/$(1)/$(2)/.options $(DATA)/$(1)/meta.json | $(READY) $(if $(filter nnunet-%,$(2)),$(1)-nnunet-data)
	$$(call trained,$(1),$(2))
	@touch $$@
endef

# $(call table,D,T): table T of data set D, over all its rows, and the tests of its rows against BASELINE.
define table
.PHONY: $(1)-$(2) $(1)-$(2)-status
$(1)-$(2): $$(call before,$(1),$$(call rows,$(1),$(2)),$$(call all_metrics,$(1),$(2)),$(RESULTS)/$(1)/$(2).md)
	@$$(if $$(submitted),$$(call submit,$(1),$$@,$$(call all_metrics,$(1),$(2)),make $$@ $(1)-figures),cat $$<; $$(if $$(call tested,$(1),$(2)),echo; cat $(RESULTS)/$(1)/$(2)-tests.md))

$(1)-$(2)-status: | $(READY)
	@$$(PY) scripts/slurm.py status $(RESULTS)/$(1) --runs $$(call runs,$(1),$$(call all_metrics,$(1),$(2)))

$(RESULTS)/$(1)/$(2).md: $$(call all_metrics,$(1),$(2)) $(RESULTS)/.choices
	@if [ -n "$$(filter-out $$(call rows,$(1),$(2)),$$(BASELINE))" ]; then \
	  echo "make: error: BASELINE: expected a row of $(1)-$(2), one of $$(call rows,$(1),$(2)), found $$(BASELINE)" >&2; exit 2; fi
	@$$(if $$(call tested,$(1),$(2)),$$(PY) eval.py compare $$(call outputs,$(1),$(2),$(2)-tests) --baseline $$(call baseline,$(1),$(2)) > /dev/null)
	@$$(PY) eval.py table $$(call outputs,$(1),$(2),$(2)) > /dev/null
endef

$(foreach d,$(DATASETS),$(eval $(call dataset,$(d))))
$(foreach d,$(DATASETS),$(foreach r,$(ROWS),$(eval $(call row,$(d),$(r)))))
$(foreach d,$(DATASETS),$(foreach t,$(call tables,$(d)),$(eval $(call table,$(d),$(t)))))
