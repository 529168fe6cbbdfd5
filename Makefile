# pomelo for C. `make run` and `make check` need nothing but this machine.
# SPDX-License-Identifier: MIT

CC ?= cc
AR ?= ar
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
WERROR ?=
SAN ?=

VERSION := $(shell sed -n 's/^.define PM_VERSION "\(.*\)"/\1/p' pomelo.h)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

# Bottom-up: a file may include only the headers of files above it in this
# list. `make lint` proves it; docs/ARCHITECTURE.md is the tour in this order.
SRCS := \
	core/base.c core/buf.c core/map.c core/stats.c \
	core/json.c core/pb.c core/crypto.c core/ws.c \
	core/sock.c core/loop.c core/queue.c core/pipe.c core/dial.c core/frames.c \
	core/conn.c core/listen.c core/http.c \
	pomelo_proto.c pomelo_dialect.c pomelo_route.c pomelo_config.c \
	pomelo_cluster.c pomelo_rpc.c pomelo_session.c pomelo_channel.c \
	pomelo_filter.c pomelo_handler.c pomelo_connector.c pomelo_client.c \
	pomelo.c pomelo_run.c
SRCS := $(wildcard $(SRCS))

STD := -std=c11 -D_GNU_SOURCE
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(WERROR),-Werror)
DEPS_LIBS := -levent -lcjson -lmbedtls -lmbedx509 -lmbedcrypto
NANOPB_LIB := -l:libprotobuf-nanopb.a
ALL_CFLAGS := $(STD) $(WARN) -fPIC -fvisibility=hidden -MMD -MP $(SAN) $(CFLAGS)

OBJS := $(SRCS:%.c=$(BUILD)/%.o)
LIB := $(BUILD)/libpomelo.a

all: $(LIB)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(EXTRA) -c -o $@ $<

$(LIB): $(OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard test/test_*.c))
$(BUILD)/test/test_%: test/test_%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DPMI_DEBUG -I. -o $@ $< $(LIB) -lcmocka $(DEPS_LIBS) $(NANOPB_LIB) -lm -lpthread

tests: $(TESTS)

clean:
	rm -rf build dist

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all tests clean
