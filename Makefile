# SPDX-License-Identifier: MIT
# pomelo for C. `make run` and `make check` bring what they need themselves;
# `make help` lists the rest.

CC ?= cc
AR ?= ar
CFLAGS ?= -O2 -g
LDFLAGS ?=
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
DESTDIR ?=
# Where everything is built. Another compiler or another set of flags wants
# its own folder: make BUILD=build/clang CC=clang.
BUILD ?= build
# WERROR=1: warnings are errors. Never the default for those who only build.
WERROR ?=
# SAN="-fsanitize=address,undefined": also switches our own asserts on.
SAN ?=
# APART=1: the library file by file, for those who change it.
APART ?=
# Seconds for each fuzz target.
SECONDS ?= 60
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

VERSION := $(shell sed -n 's/^.define PM_VERSION "\(.*\)"/\1/p' pomelo.h)
# Before 1.0 each minor version may break: it is part of the name.
SOVERSION := $(shell echo $(VERSION) | sed -E 's/^0\.([0-9]+).*/0.\1/; t; s/\..*//')

# Bottom-up: a file may include only the headers of files above it in this
# list. `make lint` proves it; docs/ARCHITECTURE.md is the tour in this order,
# and `make amalgamate` joins the files in it.
SRCS := \
	core/base.c \
	core/buf.c \
	core/map.c \
	core/stats.c \
	core/rate.c \
	core/utf8.c \
	core/json_number.c \
	core/json_keys.c \
	core/json.c \
	core/json_print.c \
	core/pb.c \
	core/crypto.c \
	core/ws.c \
	core/mqtt.c \
	core/sock.c \
	core/cidrs.c \
	core/proxy.c \
	core/host.c \
	core/wheel.c \
	core/loop.c \
	core/loop_kit.c \
	core/loop_watch.c \
	core/loop_names.c \
	core/loop_run.c \
	core/queue.c \
	core/window.c \
	core/tls_realm.c \
	core/tls.c \
	core/pipe.c \
	core/dial.c \
	core/frames.c \
	core/conn.c \
	core/conn_slow.c \
	core/conn_read.c \
	core/conn_open.c \
	core/listen.c \
	core/http.c \
	pomelo_dialect.c \
	pomelo_dialect_encode.c \
	pomelo_dialect_decode.c \
	pomelo_proto.c \
	pomelo_dict.c \
	pomelo_handshake.c \
	pomelo_frame.c \
	pomelo_config.c \
	pomelo_config_run.c \
	pomelo_route.c \
	pomelo_calendar.c \
	pomelo_count.c \
	pomelo_cluster.c \
	pomelo_router.c \
	pomelo_peer.c \
	pomelo_call.c \
	pomelo_rpc.c \
	pomelo_remote.c \
	pomelo_session.c \
	pomelo_session_far.c \
	pomelo_request.c \
	pomelo_filter.c \
	pomelo_serial.c \
	pomelo_handler.c \
	pomelo_resume.c \
	pomelo_downlink.c \
	pomelo_meter.c \
	pomelo_admit.c \
	pomelo_resume_conn.c \
	pomelo_connector.c \
	pomelo_opts.c \
	pomelo_push.c \
	pomelo_presence.c \
	pomelo_presence_far.c \
	pomelo_channel.c \
	pomelo_cron.c \
	pomelo_client_lore.c \
	pomelo_client_resume.c \
	pomelo_client.c \
	pomelo_admin.c \
	pomelo_module.c \
	pomelo_stats.c \
	pomelo_facts.c \
	pomelo_master.c \
	pomelo_master_spawn.c \
	pomelo_master_round.c \
	pomelo_master_words.c \
	pomelo_master_console.c \
	pomelo_monitor.c \
	pomelo_console.c \
	pomelo.c \
	pomelo_spawn.c \
	pomelo_run_log.c \
	pomelo_run_master.c \
	pomelo_run.c
SRCS := $(wildcard $(SRCS))

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(WERROR),-Werror)
STD := -std=c11 -D_GNU_SOURCE
DEBUG := $(if $(SAN),-DPMI_DEBUG)
ALL_CFLAGS = $(STD) $(WARN) -fPIC -fvisibility=hidden -MMD -MP $(DEBUG) \
	$(SAN) $(CFLAGS) $(EXTRA)
PKG_CFLAGS := $(shell pkg-config --cflags-only-I libevent libcjson 2>/dev/null)
NANOPB_LIB ?= -l:libprotobuf-nanopb.a
DEPS_LIBS ?= -levent -lcjson -lmbedtls -lmbedx509 -lmbedcrypto $(NANOPB_LIB) \
	-lm -lpthread

OBJS := $(SRCS:%.c=$(BUILD)/%.o)
# The compiler sees all files as one, so that it can put a small function of one
# where another calls it: a tenth less CPU a message (docs/PERFORMANCE.md).
# Sanitizers and coverage look at each alone.
LIB_OBJS := $(if $(SAN)$(APART)$(findstring --coverage,$(CFLAGS)$(EXTRA)),$(OBJS),$(BUILD)/joined.o)
LIB := $(BUILD)/libpomelo.a
SO := $(BUILD)/libpomelo.so

# ---- The library ----------------------------------------------------------

all: $(LIB) $(if $(SAN),,$(SO)) $(BUILD)/pomelo.pc

# Holds the flags of the last build, so that a change of them builds anew.
FLAGS = $(CC) $(filter-out -Werror,$(ALL_CFLAGS)) $(LDFLAGS)$(if $(APART), apart)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' >$@

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(INCLUDES) $(PKG_CFLAGS) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/joined.c: FORCE
	@mkdir -p $(@D)
	@printf '#include <%s>\n' $(SRCS) | cmp -s - $@ || printf '#include <%s>\n' $(SRCS) >$@
$(BUILD)/joined.o: $(BUILD)/joined.c $(BUILD)/flags
	$(CC) -I. $(PKG_CFLAGS) $(ALL_CFLAGS) -c -o $@ $<

$(LIB): $(LIB_OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

# nanopb is linked in and stays inside: a host may have another one.
$(SO): $(LIB_OBJS)
	$(CC) -shared $(CFLAGS) $(LDFLAGS) -Wl,-z,defs -Wl,-soname,libpomelo.so.$(SOVERSION) \
		-Wl,--exclude-libs,ALL -o $@ $^ $(DEPS_LIBS)
	@ln -sf libpomelo.so $@.$(SOVERSION)

$(BUILD)/pomelo.pc: pomelo.pc.in Makefile pomelo.h
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
		-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@NANOPB_LIB@|$(NANOPB_LIB)|' $< >$@

# ---- Programs ---------------------------------------------------------------
# examples/NAME/*.c and examples/NAME.c, test/conformance/NAME.c and
# test/bench/NAME.c and tools/NAME.c (each with its NAME_*.c). Each is built at
# its source's path.

EXAMPLE_DIRS := $(sort $(patsubst examples/%/,%,$(dir $(wildcard examples/*/*.c))))
EXAMPLE_FILES := $(patsubst examples/%.c,%,$(wildcard examples/*.c))
# Files of a folder that are a program of their own: those that do not begin
# with the name of another one and "_".
mains = $(foreach f,$(1),$(if $(filter-out $(f),$(foreach g,$(1),$(if \
	$(filter $(g:.c=)_%,$(f:.c=)),$(g)))),,$(f)))
CONFORMANCE_MAINS := $(call mains,$(wildcard test/conformance/*.c))
BENCH_MAINS := $(call mains,$(wildcard test/bench/*.c))
TOOL_MAINS := $(call mains,$(wildcard tools/*.c))

EXAMPLES := $(foreach d,$(EXAMPLE_DIRS),$(BUILD)/examples/$(d)/$(d)) \
	$(EXAMPLE_FILES:%=$(BUILD)/examples/%)
TOOLS := $(TOOL_MAINS:%.c=$(BUILD)/%)
CONFORMANCE := $(CONFORMANCE_MAINS:%.c=$(BUILD)/%)
BENCH := $(BENCH_MAINS:%.c=$(BUILD)/%)

# $(call program,TARGET,SOURCES)
define program
$(1): $(2:%.c=$(BUILD)/%.o) $(LIB)
	@mkdir -p $$(@D)
	$$(CC) $$(SAN) $$(CFLAGS) $$(LDFLAGS) -o $$@ $$^ $$(DEPS_LIBS)
PROGRAM_OBJS += $(2:%.c=$(BUILD)/%.o)
endef
PROGRAM_OBJS :=
$(foreach d,$(EXAMPLE_DIRS),$(eval $(call program,$(BUILD)/examples/$(d)/$(d),$(wildcard examples/$(d)/*.c))))
$(foreach f,$(EXAMPLE_FILES),$(eval $(call program,$(BUILD)/examples/$(f),examples/$(f).c)))
$(foreach m,$(CONFORMANCE_MAINS) $(BENCH_MAINS) $(TOOL_MAINS),$(eval $(call program,$(BUILD)/$(m:.c=),$(m) $(wildcard $(m:.c=)_*.c))))

# What `pomelo init` writes lies in the program: PATH=FILE each.
TEMPLATE := $(shell find tools/template -type f | sort)
$(BUILD)/tools/template.c: tools/embed.sh $(TEMPLATE) examples/web/pomelo.js
	@mkdir -p $(@D)
	@tools/embed.sh $(foreach f,$(TEMPLATE),$(patsubst dot.%,.%,$(f:tools/template/%=%))=$(f)) \
		web/pomelo.js=examples/web/pomelo.js >$@
$(BUILD)/tools/template.o: $(BUILD)/tools/template.c $(BUILD)/flags
	$(CC) $(INCLUDES) $(ALL_CFLAGS) -c -o $@ $<
$(BUILD)/tools/pomelo: $(BUILD)/tools/template.o

# The simulator: test/test_sim.c runs it.
SIM := $(BUILD)/test/sim/sim
$(eval $(call program,$(SIM),$(wildcard test/sim/*.c)))

$(BUILD)/examples/%.o: INCLUDES := -I.
$(BUILD)/tools/%.o: INCLUDES := -I.
$(BUILD)/test/%.o: INCLUDES := -I. -Itest -DPMI_DEBUG

objects: $(OBJS)
examples: $(EXAMPLES)
	@$(if $(EXAMPLES),:,echo "examples: there is no example yet.")
conformance: $(CONFORMANCE)
	@$(if $(CONFORMANCE),:,echo "conformance: there is no program in test/conformance yet.")
bench-programs: $(BENCH)
programs: $(EXAMPLES) $(TOOLS) $(CONFORMANCE) $(BENCH) $(SIM)

# ---- Tests ------------------------------------------------------------------
# test/test_NAME.c is one program. A test runs in the top folder; PM_BUILD is
# the folder with the programs of its flavour.

TEST_COMMON := $(wildcard test/test.c)
TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard test/test_*.c))
$(BUILD)/test/test_%: $(BUILD)/test/test_%.o $(TEST_COMMON:%.c=$(BUILD)/%.o) $(LIB)
	$(CC) $(SAN) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(DEPS_LIBS)

# Each fuzz target with its corpus, as a test: with any compiler.
FUZZ := $(patsubst test/fuzz/%.c,%,$(wildcard test/fuzz/fuzz_*.c))
CORPUS_TESTS := $(FUZZ:%=$(BUILD)/test/fuzz/%)
$(BUILD)/test/fuzz/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o $(BUILD)/test/fuzz/corpus_main.o $(LIB)
	$(CC) $(SAN) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(DEPS_LIBS)

tests: $(TESTS) $(CORPUS_TESTS)

# The same for libFuzzer: `make fuzz` says BUILD=build/fuzz CC=clang.
FUZZ_SAN := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
FUZZERS := $(FUZZ:%=$(BUILD)/fuzzers/%)
$(BUILD)/fuzzers/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(SAN) -fsanitize=fuzzer $(CFLAGS) $(LDFLAGS) -o $@ $^ $(DEPS_LIBS)
fuzzers: $(FUZZERS)

# The public tests again, with nothing in reach but the amalgamation.
AMALG := $(BUILD)/amalg
PUBLIC_TESTS := $(shell tools/public_tests.sh)
AMALG_TESTS := $(PUBLIC_TESTS:%=$(AMALG)/test/%)
$(AMALG)/pomelo.c: $(SRCS) $(wildcard *.h core/*.h) tools/amalgamate.sh
	@tools/amalgamate.sh $(@D) $(SRCS)
$(AMALG)/pomelo.o: $(AMALG)/pomelo.c
	$(CC) -std=c11 $(WARN) $(PKG_CFLAGS) $(CFLAGS) -c -o $@ $<
$(AMALG)/test/%.c: test/%.c $(wildcard test/*.h)
	@mkdir -p $(@D)
	@cp $< $(wildcard test/*.h) $(@D)
$(AMALG)/test/%: $(AMALG)/test/%.c $(AMALG)/pomelo.o
	$(CC) $(STD) $(WARN) $(PKG_CFLAGS) -I$(AMALG) -DTEST_PUBLIC $(CFLAGS) $(LDFLAGS) -o $@ \
		$(if $(TEST_COMMON),$(TEST_COMMON)) $^ -lcmocka $(DEPS_LIBS)
amalg-tests: $(AMALG)/pomelo.o $(AMALG_TESTS)
.SECONDARY:

# ---- What people call ---------------------------------------------------------

# What every script is told; they call make again by themselves.
TELL = BUILD='$(BUILD)' CC='$(CC)' CFLAGS='$(CFLAGS)' LDFLAGS='$(LDFLAGS)' \
	WERROR='$(WERROR)' JOBS='$(JOBS)' MAKE='$(MAKE)' SECONDS_EACH='$(SECONDS)'

deps:
	@CC='$(CC)' tools/deps.sh check
deps-run:
	@CC='$(CC)' tools/deps.sh build

run: deps-run
	@exec env $(TELL) tools/run.sh

check: deps
	@$(TELL) tools/check.sh

lint: deps
	@$(TELL) tools/lint.sh

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

fuzz:
	@CC='$(CC)' tools/deps.sh fuzz
	@$(TELL) tools/fuzz.sh

fuzz-coverage: deps
	@$(TELL) tools/fuzz_coverage.sh

coverage: deps
	@$(TELL) tools/coverage.sh

replay: deps
	@$(TELL) tools/replay.sh

proof: deps
	@$(TELL) tools/proof.sh

bench: deps bench-programs
	@if [ -x test/bench/run.sh ]; then $(TELL) test/bench/run.sh; else \
		echo "bench: test/bench has no run.sh yet; what is built: $(or $(BENCH),nothing)"; fi
bench-check: deps bench-programs
	@if [ -x test/bench/check.sh ]; then $(TELL) test/bench/check.sh; else \
		echo "bench-check: test/bench has no check.sh yet."; fi

amalgamate:
	@tools/amalgamate.sh dist $(SRCS)
	@echo "dist/pomelo.c and dist/pomelo.h: compile them with your program and link $(DEPS_LIBS)"

install: all $(BUILD)/tools/pomelo
	install -d $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR)/pkgconfig \
		$(DESTDIR)$(BINDIR)
	install -m 755 $(BUILD)/tools/pomelo $(DESTDIR)$(BINDIR)/pomelo
	install -m 644 pomelo.h $(DESTDIR)$(INCLUDEDIR)/pomelo.h
	install -m 644 $(LIB) $(DESTDIR)$(LIBDIR)/libpomelo.a
	install -m 755 $(SO) $(DESTDIR)$(LIBDIR)/libpomelo.so.$(VERSION)
	ln -sf libpomelo.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libpomelo.so.$(SOVERSION)
	ln -sf libpomelo.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libpomelo.so
	$(MAKE) -s -B $(BUILD)/pomelo.pc
	install -m 644 $(BUILD)/pomelo.pc $(DESTDIR)$(LIBDIR)/pkgconfig/pomelo.pc

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/pomelo $(DESTDIR)$(INCLUDEDIR)/pomelo.h $(DESTDIR)$(LIBDIR)/libpomelo.a \
		$(DESTDIR)$(LIBDIR)/libpomelo.so \
		$(DESTDIR)$(LIBDIR)/libpomelo.so.$(SOVERSION) \
		$(DESTDIR)$(LIBDIR)/libpomelo.so.$(VERSION) \
		$(DESTDIR)$(LIBDIR)/pkgconfig/pomelo.pc

clean:
	rm -rf build dist

help:
	@echo "make              the library: build/libpomelo.a, build/libpomelo.so"
	@echo "make run          build the examples and serve them"
	@echo "make check        every test, plain and with sanitizers (minutes)"
	@echo "make APART=1      the library file by file: for those who change it"
	@echo "make lint         the house rules"
	@echo "make examples conformance bench-programs   build the programs"
	@echo "make bench        CPU beside a floor: docs/PERFORMANCE.md"
	@echo "make bench-check  instructions against the table (UPDATE=1: a new one)"
	@echo "make fuzz SECONDS=60                 each fuzz target that long"
	@echo "make fuzz-coverage                   how far their inputs reach"
	@echo "make coverage     what the tests run through"
	@echo "make replay       recordings of the real Pomelo, when they are there"
	@echo "make proof        the long ones: hours (PARTS=\"fuzz soak\": only these)"
	@echo "make amalgamate   dist/pomelo.c and dist/pomelo.h"
	@echo "make install uninstall PREFIX=/usr/local DESTDIR="
	@echo "make deps format clean"

# For the scripts: make -s print-SRCS
print-%:
	@echo '$($*)'

-include $(wildcard $(patsubst %.o,%.d,$(OBJS) $(BUILD)/joined.o $(PROGRAM_OBJS) \
	$(TESTS:=.o) $(TEST_COMMON:%.c=$(BUILD)/%.o) $(CORPUS_TESTS:=.o)))

FORCE:
.PHONY: all objects examples conformance bench-programs programs tests fuzzers \
	amalg-tests deps deps-run run check lint format fuzz fuzz-coverage coverage replay proof \
	bench bench-check amalgamate install uninstall clean help FORCE
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all
