/* SPDX-License-Identifier: MIT */
/* core/http.c -- a small GET responder: static files and small pages.
 *
 *     listener -> connection -> head parsed -> page() or a file -> answer
 *                     ^----------- keep-alive, one after the other ---'
 *
 * It serves the web page of an example, an admin page, counters; never more
 * than 64 connections. Answers are made whole in memory, a file of at most
 * 16 MiB is read at once. While a large answer is on its way the connection
 * is not read. One timer a connection: for a head that does not come, and for
 * an answer that is not taken.
 * Start reading at http_data(). */
#include "http.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HTTP_CONNECTIONS_MAX = 64,
    HTTP_TIMEOUT_MS = 10000, /* for a head; without progress of an answer */
    HTTP_FILE_MAX = 16 * 1024 * 1024,
    HTTP_PAGE_MAX = 16 * 1024 * 1024,
    HTTP_OUT_MAX = 18 * 1024 * 1024,
    HTTP_BUSY_BYTES = 16 * 1024, /* more on its way: read no further */
    HTTP_HEAD_SIZE = 256,        /* of an answer, at most */
    HTTP_PATH_MAX = 4096,
    HTTP_TYPE_MAX = 100
};

struct pmi_http {
    pm_loop *loop;          /* borrowed */
    pmi_listener *listener; /* owned */
    char *root;             /* owned, or NULL */
    int (*page)(pm_slice path, pmi_buf *out, const char **type, void *ctx);
    void *ctx;
    pmi_link conns; /* of http_conn */
    size_t count;
    pmi_task grave;
    bool stopped;
};

typedef struct http_conn {
    pmi_link link;
    pmi_http *http;
    pmi_conn *conn; /* owned */
    pmi_timer timer;
    size_t left; /* bytes queued when the timer was set */
    bool last;   /* when this answer has left the connection ends */
} http_conn;

/* What is asked: the answer depends on no more. */
typedef struct http_request {
    pm_slice path; /* without query */
    bool head_only, keep;
} http_request;

/* ---- Answers ----------------------------------------------------------- */
static const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {204, "No Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {413, "Content Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < PMI_COUNT(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Status";
}

static size_t http_head(char out[HTTP_HEAD_SIZE], int status, const char *type,
                        size_t len, bool keep)
{
    return pmi_format(out, HTTP_HEAD_SIZE,
                      "HTTP/1.1 %d %s\r\n"
                      "Content-Type: %.*s\r\n"
                      "Content-Length: %zu\r\n"
                      "%s"
                      "Connection: %s\r\n\r\n",
                      status, http_reason(status), HTTP_TYPE_MAX, type, len,
                      status == 405 ? "Allow: GET, HEAD\r\n" : "",
                      keep ? "keep-alive" : "close");
}

static pm_err http_answer(http_conn *hc, const http_request *request,
                          int status, const char *type, pm_slice body)
{
    char head[HTTP_HEAD_SIZE];
    size_t len = http_head(head, status, type, body.len, request->keep);
    pm_slice parts[2] = {{head, len}, body};
    return pmi_conn_send(hc->conn, parts, request->head_only ? 1 : 2, 0);
}

static pm_err http_refuse(http_conn *hc, const http_request *request,
                          int status)
{
    const char *text = http_reason(status);
    pm_slice body = {text, strlen(text)};
    return http_answer(hc, request, status, "text/plain; charset=utf-8", body);
}

/* ---- Files ------------------------------------------------------------- */
static const char *http_type(const char *path)
{
    static const struct {
        const char *ending, *type;
    } types[] = {
        {".html", "text/html; charset=utf-8"},
        {".htm", "text/html; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".mjs", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".json", "application/json"},
        {".map", "application/json"},
        {".txt", "text/plain; charset=utf-8"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".jpeg", "image/jpeg"},
        {".gif", "image/gif"},
        {".webp", "image/webp"},
        {".ico", "image/x-icon"},
        {".wasm", "application/wasm"},
        {".woff2", "font/woff2"},
    };
    size_t len = strlen(path);
    for (size_t i = 0; i < PMI_COUNT(types); i++) {
        size_t size = strlen(types[i].ending);
        if (len > size && !strcmp(path + len - size, types[i].ending))
            return types[i].type;
    }
    return "application/octet-stream";
}

static int http_nibble(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent escapes to bytes. False: cut, not hex, or a NUL. */
static bool http_unescape(pm_slice path, char *out, size_t size)
{
    const uint8_t *p = path.data;
    size_t n = 0;
    for (size_t i = 0; i < path.len; i++) {
        int byte = p[i];
        if (byte == '%') {
            if (path.len - i < 3 || http_nibble(p[i + 1]) < 0 ||
                http_nibble(p[i + 2]) < 0)
                return false;
            byte = http_nibble(p[i + 1]) * 16 + http_nibble(p[i + 2]);
            i += 2;
        }
        if (byte == 0 || n + 1 >= size)
            return false;
        out[n++] = (char)byte;
    }
    out[n] = 0;
    return true;
}

/* "/a/b": no empty part but the last, no "." and "..", no backslash. */
static bool http_path_stays(const char *path)
{
    if (path[0] != '/' || strchr(path, '\\'))
        return false;
    while (*path == '/') {
        size_t len = strcspn(++path, "/");
        if ((len == 0 && path[0]) || (len == 1 && path[0] == '.') ||
            (len == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        path += len;
    }
    return true;
}

/* Opens a regular file of bounded size. -1: there is none. */
static int http_open(const char *path, size_t *size, bool *folder)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) == 0) {
        *folder = S_ISDIR(st.st_mode);
        *size = (size_t)st.st_size;
        if (S_ISREG(st.st_mode) && st.st_size <= HTTP_FILE_MAX)
            return fd;
    }
    close(fd);
    return -1;
}

/* The file that a path means. -1: there is none. */
static int http_find(const pmi_http *http, pm_slice path,
                     char full[HTTP_PATH_MAX], size_t *size)
{
    char name[HTTP_PATH_MAX / 2];
    bool folder = false;
    int fd;
    if (!http->root || !http_unescape(path, name, sizeof name) ||
        !http_path_stays(name) ||
        strlen(http->root) + strlen(name) + 16 > HTTP_PATH_MAX)
        return -1;
    size_t len = pmi_format(full, HTTP_PATH_MAX, "%s%s", http->root, name);
    fd = http_open(full, size, &folder);
    if (fd >= 0 || !folder)
        return fd;
    pmi_format(full + len, HTTP_PATH_MAX - len, "%sindex.html",
               full[len - 1] == '/' ? "" : "/");
    return http_open(full, size, &folder);
}

/* Head and content in one chunk. NULL: no memory, or the file has shrunk. */
static pmi_chunk *http_load(pm_loop *loop, int fd, const char *head,
                            size_t head_len, size_t size)
{
    pmi_chunk *chunk = pmi_loop_chunk(loop, head_len + size);
    size_t n = 0;
    if (!chunk)
        return NULL;
    memcpy(chunk->data, head, head_len);
    while (n < size) {
        ssize_t got = read(fd, chunk->data + head_len + n, size - n);
        if (got <= 0) {
            pmi_chunk_unref(chunk);
            return NULL;
        }
        n += (size_t)got;
    }
    chunk->len = (uint32_t)(head_len + size);
    return chunk;
}

static pm_err http_answer_file(http_conn *hc, const http_request *request)
{
    char head[HTTP_HEAD_SIZE], full[HTTP_PATH_MAX];
    size_t size = 0;
    int fd = http_find(hc->http, request->path, full, &size);
    if (fd < 0)
        return http_refuse(hc, request, 404);
    size_t len = http_head(head, 200, http_type(full), size, request->keep);
    pmi_chunk *chunk =
        http_load(hc->http->loop, fd, head, len, request->head_only ? 0 : size);
    close(fd);
    if (!chunk)
        return http_refuse(hc, request, 500);
    pm_err err = pmi_conn_send_chunk(hc->conn, chunk, 0, 0);
    pmi_chunk_unref(chunk);
    return err;
}

/* ---- One request ------------------------------------------------------- */
/* PM_ENOTFOUND: the page function does not know it. PM_ECLOSED: the server
 * was stopped from inside, hc is gone. */
static pm_err http_answer_page(http_conn *hc, const http_request *request)
{
    pmi_http *http = hc->http;
    const char *type = "text/html; charset=utf-8";
    pmi_buf body;
    pm_err err = PM_ENOTFOUND;
    if (!http->page)
        return err;
    pmi_buf_init(&body, pmi_loop_env(http->loop), HTTP_PAGE_MAX);
    int status = http->page(request->path, &body, &type, http->ctx);
    if (http->stopped)
        err = PM_ECLOSED;
    else if (body.failed)
        err = http_refuse(hc, request, 500);
    else if (status)
        err = http_answer(hc, request, status, type, pmi_buf_slice(&body));
    pmi_buf_fini(&body);
    return err;
}

static bool http_is(pm_slice s, const char *word)
{
    return s.len == strlen(word) && !memcmp(s.data, word, s.len);
}

static pm_err http_serve(http_conn *hc, const pmi_http_head *head,
                         http_request *request)
{
    const uint8_t *target = head->target.data;
    size_t len = 0;
    request->head_only = http_is(head->method, "HEAD");
    if (!request->head_only && !http_is(head->method, "GET")) {
        request->keep = false;
        return http_refuse(hc, request, 405);
    }
    if (head->has_body) {
        request->keep = false;
        return http_refuse(hc, request, 413);
    }
    while (len < head->target.len && target[len] != '?' && target[len] != '#')
        len++;
    request->path = head->target;
    request->path.len = len;
    pm_err err = http_answer_page(hc, request);
    return err == PM_ENOTFOUND ? http_answer_file(hc, request) : err;
}

/* ---- A connection ------------------------------------------------------ */
static void http_expired(pmi_timer *timer);

static void http_arm(http_conn *hc)
{
    hc->left = pmi_conn_queued(hc->conn);
    pmi_timer_set(hc->http->loop, &hc->timer, (uint64_t)HTTP_TIMEOUT_MS * 1000,
                  http_expired);
}

static void http_expired(pmi_timer *timer)
{
    http_conn *hc = PMI_OUTER(timer, http_conn, timer);
    size_t queued = pmi_conn_queued(hc->conn);
    if (queued && queued < hc->left)
        http_arm(hc); /* an answer is being taken, slowly */
    else
        pmi_conn_close(hc->conn, PM_CLOSE_IDLE, false, 0);
}

static void http_conn_free(http_conn *hc)
{
    pmi_http *http = hc->http;
    pmi_timer_clear(&hc->timer);
    pmi_list_remove(&hc->link);
    http->count--;
    pmi_conn_free(hc->conn);
    pmi_free(pmi_loop_env(http->loop), hc);
}

/* One request after the other, as long as the answers leave. */
static size_t http_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    http_conn *hc = ctx;
    size_t used = 0;
    while (used < len && !pmi_conn_is_closing(conn)) {
        pmi_http_head head = {0};
        http_request request = {{NULL, 0}, false, false};
        pm_err err;
        long n = pmi_http_request_parse(data + used, len - used, &head);
        if (n == PMI_WS_MORE)
            break;
        request.keep = n > 0 && head.keep_alive;
        err = n < 0 ? http_refuse(hc, &request, 400)
                    : http_serve(hc, &head, &request);
        if (err == PM_ECLOSED)
            return len;
        if (err != PM_OK) {
            pmi_conn_close(conn, PM_CLOSE_MEMORY, false, 0);
            return len;
        }
        used = n < 0 ? len : used + (size_t)n;
        hc->last = !request.keep;
        http_arm(hc);
        if (pmi_conn_queued(conn) > HTTP_BUSY_BYTES) {
            pmi_conn_pause(conn);
            break;
        }
        if (hc->last)
            pmi_conn_close(conn, PM_CLOSE_SERVER, true, 0);
    }
    return used;
}

static void http_drained(pmi_conn *conn, void *ctx)
{
    http_conn *hc = ctx;
    if (hc->last) {
        pmi_conn_close(conn, PM_CLOSE_SERVER, true, 0);
        return;
    }
    http_arm(hc);
    pmi_conn_resume(conn);
}

static void http_message(pmi_conn *conn, uint8_t *data, size_t len, bool text,
                         void *ctx)
{
    (void)conn, (void)data, (void)len, (void)text, (void)ctx;
}

static void http_closed(pmi_conn *conn, pm_close_reason reason, void *ctx)
{
    (void)conn, (void)reason;
    http_conn_free(ctx);
}

static const pmi_conn_events http_events = {
    .data = http_data,
    .message = http_message,
    .drained = http_drained,
    .closed = http_closed,
};

static void http_accepted(pmi_listener *listener, pmi_conn *conn, void *ctx)
{
    pmi_http *http = ctx;
    http_conn *hc = NULL;
    (void)listener;
    if (http->count < HTTP_CONNECTIONS_MAX)
        hc = pmi_zalloc(pmi_loop_env(http->loop), sizeof *hc);
    if (!hc) {
        pmi_conn_free(conn);
        return;
    }
    hc->http = http;
    hc->conn = conn;
    http->count++;
    pmi_list_add(&http->conns, &hc->link);
    pmi_conn_start(conn, &http_events, hc);
    http_arm(hc);
}

/* ---- The server -------------------------------------------------------- */
static void http_bury(pmi_task *task)
{
    pmi_http *http = PMI_OUTER(task, pmi_http, grave);
    pm_loop *loop = http->loop;
    pmi_free(pmi_loop_env(loop), http->root);
    pmi_free(pmi_loop_env(loop), http);
    pmi_loop_drop(loop);
}

void pmi_http_stop(pmi_http *http)
{
    if (!http || http->stopped)
        return;
    http->stopped = true;
    pmi_listener_close(http->listener);
    while (!pmi_list_empty(&http->conns))
        http_conn_free(PMI_OUTER(http->conns.next, http_conn, link));
    pmi_loop_bury(http->loop, &http->grave, http_bury);
}

static pm_err http_listen(pmi_http *http, const pmi_http_opts *opts)
{
    pmi_listen_opts listen = {0};
    listen.host = opts->host ? opts->host : "127.0.0.1";
    listen.port = opts->port;
    listen.framing = PMI_FRAMING_STREAM;
    listen.limits.in_max = 2 * PMI_HTTP_HEAD_MAX;
    listen.limits.out_max = HTTP_OUT_MAX;
    listen.limits.tally = opts->tally;
    listen.accepted = http_accepted;
    listen.ctx = http;
    return pmi_listen(http->loop, &listen, &http->listener);
}

pm_err pmi_http_start(pm_loop *loop, const pmi_http_opts *opts, pmi_http **out)
{
    pmi_http *http = pmi_zalloc(pmi_loop_env(loop), sizeof *http);
    pm_err err = PM_OK;
    if (!http)
        return PM_ENOMEM;
    http->loop = loop;
    http->page = opts->page;
    http->ctx = opts->ctx;
    pmi_list_init(&http->conns);
    pmi_loop_hold(loop);
    if (opts->root) {
        http->root = pmi_strdup(pmi_loop_env(loop), opts->root);
        if (!http->root)
            err = PM_ENOMEM;
    }
    if (err == PM_OK)
        err = http_listen(http, opts);
    if (err != PM_OK) {
        pmi_http_stop(http);
        return err;
    }
    *out = http;
    return PM_OK;
}

uint16_t pmi_http_port(const pmi_http *http)
{
    return pmi_listener_port(http->listener);
}
