/* SPDX-License-Identifier: MIT */
/* page.h -- the web page of an example, served beside its game server.
 *
 * The only place of the examples that looks behind pomelo.h: pages are no part
 * of a game server's API, so it takes the library's own small GET responder
 * from core/http.h, which is in reach because examples link the static library.
 *
 * page_find looks for a folder of pages, page_start serves it, with the
 * examples' client library as /pomelo.js; page_stop ends it, before the loop is
 * freed. */
#ifndef EXAMPLES_PAGE_H
#define EXAMPLES_PAGE_H

#include "core/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct page {
    char root[4096];
    pmi_http *http; /* NULL: not served */
} page;

static inline bool page_try(page *self, const char *base, const char *folder)
{
    char index[4096 + 16];
    int n = snprintf(self->root, sizeof self->root, "%s/%s", base, folder);
    if (n < 0 || (size_t)n >= sizeof self->root)
        return false;
    snprintf(index, sizeof index, "%s/index.html", self->root);
    return access(index, R_OK) == 0;
}

/* Finds `folder` (as "examples/hello/web") in the working folder, in the one of
 * the executable, or in one above that: a program below build/ finds the tree
 * it was built from. `wanted`, if not NULL, is taken instead. */
static inline bool page_find(page *self, const char *wanted, const char *folder,
                             const char *program)
{
    char *at = realpath("/proc/self/exe", NULL), *slash;
    bool found;
    if (wanted) {
        free(at);
        return page_try(self, wanted, ".");
    }
    if (!at)
        at = realpath(program, NULL);
    found = page_try(self, ".", folder);
    while (!found && at && (slash = strrchr(at, '/'))) {
        *slash = 0;
        found = page_try(self, at, folder) || page_try(self, at, "web");
    }
    free(at);
    return found;
}

/* /pomelo.js is shared: examples/web, beside the folders of the examples. When
 * it is not there, the page's own folder is looked through. */
static inline int page_script(pm_slice path, pmi_buf *out, const char **type,
                              void *ctx)
{
    static const char name[] = "/pomelo.js";
    const page *self = ctx;
    char file[4096 + 32], bytes[4096];
    size_t got;
    FILE *in;
    if (path.len != sizeof name - 1 || memcmp(path.data, name, path.len) != 0)
        return 0;
    snprintf(file, sizeof file, "%s/../../web%s", self->root, name);
    in = fopen(file, "rb");
    if (!in)
        return 0;
    while ((got = fread(bytes, 1, sizeof bytes, in)) > 0)
        pmi_buf_add(out, bytes, got);
    fclose(in);
    *type = "text/javascript; charset=utf-8";
    return 200;
}

/* `self` is borrowed until page_stop. */
static inline pm_err page_start(page *self, pm_loop *loop, const char *host,
                                uint16_t port)
{
    pmi_http_opts opts = {0};
    opts.host = host;
    opts.port = port;
    opts.root = self->root;
    opts.page = page_script;
    opts.ctx = self;
    return pmi_http_start(loop, &opts, &self->http);
}

static inline uint16_t page_port(const page *self)
{
    return pmi_http_port(self->http);
}

static inline void page_stop(page *self)
{
    pmi_http_stop(self->http);
    self->http = NULL;
}

#endif
