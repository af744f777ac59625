# `make` lists what can be done. What a target needs is installed the first time, into .venv and, for `make bench`, .bench, and nowhere else.
#   make run PYTHON=python3.12        with that Python (the first time; `make clean` starts over)
#   make run ARGS="--log-level debug" options for the command behind the target
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?= -n 2
FAULT_ROUNDS ?= 50

BENCH_ARGS ?= --tier all

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --no-input --disable-pip-version-check

# Each of these files is touched when its step is done, so that the step is done once.
MADE := $(VENV)/.made
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
EDITOR := tests/editor/node_modules/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test lint types layers pytest faults bench mosquitto fault_tools schema docs messages bench-growth gate wheel lock clean

help: ## List the targets  列出所有目标
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

run: $(RUNTIME) ## Run the flows of flows/  运行 flows/ 中的流程
	@exec $(BIN)/flowengine run flows/ $(ARGS)

demo: $(RUNTIME) ## Broker, backend, flow and simulated terminals together  代理、后端、流程和模拟终端一起运行
	@exec $(BIN)/flowengine simulate demo $(ARGS)

test: lint types layers pytest ## Everything CI checks  CI 检查的全部内容

lint: $(DEVELOPMENT) ## Check style  检查代码风格
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --diff .

types: $(DEVELOPMENT) ## Check types  检查类型
	@$(BIN)/mypy

layers: $(DEVELOPMENT) ## Check who imports whom  检查模块分层
	@$(BIN)/lint-imports --no-logo

pytest: $(DEVELOPMENT) $(EDITOR) mosquitto fault_tools ## Run the tests (PYTEST_ARGS="-k topic")  运行测试
	@$(BIN)/pytest $(PYTEST_ARGS)

faults: $(DEVELOPMENT) mosquitto fault_tools ## The fault suite with many rounds (FAULT_ROUNDS=50)  故障测试完整版
	@FAULT_ROUNDS=$(FAULT_ROUNDS) $(BIN)/pytest $(PYTEST_ARGS) tests/faults

bench: $(DEVELOPMENT) mosquitto ## Compare with Node-RED and scripts; an hour (BENCH_ARGS="--rounds 5")  与 Node-RED 等对比
	@$(BIN)/python -m benchmarks run $(BENCH_ARGS)
	@$(BIN)/python -m benchmarks report

mosquitto fault_tools:
	@tools/setup $@

schema: $(RUNTIME) ## Write schemas/flow.schema.json anew  重新生成 schemas/flow.schema.json
	@$(BIN)/flowengine schema >schemas/flow.schema.json.new
	@mv schemas/flow.schema.json.new schemas/flow.schema.json

docs: $(DEVELOPMENT) ## Write docs/nodes anew from the nodes themselves  由节点本身重新生成 docs/nodes
	@$(BIN)/python tools/node_pages.py

messages: $(DEVELOPMENT) ## Collect texts to translate and compile the translations  提取并编译翻译
	@LANGUAGE=en $(BIN)/python tools/messages.py

bench-growth: $(DEVELOPMENT) mosquitto ## Measure how the cost of a message grows; half an hour  测量一条消息的开销如何增长
	@$(BIN)/python -m benchmarks.growth run $(ARGS)
	@$(BIN)/python -m benchmarks.growth report

gate: $(DEVELOPMENT) ## Write benchmarks/gate.json anew: what a message costs  重新记录每条消息的开销
	@$(BIN)/python -m benchmarks.gate --write

wheel: $(RUNTIME) ## Build the wheel and the sdist into dist/  在 dist/ 中构建 wheel 和 sdist
	@$(BIN)/hatchling build

# No index address goes into a lock, and uv reads no configuration: what is locked are the public releases.
LOCK = $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" $(ARGS)
COMPILE = $(LOCK) --extra embedded pyproject.toml

MQTTWARN := benchmarks/opponents/mqttwarn/

lock: $(DEVELOPMENT) ## Lock the dependencies anew (ARGS=--upgrade for newer ones)  重新锁定依赖
	@$(COMPILE) --group build --output-file requirements.lock
	@$(COMPILE) --group dev --constraints requirements.lock --output-file requirements-dev.lock
	@$(LOCK) $(MQTTWARN)requirements.in --output-file $(MQTTWARN)requirements.lock

clean: ## Remove what make made; .flowengine/, which holds messages, and .bench/ stay  清理生成的文件(保留 .flowengine/ 和 .bench/)
	rm -rf $(VENV) dist build tests/editor/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(MADE):
	@tools/setup venv $(VENV)
	@touch $@

$(RUNTIME): requirements.lock pyproject.toml | $(MADE)
	@echo "Installing what flowengine needs (once) / 正在安装依赖(仅一次)" >&2
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(DEVELOPMENT): requirements-dev.lock | $(RUNTIME)
	@echo "Installing the development tools (once) / 正在安装开发工具(仅一次)" >&2
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@

$(EDITOR): tests/editor/package-lock.json | $(DEVELOPMENT)
	@PATH="$$PWD/$(BIN):$$PATH" NODE_USE_SYSTEM_CA=1 npm --prefix tests/editor ci \
		--ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel error >/dev/null
	@touch $@
