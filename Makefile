# Two targets do everything on a fresh machine: demo and test. GNU make 3.81 (macOS) is enough.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test torture build check lint run sandbox services memory ledger bench bench-outbox instructions image clean

# The value of a variable that was given on make's command line, quoted for the shell; what the environment says does not count.
given = $(if $(filter command,$(firstword $(origin $(1)))),'$(subst ','\'',$($(1)))')

help: ## show this
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1	\2/p' Makefile | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: ## play the main job end to end; EXIT=1 ends afterwards, AMQP_URL=... takes a real RabbitMQ
	@scripts/demo $(if $(call given,EXIT),--exit) $(if $(call given,AMQP_URL),--amqp-url $(call given,AMQP_URL))

test: ## run all tests with RabbitMQ and PostgreSQL; TEST=name picks some, ARGS=... goes to cargo test
	@scripts/test $(call given,TEST) $(if $(call given,ARGS),$(ARGS))

# One option of the harness: $(call option,NAME,--name).
option = $(if $(call given,$(1)),$(2) $(call given,$(1)))

torture: ## break everything around herald and check that nothing is lost; EVENTS= SEED= FAULTS=a,b ROUNDS= REPLICAS= RABBITMQ= SHORT=1 REPORT=1
	@$(if $(call given,RABBITMQ),RABBITMQ=$(call given,RABBITMQ)) scripts/torture $(call option,EVENTS,--events) $(call option,SEED,--seed) \
	  $(call option,FAULTS,--faults) $(call option,ROUNDS,--rounds) $(call option,REPLICAS,--replicas) $(call option,JOBS,--jobs) \
	  $(call option,MINUTES,--minutes) $(if $(call given,SHORT),--short) $(if $(call given,REPORT),--report docs/reliability.md)

build: ## build the release binary
	@scripts/tools cc rust
	cargo build --locked --release

lint: check
check: ## formatting, clippy and rustdoc, warnings are errors
	@scripts/tools cc rust lint
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

run: ## run the worker with config/herald.toml and the environment
	cargo run --locked -- run

sandbox: ## run a local Ably and Expo to develop against
	cargo run --locked -- sandbox

services: ## start a private RabbitMQ and PostgreSQL and print their addresses, until Ctrl-C
	@scripts/with-services bash -c 'env | sed -n "s/^\(HERALD_TEST_[A-Z_]*\)=\(.*\)/export \1=\"\2\"/p"; while sleep 3600; do :; done'

memory: ## measure memory with a backlog and with Ably hanging; EVENTS=1000000 SECONDS=60
	@scripts/memory $(or $(call given,EVENTS),1000000) $(or $(call given,SECONDS),60)

ledger: build ## measure explain and the books on a ledger of ROWS=10000000, with PostgreSQL and SQLite
	@scripts/ledger $(or $(call given,ROWS),10000000)

bench: ## measure herald beside Node, plain Rust and the ceiling; ROWS= PEERS= ROUNDS= EVENTS= SECONDS= LEDGER= NODE= SHORT=1 REPORT=1
	@BENCH_COMMAND='make bench $(subst ','\'',$(MAKEOVERRIDES))' scripts/bench $(call option,ROWS,--rows) $(call option,PEERS,--peers) \
	  $(call option,ROUNDS,--rounds) $(call option,EVENTS,--events) $(call option,SECONDS,--seconds) $(call option,LEDGER,--ledger) \
	  $(call option,NODE,--node) $(if $(call given,SHORT),--short) $(if $(call given,REPORT),--write)

bench-outbox: ## measure how fast the outbox is relayed; ROWS= SECONDS= RATES=20,1000 REPORT=1
	@scripts/bench-outbox $(call option,ROWS,--rows) $(call option,SECONDS,--seconds) $(call option,RATES,--rates) \
	  $(if $(call given,REPORT),--report docs/benchmarks.md)

instructions: ## compare the instruction counts of the hot path with benches/hot/baseline; WRITE=1 moves it
	@scripts/instructions $(if $(call given,WRITE),--write)

image: ## build the container image with buildah
	@scripts/image

clean: ## remove what was built
	cargo clean
