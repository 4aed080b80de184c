# The whole pipeline: raw volumes -> slices and distance maps -> runs -> tables and figures. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

include experiments.mk

PYTHON ?= python3
VENV ?= .venv
SEEDS ?= 0 1 2
BASELINE ?= gdl
DEVICE ?= auto
ARGS ?=
SLICE_ARGS ?=
EVAL_ARGS ?=
# Lesion masks (NIfTI) for make bench; without them it makes its own.
MASKS ?=
RAW ?=

# OpenMP's threads give up waiting early: under -j, threads that spin take the cores from those that work.
export GOMP_SPINCOUNT ?= 2000

PY := $(VENV)/bin/python
READY := $(VENV)/.ready
ROWS := $(sort $(patsubst ROW_%,%,$(filter ROW_%,$(.VARIABLES))))
TABLES := $(sort $(patsubst TABLE_%,%,$(filter TABLE_%,$(.VARIABLES))))
DEMO_ROWS := gdl gdl-boundary
# Three seeds are for tables; the demo shows one unless told otherwise.
DEMO_SEEDS := $(if $(filter file,$(origin SEEDS)),0,$(SEEDS))

# The metrics of a row of a data set, all seeds: $(call metrics,isles,gdl)
metrics = $(foreach seed,$(SEEDS),results/$(1)/$(2)/seed$(seed)/metrics.csv)
unique = $(if $(1),$(firstword $(1)) $(call unique,$(filter-out $(firstword $(1)),$(1))))
# The rows of a data set that have a finished run of a seed, in the order of the tables: $(call finished,isles,*)
finished = $(strip $(foreach row,$(call unique,$(TABLE_table1) $(TABLE_table3) $(TABLE_midl) $(ROWS)),$(if $(wildcard results/$(1)/$(row)/seed$(2)/metrics.csv),$(row))))
# A figure of the finished rows, or one a table where one figure cannot tell them apart: $(call draw,isles,curves,*,<flags>)
draw = $(if $(word 15,$(call finished,$(1),$(3))),\
  $(foreach table,$(TABLES),$(call figure,$(1),$(2),$(filter $(call finished,$(1),$(3)),$(TABLE_$(table))),$(2)-$(table),$(4))),\
  $(call figure,$(1),$(2),$(or $(call finished,$(1),$(3)),gdl),$(2),$(4)))
figure = $(if $(3),$(PY) eval.py $(2) results/$(1) --rows $(3) --name $(4) $(5);)
# Whether a table has the baseline, so that its other rows are tested against it.
tested = $(filter $(BASELINE),$(TABLE_$(1)))
outputs = results/$(1) --rows $(TABLE_$(2)) --name $(3) --seeds $(SEEDS) $(FLAGS_$(2))
# The rows and tables of a data set among the goals: figures beside them wait for them under -j.
wanted = $(filter $(addprefix $(1)-,$(ROWS) $(TABLES)),$(MAKECMDGOALS))

.PHONY: help
help: ## every target, one line each
	@grep -hE '^[a-z0-9<>-]+:.*## ' Makefile | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  %-28s %s\n", $$1, $$2}'
	@printf '  %-28s %s\n' \
	  '<data set>-<row>' 'one row, all SEEDS, then its line of the table' \
	  '<data set>-data' 'slices and distance maps of a data set' \
	  '<data set>-table1' 'all rows of Table 1, then the table and tests against BASELINE; likewise -table3, -midl' \
	  '<data set>-curves' 'learning curves of the runs that exist' \
	  '<data set>-pictures' 'contours and errors on validation slices, of the runs that exist' \
	  '<data set>-figures' 'curves, pictures, box plots, maps, lesion shares' \
	  '<data set>-report' 'a page of all runs that exist: tables, curves, slices to leaf through'
	@printf '\ndata sets: %s\nrows:      %s\n' '$(DATASETS)' '$(ROWS)' | fold -s -w 110
	@printf '\n'; printf '%s\n' 'variables: SEEDS="0 1 2"  RAW=<folder of the raw data>  ARGS="<flags of train.py>"  SLICE_ARGS="<flags of preprocess.py>"' \
	  '           EVAL_ARGS="<flags of eval.py run>"  BASELINE=gdl  DEVICE=auto|cuda|cpu  PYTHON=<interpreter that makes .venv>  VENV=<its folder>'

.PHONY: setup
setup: $(READY) ## .venv with the pinned requirements

$(READY): requirements.txt requirements-test.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-test.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: test
test: | $(READY) ## the whole test suite
	$(PY) -m pytest -q -n auto tests

.PHONY: bench
bench: | $(READY) ## speed, as ratios measured in one run
	$(PY) scripts/bench.py
	$(PY) scripts/bench_engine.py
	$(PY) scripts/bench_growth.py
	$(PY) scripts/bench_distance.py $(if $(MASKS),--masks "$(MASKS)")
	$(PY) scripts/bench_metrics.py $(if $(MASKS),--masks "$(MASKS)")

.PHONY: table2
table2: | $(READY) ## time of a step with each loss, in the form of Table 2, on the device at hand
	$(PY) scripts/bench_losses.py --device $(DEVICE)

.PHONY: demo
demo: results/isles-demo/demo.md results/isles-demo/demo-curves.pdf results/isles-demo/demo-pictures.pdf ## the whole pipeline on a generated phantom: two rows, table, curves, picture
	@cat $<
	@printf 'curves:  results/isles-demo/demo-curves.png\npicture: results/isles-demo/demo-pictures.png\n'

DEMO_METRICS := $(foreach row,$(DEMO_ROWS),$(foreach seed,$(DEMO_SEEDS),results/isles-demo/$(row)/seed$(seed)/metrics.csv))

results/isles-demo/demo.md: $(DEMO_METRICS)
	$(PY) eval.py table results/isles-demo --rows $(DEMO_ROWS) --name demo > /dev/null

results/isles-demo/demo-curves.pdf: $(DEMO_METRICS)
	$(PY) eval.py curves results/isles-demo --rows $(DEMO_ROWS) --name demo-curves > /dev/null

results/isles-demo/demo-pictures.pdf: $(DEMO_METRICS)
	$(PY) eval.py pictures results/isles-demo --rows $(DEMO_ROWS) --name demo-pictures > /dev/null

.PHONY: clean
clean: ## remove the generated data sets, their results and caches; never real data, runs or the environment
	rm -rf data/raw/*-demo data/raw/.*-demo.partial data/*-demo data/.*.partial results/*-demo .pytest_cache __pycache__ */__pycache__

# Phantoms: raw data in the real layouts. The folder gets its name when it is whole.
data/raw/%-demo: | $(READY)
	rm -rf data/raw/.$*-demo.partial
	$(PY) scripts/phantom.py $* --out data/raw/.$*-demo.partial
	mv data/raw/.$*-demo.partial $@

# $(call dataset,D): the sliced data set D, its tables and its figures.
define dataset
.PHONY: $(1)-data $(1)-curves $(1)-pictures $(1)-figures $(1)-report
$(1)-data: data/$(1)/meta.json

# preprocess.py gives the folder its name when it is whole; order-only, because it refuses to slice over an old one.
data/$(1)/meta.json: | $(READY) $(if $(filter %-demo,$(1)),data/raw/$(1))
	$$(PY) preprocess.py $(1) --source "$(if $(filter %-demo,$(1)),data/raw/$(1),$$(or $$(RAW),data/raw/$(1)))" --dest data/$(1) $$(SLICE_$(1)) $$(SLICE_ARGS)

$(1)-curves: | $(READY) $(call wanted,$(1))
	@$$(call draw,$(1),curves,*,)

$(1)-pictures: | $(READY) $(call wanted,$(1))
	@$$(call draw,$(1),pictures,$$(firstword $$(SEEDS)),--seed $$(firstword $$(SEEDS)) --baseline $$(BASELINE))

$(1)-figures: $(1)-curves $(1)-pictures | $(READY) $(call wanted,$(1))
	@$$(call draw,$(1),boxes,*,)
	@$$(call figure,$(1),maps,$$(firstword $$(call finished,$(1),*)),maps,)
	@$$(call figure,$(1),shares,$$(firstword $$(call finished,$(1),*)),shares,)

$(1)-report: | $(READY) $(call wanted,$(1))
	@$$(PY) eval.py report results/$(1) --rows $$(or $$(call finished,$(1),*),gdl) --baseline $$(BASELINE)

$(1)-%:
	@echo "make: error: $$@: expected a row or a table of $(1), one of $(ROWS) $(TABLES), found $$*" >&2; exit 2
endef

# Holds the seeds and the baseline of the last make: where they change, tables are made anew, and only then.
results/.choices: FORCE
	@mkdir -p results; printf '%s\n' "$(SEEDS) $(BASELINE)" | cmp -s - $@ || printf '%s\n' "$(SEEDS) $(BASELINE)" > $@
.PHONY: FORCE
FORCE:

# $(call row,D,R): the runs of row R on data set D. A killed run goes on where it stopped; metrics.csv comes last.
define row
.PHONY: $(1)-$(2)
$(1)-$(2): results/$(1)/$(2).md
	@cat $$<

results/$(1)/$(2).md: $$(call metrics,$(1),$(2)) results/.choices
	@$$(PY) eval.py table results/$(1) --rows $(2) --name $(2) --seeds $$(SEEDS) $$(FLAGS_$(2)) > /dev/null

results/$(1)/$(2)/seed%/metrics.csv: | $(READY) data/$(1)/meta.json
	$$(PY) train.py --data data/$(1) --out $$(@D) $$(ROW_$(2)) $$(TRAIN_$(1)) --seed $$* --device $$(DEVICE) --resume $$(ARGS)
	$$(PY) eval.py run $$(@D) --device $$(DEVICE) $$(EVAL_ARGS)
endef

# $(call table,D,T): table T of data set D, over all its rows, and the tests of its rows against BASELINE.
define table
.PHONY: $(1)-$(2)
$(1)-$(2): results/$(1)/$(2).md
	@cat $$<; $$(if $$(call tested,$(2)),echo; cat results/$(1)/$(2)-tests.md)

results/$(1)/$(2).md: $$(foreach row,$$(TABLE_$(2)),$$(call metrics,$(1),$$(row))) results/.choices
	@$$(if $$(call tested,$(2)),$$(PY) eval.py compare $$(call outputs,$(1),$(2),$(2)-tests) --baseline $$(BASELINE) > /dev/null)
	@$$(PY) eval.py table $$(call outputs,$(1),$(2),$(2)) > /dev/null
endef

$(foreach d,$(DATASETS),$(eval $(call dataset,$(d))))
$(foreach d,$(DATASETS),$(foreach r,$(ROWS),$(eval $(call row,$(d),$(r)))))
$(foreach d,$(DATASETS),$(foreach t,$(TABLES),$(eval $(call table,$(d),$(t)))))
