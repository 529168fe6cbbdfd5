/* SPDX-License-Identifier: MIT */
/* fuzz_http.c -- a stranger asks for pages and files.
 *
 *     | piece | fail | bytes of a connection ... |
 *
 *   piece  the bytes come in pieces of so many; 0: all at once
 *   fail   not 0: the so manieth allocation from then on is refused
 *
 * The folder served is examples/hello/web. Beside memory errors it looks for
 * an answer that holds a file from above that folder, an answer that is no
 * HTTP, a heap that is not empty when all is gone. */
#include "fuzz.h"

#include "core/http.h"

enum { PIECES_MAX = 64, PAGE_BYTES = 20000 };

typedef struct fuzz {
    fuzz_world world;
    pmi_http *http;
    pmi_conn *conn; /* NULL: closed */
    bool heard;
} fuzz;

static int fuzz_page(pm_slice path, pmi_buf *out, const char **type, void *ctx)
{
    (void)ctx;
    if (pmi_slice_eq(path, pm_text("/large")) &&
        pmi_buf_reserve(out, PAGE_BYTES)) {
        memset(out->data, 'x', PAGE_BYTES);
        out->len = PAGE_BYTES;
        *type = "text/plain";
        return 200;
    }
    return pmi_slice_eq(path, pm_text("/moved")) ? 302 : 0;
}

static bool fuzz_holds(pm_slice text, const char *word)
{
    return memmem(text.data, text.len, word, strlen(word)) != NULL;
}

static size_t fuzz_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    fuzz *f = ctx;
    (void)conn;
    if (!f->heard)
        FUZZ_CHECK(len >= 9 && !memcmp(data, "HTTP/1.1 ", 9));
    f->heard = true;
    FUZZ_CHECK(!fuzz_holds(pm_bytes(data, len), "Permission is hereby"));
    return len;
}

static void fuzz_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    (void)why;
    pmi_conn_free(conn);
    ((fuzz *)ctx)->conn = NULL;
}

static const pmi_conn_events fuzz_events = {.data = fuzz_data,
                                            .closed = fuzz_closed};

static pm_err fuzz_start(fuzz *f)
{
    pmi_http_opts http = {
        .root = "examples/hello/web", .port = 3001, .page = fuzz_page};
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = 3001,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true};
    pm_err err = pmi_http_start(f->world.loop, &http, &f->http);
    return err ? err
               : pmi_conn_connect(f->world.loop, &opts, &fuzz_events, f,
                                  &f->conn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_cursor in = pmi_cursor_of(data, size);
    fuzz f = {.heard = false};
    uint8_t piece = pmi_cursor_byte(&in), fail = pmi_cursor_byte(&in);
    pm_err err;
    if (in.bad)
        return 0;
    fuzz_world_open(&f.world, true, 1);
    fuzz_world_fail(&f.world, fail);
    err = fuzz_start(&f);
    FUZZ_CHECK(err == PM_OK || fail);
    if (err == PM_OK) {
        for (int i = 0; i < PIECES_MAX && pmi_cursor_left(&in); i++) {
            fuzz_send(f.conn, fuzz_take(&in, piece ? piece : SIZE_MAX));
            fuzz_world_pass(&f.world, 1, 2);
        }
        fuzz_world_pass(&f.world, 60000, 4);
    }
    f.world.fail_at = 0;
    pmi_conn_free(f.conn);
    pmi_http_stop(f.http);
    fuzz_world_close(&f.world);
    return 0;
}
