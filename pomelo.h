/* SPDX-License-Identifier: MIT */
/* pomelo.h -- pomelo for C: a distributed game server as a library.
 *
 * A complete server. Build: cc hello.c $(pkg-config --cflags --libs pomelo)
 *
 *     #include <pomelo.h>
 *
 *     static void entry(pm_request *req, void *ctx)
 *     {
 *         (void)ctx;
 *         pm_reply_text(req, "{\"code\":200,\"msg\":\"game server is ok.\"}");
 *     }
 *
 *     static pm_err configure(pm_app *app, void *ctx)
 *     {
 *         return pm_app_handler(app, "connector.entryHandler.entry",
 *                               entry, ctx);
 *     }
 *
 *     int main(void)
 *     {
 *         pm_server servers[] = {{.id = "connector-1", .type = "connector",
 *                                 .host = "127.0.0.1", .client_port = 3010,
 *                                 .frontend = true}};
 *         pm_run_opts opts = pm_run_opts_default();
 *         opts.servers = servers;
 *         opts.servers_count = 1;
 *         return pm_run(&opts, configure, NULL) == PM_OK ? 0 : 1;
 *     }
 *
 * Any Pomelo client (browser, Unity, cocos, libpomelo) can talk to it.
 *
 * ---- The contract ---------------------------------------------------------
 *
 * THREADS   A pm_loop is one thread. Every function is called on the thread of
 *           its loop; only pm_loop_post and pm_loop_break may be called from
 *           others. Different loops know nothing of each other. No globals.
 * CALLBACKS Run on the loop's thread, from inside pm_loop_run or pm_loop_poll,
 *           never before the call that they belong to has returned. From a
 *           callback every function may be called, freeing the very object
 *           included. A callback whose call was refused by its return value
 *           never runs; otherwise it runs exactly once.
 * POINTERS  Each pointer's comment has one of these words:
 *           "borrowed until this call returns", "borrowed until the callback
 *           returns", "borrowed until x is freed", "copied", "taken" (ours from
 *           now on, on success only). What is returned is "borrowed" or "owned
 *           by the caller, free with ...". `ctx` pointers are handed back and
 *           never looked at; after pm_x_free returns, no ctx of x is touched.
 * STRINGS   char * are UTF-8 with a 0 at the end. pm_slice are bytes.
 * UNITS     end the name: heartbeat_ms, body_bytes_max.
 * OPTIONS   start from pm_x_opts_default(), which sets `size` only; zero means
 *           the default that the comment tells.
 * MEMORY    An allocation that fails is PM_ENOMEM from the call that needed
 *           it, never a crash and never half a change. */
#ifndef POMELO_H
#define POMELO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define PM_API
#elif defined(__GNUC__)
#define PM_API __attribute__((visibility("default")))
#else
#define PM_API
#endif

/* An empty initialiser in both languages. */
#ifdef __cplusplus
#define PM_ZERO                                                                \
    {                                                                          \
    }
#else
#define PM_ZERO                                                                \
    {                                                                          \
        0                                                                      \
    }
#endif

#define PM_VERSION_MAJOR 0
#define PM_VERSION_MINOR 1
#define PM_VERSION_PATCH 0
#define PM_VERSION "0.1.0"

struct event_base; /* libevent's */
struct cJSON;      /* cJSON's */

/* The version of the library that is linked, "0.1.0": static. */
PM_API const char *pm_version(void);

/* ==== Errors ================================================================
 * 0 is success. Families: -1 the caller's mistake, -20 memory and limits, -40
 * network, -60 bytes that break a protocol, -80 the other side. Values never
 * change their number. */
#define PM_ERRORS(X)                                                           \
    X(PM_OK, 0, "success")                                                     \
    X(PM_EINVAL, -1, "an argument is not valid")                               \
    X(PM_ESTATE, -2, "not possible in this state")                             \
    X(PM_EEXIST, -3, "exists already")                                         \
    X(PM_ENOTFOUND, -4, "not found")                                           \
    X(PM_ENOTSUP, -5, "not supported here")                                    \
    X(PM_ECONFIG, -6, "the configuration is wrong")                            \
    X(PM_ENOTIFY, -7, "a notify takes no answer")                              \
    X(PM_EBOUND, -8, "the session is bound to another uid")                    \
    X(PM_EUNBOUND, -9, "the session is not bound to this uid")                 \
    X(PM_EAGAIN, -10, "not now, try again")                                    \
    X(PM_ENOMEM, -20, "out of memory")                                         \
    X(PM_ELIMIT, -21, "a limit is reached")                                    \
    X(PM_EDEPTH, -22, "nested too deep")                                       \
    X(PM_ESIZE, -23, "too large")                                              \
    X(PM_ENET, -40, "network failure")                                         \
    X(PM_EADDR, -41, "the address is in use or not ours")                      \
    X(PM_ERESOLVE, -42, "the name can not be resolved")                        \
    X(PM_EREFUSED, -43, "connection refused")                                  \
    X(PM_ETLS, -44, "TLS failure")                                             \
    X(PM_ECLOSED, -45, "closed")                                               \
    X(PM_ETIMEOUT, -46, "the deadline has passed")                             \
    X(PM_EDOWN, -47, "the server is down")                                     \
    X(PM_ENOSERVER, -48, "no such server, or none of this type")               \
    X(PM_EAUTH, -49, "the peer has not proved who it is")                      \
    X(PM_EPACKAGE, -60, "malformed package")                                   \
    X(PM_EMESSAGE, -61, "malformed message")                                   \
    X(PM_EROUTE, -62, "malformed or unknown route")                            \
    X(PM_EJSON, -63, "not JSON")                                               \
    X(PM_EPROTOBUF, -64, "does not fit its protobuf schema")                   \
    X(PM_EHTTP, -65, "malformed HTTP")                                         \
    X(PM_EWS, -66, "malformed WebSocket frame")                                \
    X(PM_EHANDSHAKE, -67, "handshake refused")                                 \
    X(PM_EKEY, -68, "unusable key")                                            \
    X(PM_ENUL, -69, "text holds U+0000")                                       \
    X(PM_EFRAME, -70, "malformed frame between servers")                       \
    X(PM_EREMOTE, -80, "the remote side answered with an error")               \
    X(PM_ENOMETHOD, -81, "no such handler or remote")                          \
    X(PM_EBUSY, -82, "overloaded")                                             \
    X(PM_ECANCELED, -83, "cancelled")                                          \
    X(PM_EDROPPED, -84, "dropped by policy")

typedef enum pm_err {
#define PM_ERR_ENUM(name, value, text) name = value,
    PM_ERRORS(PM_ERR_ENUM)
#undef PM_ERR_ENUM
} pm_err;

/* A sentence and the name ("PM_EINVAL"). Static, never NULL. */
PM_API const char *pm_strerror(pm_err err);
PM_API const char *pm_err_name(pm_err err);

/* Why a connection ended: in the log, in the counters, and told to
 * session_closed. */
#define PM_CLOSE_REASONS(X)                                                    \
    X(PM_CLOSE_NONE, 0, "none")                                                \
    X(PM_CLOSE_CLIENT, 1, "closed by the client")                              \
    X(PM_CLOSE_RESET, 2, "reset by the peer")                                  \
    X(PM_CLOSE_KICK, 3, "kicked")                                              \
    X(PM_CLOSE_SERVER, 4, "closed by the application")                         \
    X(PM_CLOSE_STOP, 5, "the server stops")                                    \
    X(PM_CLOSE_HEARTBEAT, 6, "heartbeat timeout")                              \
    X(PM_CLOSE_HANDSHAKE_TIMEOUT, 7, "handshake not done in time")             \
    X(PM_CLOSE_IDLE, 8, "idle")                                                \
    X(PM_CLOSE_PACKAGE, 9, "malformed package")                                \
    X(PM_CLOSE_PACKAGE_SIZE, 10, "package too large")                          \
    X(PM_CLOSE_MESSAGE, 11, "malformed message")                               \
    X(PM_CLOSE_HANDSHAKE, 12, "handshake refused")                             \
    X(PM_CLOSE_CHECK_CLIENT, 13, "client version refused")                     \
    X(PM_CLOSE_HTTP, 14, "not a WebSocket upgrade")                            \
    X(PM_CLOSE_WS, 15, "malformed WebSocket frame")                            \
    X(PM_CLOSE_CONNECTIONS_MAX, 16, "too many connections")                    \
    X(PM_CLOSE_BLACKLIST, 17, "address refused")                               \
    X(PM_CLOSE_QUEUE, 18, "does not read what it is sent")                     \
    X(PM_CLOSE_RATE, 19, "too many messages")                                  \
    X(PM_CLOSE_MEMORY, 20, "out of memory")                                    \
    X(PM_CLOSE_CONNECT, 21, "connecting failed")                               \
    X(PM_CLOSE_CUT, 22, "link cut")                                            \
    X(PM_CLOSE_AUTH, 23, "peer not proved")                                    \
    X(PM_CLOSE_PEER_SILENT, 24, "peer silent")                                 \
    X(PM_CLOSE_DUPLICATE, 25, "replaced by another login")                     \
    X(PM_CLOSE_TLS, 26, "TLS failure")                                         \
    X(PM_CLOSE_TLS_ON_PLAIN, 27, "TLS on a plain port")                        \
    X(PM_CLOSE_PLAIN_ON_TLS, 28, "plain bytes on a TLS port")                  \
    X(PM_CLOSE_ATTACK, 29, "route names a constructor")                        \
    X(PM_CLOSE_CRYPTO, 30, "too many signatures")                              \
    X(PM_CLOSE_PROXY, 31, "no PROXY header, or a malformed one")               \
    X(PM_CLOSE_OVERLOAD, 32, "the server is overloaded")                       \
    X(PM_CLOSE_ADDRESS_RATE, 33, "too many connections from this address")     \
    X(PM_CLOSE_TAKEOVER, 34, "the session has resumed elsewhere")              \
    X(PM_CLOSE_RESUME, 35, "not resumed")                                      \
    X(PM_CLOSE_RESUME_WINDOW, 36, "too much was missed to be resumed")         \
    X(PM_CLOSE_TLS_BUSY, 37, "too many TLS handshakes at once")

typedef enum pm_close_reason {
#define PM_CLOSE_ENUM(name, value, text) name = value,
    PM_CLOSE_REASONS(PM_CLOSE_ENUM)
#undef PM_CLOSE_ENUM
        PM_CLOSE_COUNT = 38
} pm_close_reason;

/* Static, never NULL. */
PM_API const char *pm_close_text(pm_close_reason reason);

/* ==== Slices, bodies, allocator, log ==================================== */
typedef struct pm_slice {
    const void *data;
    size_t len;
} pm_slice;

/* What a body is. A handler need not care: pm_request_json reads them all. */
typedef enum pm_body_kind {
    PM_BODY_NONE = 0,  /* no body: {} towards a client */
    PM_BODY_JSON = 1,  /* JSON text */
    PM_BODY_BYTES = 2, /* bytes that nobody looks into */
    PM_BODY_PROTO = 3  /* Pomelo's protobuf dialect, by the route's schema */
} pm_body_kind;

typedef struct pm_body {
    pm_body_kind kind;
    pm_slice data;
} pm_body;

/* The allocator of a loop and of all that lives on it. All three or none are
 * given. `resize` of NULL allocates. May be called on the loop's thread only,
 * except for pm_loop_post, which allocates on its caller's. (libevent, cJSON
 * and mbedtls have process-wide hooks of their own: the host's to set, never
 * ours.) */
typedef struct pm_alloc {
    void *(*alloc)(size_t bytes, void *ctx);
    void *(*resize)(void *ptr, size_t bytes, void *ctx);
    void (*release)(void *ptr, void *ctx);
    void *ctx;
} pm_alloc;

typedef enum pm_log_level {
    PM_LOG_ERROR = 1, /* something is lost or refused to start */
    PM_LOG_WARN = 2,
    PM_LOG_INFO = 3, /* starts, stops, joins, leaves */
    PM_LOG_DEBUG = 4 /* every connection; the only level with user data */
} pm_log_level;

/* One finished line without a line end, borrowed until the callback returns.
 * `module` is static: "conn", "rpc", ... */
typedef void (*pm_log_cb)(void *ctx, pm_log_level level, const char *module,
                          const char *line);

/* ==== Loop ==================================================================
 * What apps share: the event_base, timers, buffers, allocator, clock. */
typedef struct pm_loop pm_loop;

typedef struct pm_loop_opts {
    size_t size;
    struct event_base *base; /* NULL: the loop makes and runs its own. Else
                                borrowed until the loop is freed; the host runs
                                it (pm_loop_run and pm_loop_poll do so too). We
                                add events, never break or free it. */
    int priority;     /* of our events on a borrowed base, from 0; -1: the
                         base's own default */
    bool memory_only; /* no event_base and no sockets: apps and clients on
                         this loop talk through memory, pm_loop_poll makes
                         the turns. For tests and simulations. */
    pm_alloc alloc;   /* zero: malloc */
    pm_log_cb log;    /* NULL: silent. For what belongs to no app. */
    void *log_ctx;
    pm_log_level log_level;          /* 0: PM_LOG_INFO */
    uint64_t (*clock_us)(void *ctx); /* monotonic microseconds; NULL: the
                                        system's */
    void (*random)(void *out, size_t len, void *ctx); /* NULL: the system's */
    /* The clock on the wall, for crons: microseconds since 1970, UTC. NULL:
     * clock_us if that is given, else the system's. */
    int64_t (*wall_us)(void *ctx);
    /* By how many seconds local time is ahead of UTC at that moment; at most
     * one change a day. NULL: 0 if clock_us is given, else the zone of the
     * process (TZ). */
    int32_t (*utc_offset_s)(int64_t utc_s, void *ctx);
    void *seam_ctx; /* for these four */
    /* So many microseconds after the last event pm_loop_run looks again and
     * again before it sleeps; at most 1,000,000. For servers that call each
     * other all the time: a core that sleeps is slow to wake (some 5
     * microseconds, on many virtual machines 50 to 100), and each call pays
     * that twice. It costs CPU, so such a process wants a core of its own
     * (pm_server.cpu). 0: it sleeps at once. */
    uint32_t spin_us;
} pm_loop_opts;

static inline pm_loop_opts pm_loop_opts_default(void)
{
    pm_loop_opts o = PM_ZERO;
    o.size = sizeof o;
    o.priority = -1;
    return o;
}

/* *out is owned by the caller, free with pm_loop_free. `opts` is borrowed until
 * this call returns; NULL: defaults. PM_EINVAL, PM_ENOMEM, PM_ENET (no event
 * base or no wake-up descriptor to be had). */
PM_API pm_err pm_loop_new(pm_loop **out, const pm_loop_opts *opts);
/* Frees the loop. Every app, client and HTTP page on it must have been freed:
 * PM_ESTATE otherwise, and nothing happens; also from inside one of its
 * callbacks. NULL is fine. Posted calls that have not run are dropped. */
PM_API pm_err pm_loop_free(pm_loop *loop);
/* Runs until pm_loop_break. PM_EINVAL from inside a callback of any loop with
 * the same base, or on a memory_only loop. */
PM_API pm_err pm_loop_run(pm_loop *loop);
/* Does what is due and returns: after everything, or after `budget_us`
 * microseconds at the next whole unit of work (0: no limit). For a game's tick.
 * Work left over comes first next time. PM_EINVAL from inside a callback:
 * dispatch never nests. PM_EAGAIN: there is work left. */
PM_API pm_err pm_loop_poll(pm_loop *loop, uint64_t budget_us);
/* Microseconds until pm_loop_poll has something to do for the clock's sake
 * (timers, tasks); 0: now; UINT64_MAX: nothing waits. */
PM_API uint64_t pm_loop_next_us(pm_loop *loop);
/* pm_loop_run returns after the events of this turn. Any thread. */
PM_API void pm_loop_break(pm_loop *loop);
/* Runs fn(arg) on the loop's thread, in order of the calls. ANY THREAD may call
 * it; the loop must not be freed meanwhile. PM_ENOMEM. */
PM_API pm_err pm_loop_post(pm_loop *loop, void (*fn)(void *arg), void *arg);

/* ==== Servers ===============================================================
 * The servers table: Pomelo's servers.json. Which servers exist, and so what
 * roles this process plays. */
typedef struct pm_server {
    const char *id;       /* unique in the table */
    const char *type;     /* "connector", "chat", ... */
    const char *host;     /* of the RPC port and, for gates to tell, the client
                             port. NULL: 127.0.0.1 */
    uint16_t port;        /* RPC; 0: opens none (it can still call others) */
    uint16_t client_port; /* frontends: where clients connect */
    bool frontend;
    int cpu;                  /* core + 1 to pin to; 0: none */
    uint32_t max_connections; /* 0: the limit of the process */
    uint32_t weight;          /* for wrr; 0 is taken as 1 */
    const char *args;         /* for who starts the process; may be NULL */
    const char *raw;     /* the entry's JSON text, unknown keys included but
                            without clusterCount; NULL when the table did not
                            come from a file */
    uint16_t stats_port; /* where pm_run tells the numbers of the process that
                            plays it: GET /metrics; 0: nowhere */
} pm_server;

/* ==== App ===================================================================
 * One server of the table on one loop. Any number of apps may share a loop:
 * they then talk through memory. */
typedef struct pm_app pm_app;
typedef struct pm_session pm_session;
typedef struct pm_request pm_request;
typedef struct pm_channel pm_channel;
typedef struct pm_call pm_call;
typedef struct pm_client pm_client;

/* checkClient of Pomelo. `type` and `version` are sys.type and sys.version as
 * JSON text, NULL when absent; borrowed until the callback returns. true:
 * welcome; false: {"code":501} and closed; *failed = true: {"code":500} and
 * closed. */
typedef bool (*pm_check_client_cb)(const char *type, const char *version,
                                   bool *failed, void *ctx);

/* Handshake callback of Pomelo. Must end `hs` exactly once by
 * pm_handshake_done, now or later (also after the connection has gone: then it
 * does nothing). `msg` is the client's whole message ({"sys":..,"user":..}),
 * borrowed until the callback returns. */
typedef struct pm_handshake pm_handshake;
typedef void (*pm_handshake_cb)(pm_handshake *hs, const struct cJSON *msg,
                                void *ctx);
/* err other than PM_OK: {"code":500} and closed. `user`: becomes the answer's
 * "user" when JavaScript would call it true; borrowed until this call returns;
 * may be NULL. */
PM_API void pm_handshake_done(pm_handshake *hs, pm_err err,
                              const struct cJSON *user);

/* A new connection from this address ("192.0.2.7"): true to refuse it. */
typedef bool (*pm_blacklist_cb)(const char *address, void *ctx);

/* A request or notify is about to be refused, unread: the loop lags (`why` is
 * PM_EBUSY, with limits.lag_ms) or its session sends too much (PM_ELIMIT, with
 * PM_RATE_REFUSE). false: it goes through all the same. *answer is what its
 * sender will be told, {"code":503}; it may be changed, and its bytes must then
 * stay until the next call. route: empty when nobody has it; borrowed, like
 * session, until the callback returns. Be quick: this runs when there is no
 * time. */
typedef bool (*pm_refuse_cb)(pm_session *session, pm_slice route, pm_err why,
                             pm_body *answer, void *ctx);

/* Pomelo's `ssl`. cert, key and ca are PEM text or, without "-----BEGIN", the
 * path of a PEM file, which is read when the app or client is made (and by
 * pm_app_tls_reload); copied. At least TLS 1.2, with forward secrecy; 1.3 when
 * mbedtls is 3.x and the host has called psa_crypto_init, which is for the
 * whole process and so never done here. No renegotiation. Certificates of RSA
 * and of elliptic curves; chains of at most 12 KiB. */
typedef struct pm_tls_opts {
    const char *cert;  /* a chain, the own certificate first. NULL: no TLS */
    const char *key;   /* of `cert`, without a pass phrase */
    const char *ca;    /* whose certificates are believed */
    bool request_cert; /* client port: only clients with a certificate that
                          `ca` vouches for. Between servers always */
} pm_tls_opts;

typedef enum pm_scheduler {
    PM_SCHEDULER_DIRECT = 0, /* each message at once */
    PM_SCHEDULER_BUFFER = 1  /* gathered, all together every flush_ms */
} pm_scheduler;

/* What becomes of a push to a client who reads too slowly, whose queue is full
 * (pm_limits.client_queue_bytes). Answers are kept. What may be dropped
 * (DROP_OLDEST, DROP_NEW, REPLACE) fills seven eighths of the queue at most, so
 * that answers find room, and counts 128 bytes more each while it waits. A
 * message that has begun to leave is never dropped, and the order of those that
 * stay is that in which they were made. */
typedef enum pm_push_policy {
    PM_PUSH_DEFAULT = 0, /* the frontend's connector.push_policy */
    /* It will arrive: what may be dropped makes room for it; where that is not
     * enough the session is closed (PM_CLOSE_QUEUE). */
    PM_PUSH_KEEP = 1,
    /* The oldest waiting push with DROP_OLDEST or REPLACE makes room for it,
     * and it may have to for others. Without such a one it is dropped. */
    PM_PUSH_DROP_OLDEST = 2,
    PM_PUSH_DROP_NEW = 3, /* dropped, unless there is room; once it waits it
                             stays */
    /* It takes the place of a waiting one of the same route and key, and goes
     * to the end of the queue; else as DROP_OLDEST. */
    PM_PUSH_REPLACE = 4,
    PM_PUSH_CLOSE = 5 /* the session is closed, whatever could be dropped */
} pm_push_policy;

/* What happens to a session that sends more than its rates allow. */
typedef enum pm_rate_policy {
    PM_RATE_CLOSE = 0,  /* closed: PM_CLOSE_RATE */
    PM_RATE_REFUSE = 1, /* what is too much gets {"code":503}, or what
                           pm_connector_opts.refuse says */
    PM_RATE_DELAY = 2   /* not read until it may send again, heartbeats
                           included */
} pm_rate_policy;

typedef struct pm_limits {
    uint32_t package_in_bytes;  /* 0: 64 KiB. A client's package */
    uint32_t package_out_bytes; /* 0: 16 MiB - 1, which is also the most */
    uint32_t
        client_queue_bytes;    /* 0: 1 MiB. Waiting for one client. When half
                                  of it are answers and pushes that are kept,
                                  we stop reading it until a quarter is left */
    uint32_t peer_queue_bytes; /* 0: 64 MiB. Waiting for one server */
    uint32_t handshake_ms;     /* 0: 10,000. From connecting to the ACK, without
                                  the time of the handshake callback */
    uint32_t handshake_cb_ms;  /* 0: 30,000. The application's own callback */
    uint32_t requests_in_flight; /* 0: 128 a session; then we stop reading it */
    uint32_t request_ms;         /* 0: 30,000. Then {"code":500} to the client.
                                    Pomelo has no such deadline: a departure, so
                                    that nothing waits for ever */
    uint32_t messages_per_s;     /* 0: off. Of one session, on the average;
                                    and so many at once */
    uint32_t depth;              /* 0: 32. Of JSON and protobuf */
    uint32_t connections;        /* 0: descriptors - 64. The table's
                                    max_connections wins when smaller */
    uint32_t signatures_per_s;   /* 0: 50 RSA checks a second a session; over
                                    it: closed */
    uint32_t bytes_per_s;        /* 0: off. Of one session's packages; at once
                                    also package_in_bytes if that is more */
    pm_rate_policy over_rate;    /* over messages_per_s or bytes_per_s */
    uint32_t idle_ms; /* 0: off. A session that sends nothing but heartbeats for
                         so long is kicked ("idle"), unless it waits for an
                         answer */
    uint32_t
        lag_ms; /* 0: off. Overload: a request that may have waited longer
                   for this loop gets {"code":503} at once, or what
                   pm_connector_opts.refuse says; a forwarded one too, on
                   the server that lags (which asks nobody). Heartbeats
                   are answered. At half of it new connections are refused. Take
                   ten times the longest handler and more: 50 is good */
    uint32_t connects_per_s; /* 0: off. Of one address (IPv6: of one /64), on
                                the average; and so many at once. What is too
                                much is closed: PM_CLOSE_ADDRESS_RATE */
    uint32_t addresses;      /* 0: 4,096 are remembered for that; the one that
                                came longest ago is forgotten first */
    /* 0: 512 at once on the client port, each some 45 KiB; one more is closed,
     * PM_CLOSE_TLS_BUSY. In each turn they get a few milliseconds. */
    uint32_t tls_handshakes;
} pm_limits;

typedef struct pm_connector_opts {
    double heartbeat_s; /* 0: none announced, none answered. Pomelo's
                           `heartbeat` */
    double timeout_s;   /* 0: twice the heartbeat. Pomelo's `timeout` */
    bool use_dict;      /* number the routes (Pomelo's useDict) */
    const char *const *dictionary; /* routes added behind the handlers' own:
                                      config/dictionary.json. Copied. */
    size_t dictionary_count;
    bool use_protobuf;
    const char *server_protos,
        *client_protos; /* JSON text of serverProtos.json and
               clientProtos.json; NULL: no such file. Copied. */
    bool use_crypto;    /* check RSA signatures. No secrecy: see SECURITY.md */
    pm_check_client_cb check_client;
    pm_handshake_cb handshake;
    pm_blacklist_cb blacklist;
    pm_refuse_cb refuse;
    void *ctx;                  /* for these four */
    const char *const *blocked; /* CIDR blocks that are refused; see
                                   pm_app_block. Copied. */
    size_t blocked_count;
    /* Proxies that are believed: CIDR blocks. Whom they name is what counts for
     * blocked, blacklist, connects_per_s and pm_session_address; their own
     * addresses are neither blocked nor counted, and what others name is
     * nothing. Copied. */
    const char *const *proxies;
    size_t proxies_count;
    bool proxy_header;  /* they begin with a PROXY header, version 1 or 2: from
                           them it must come, else PM_CLOSE_PROXY */
    bool forwarded_for; /* they set X-Forwarded-For in WebSocket upgrades, in at
                           most 8 lines, which are one list: its last address
                           that is no proxy's is the player's */
    pm_scheduler scheduler;
    uint32_t flush_ms; /* 0: 20. For PM_SCHEDULER_BUFFER */
    bool close_by_fin; /* Pomelo's closeMethod "end": FIN instead of close */
    bool
        single_session; /* a uid may be bound by one session of this frontend */
    bool proto_refused_as_json; /* an answer that its schema refuses goes out as
                                   JSON, not with an empty body (which
                                   libpomelo2 dislikes) */
    int send_buffer_bytes; /* SO_SNDBUF of client sockets; 0: the system's */
    /* Sessions of clients that ask for it outlive their connection. */
    uint32_t resume_ms;         /* so long; 0: none does */
    uint32_t resume_bytes;      /* 0: 64 KiB. What is kept of what was sent to a
                                   session, to be sent again; at most half of
                                   limits.client_queue_bytes. Without a
                                   connection this is its queue: push policies
                                   hold when so much waits */
    uint32_t resume_sessions;   /* 0: 1,000. That are without a connection at a
                                   time; over it the oldest one ends */
    pm_push_policy push_policy; /* of pushes that name none; 0: PM_PUSH_KEEP */
    pm_tls_opts tls; /* of the client port: wss, and TLS over TCP, nothing
                        plain any more. With tickets, of 24 hours */
} pm_connector_opts;

typedef struct pm_rpc_opts_app {
    const char *secret;  /* both ends of a link must know it. Copied. */
    bool insecure_plain; /* allow a secret without TLS off loopback */
    /* Both ends of each link show a certificate that `ca` vouches for and that
     * names their server id: one of its DNS names or, when it has no
     * alternative names at all, its common name; exactly, without wildcards.
     * cert, key and ca are all needed. Links in memory have no TLS. */
    pm_tls_opts tls;
    uint32_t deadline_ms;      /* 0: 5,000. Of calls that say nothing else */
    uint32_t reconnect_ms_max; /* 0: 2,000. Longest pause between two tries */
    uint32_t
        silent_ms; /* 0: 10,000. A peer that says nothing so long is down */
} pm_rpc_opts_app;

/* An entry of adminServer.json: servers of this type prove themselves to the
 * master by this token. */
typedef struct pm_admin_token {
    const char *type, *token;
} pm_admin_token;

/* An entry of adminUser.json. */
typedef struct pm_admin_user {
    const char *username, *password;
    int level; /* 1: may do everything; 2 and more: may look */
} pm_admin_user;

/* How a server finds its master, and what the master's own app needs. All
 * zero: there is no master, the table alone says who exists. Texts are copied.
 */
typedef struct pm_master_opts {
    /* Of every app. */
    const char *host;          /* the master's; NULL with a port: 127.0.0.1 */
    uint16_t port;             /* 0: there is no master */
    const char *token;         /* this server's; NULL: none */
    uint32_t reconnect_ms_max; /* 0: 3,000. Longest pause between two tries */
    /* What a console's stop and kill do to this app. NULL: pm_app_stop. pm_run
     * sets it when it is NULL: the process ends when its last app has stopped.
     * at_once: do not drain. */
    void (*stop)(pm_app *app, bool at_once, void *ctx);
    void *ctx; /* for all callbacks of this struct */

    /* Of the master's own app (type "master") alone. */
    const pm_admin_token *tokens; /* with count 0 every server is believed,
                                     which is allowed on loopback only */
    size_t tokens_count;
    const pm_admin_user *users; /* with count 0 no console is let in */
    size_t users_count;
    const char *start; /* servers of the table that the master has started:
                          NULL none, "all", a type, or an id */
    uint32_t grace_ms; /* 0: 1,000. A server whose link broke without a word is
                          announced as gone after this time */
    uint32_t request_ms;    /* 0: 10,000. For an answer of a server */
    uint32_t stop_ms;       /* 0: 15,000. Who has been told to stop by a console
                               and has not gone after this time is terminated.
                               pm_run: twice the drain time, and 3 s */
    uint32_t message_bytes; /* 0: 1 MiB. Of what comes in from one link */
    /* The library never forks. Each may be NULL; a console's request that needs
     * it is then answered with an error. `server` and its texts are borrowed
     * until the callback returns; raw has every key of its entry.
     *
     * spawn: start the process of this server; it registers when it runs. What
     * is returned is whether it could be started. When the process ends, say
     * so by pm_master_exited. */
    pm_err (*spawn)(pm_app *app, const pm_server *server, void *ctx);
    /* terminate: end this server's process at once; it has not stopped when
     * asked to, or is in the way (restart-force). `pid` is what it has said of
     * itself, 0 when unknown: never to be believed without a look. */
    pm_err (*terminate)(pm_app *app, const pm_server *server, int64_t pid,
                        void *ctx);
    /* pin: a server with `cpu` has registered. */
    void (*pin)(pm_app *app, const pm_server *server, int64_t pid, int core,
                void *ctx);
} pm_master_opts;

typedef struct pm_app_opts {
    size_t size;
    pm_loop *loop;            /* borrowed until the app is freed */
    const pm_server *servers; /* the table; copied */
    size_t servers_count;
    const char
        *server_id;  /* which one this app is; copied. NULL: the only one */
    const char *env; /* NULL: "development". Copied. */
    pm_log_cb log;   /* NULL: the loop's */
    void *log_ctx;
    pm_log_level log_level; /* 0: PM_LOG_INFO */
    pm_connector_opts connector;
    pm_rpc_opts_app rpc;
    pm_limits limits;
    const char
        *client_bind;     /* address of the client port; NULL: all addresses */
    const char *rpc_bind; /* NULL: the server's host */
    pm_master_opts master;
    const char *crons; /* text of a crons.json: {"TYPE": [{"id", "time",
                          "action", "serverId"?}]}; NULL: none. Copied */
} pm_app_opts;

static inline pm_app_opts pm_app_opts_default(void)
{
    pm_app_opts o = PM_ZERO;
    o.size = sizeof o;
    return o;
}

/* Makes a server that does not run yet. *out is owned by the caller, free with
 * pm_app_free. `opts` is borrowed until this call returns.
 * PM_EINVAL   size 0, no loop, no table, a port that is missing.
 * PM_ECONFIG  the table is wrong (two equal ids, no such server_id, a host off
 *             loopback with neither secret nor TLS ...); the log says what.
 * PM_EJSON    a protos text is not JSON.    PM_ENOMEM */
PM_API pm_err pm_app_new(pm_app **out, const pm_app_opts *opts);
/* Opens the ports, links to the others, runs the components. Handlers, remotes
 * and filters are registered before. When it fails nothing is left open and the
 * app may be freed or started again. PM_ESTATE, PM_EADDR, PM_ENOMEM, or a
 * component's own. */
PM_API pm_err pm_app_start(pm_app *app);
/* A backend has its master, if any, take it out of everybody's table. Accepts
 * nobody any more, lets what is in flight end for at most `drain_ms`, kicks the
 * sessions with reason "server stop", closes. What other servers had sent
 * before they heard of it is served; a new request of a client gets
 * {"code":500}. `cb` runs once, on a later turn, with PM_OK, PM_ETIMEOUT
 * (something was cut off) or PM_ECLOSED (freed meanwhile). PM_ESTATE: not
 * started or stopping already; PM_ECLOSED: freed by a component's before_stop.
 * cb may be NULL. */
typedef void (*pm_app_stopped_cb)(pm_app *app, pm_err err, void *ctx);
PM_API pm_err pm_app_stop(pm_app *app, uint32_t drain_ms, pm_app_stopped_cb cb,
                          void *ctx);
/* Ends all at once: every call, request and stop completes with PM_ECLOSED
 * before this returns; starting work from those callbacks gives PM_ECLOSED.
 * Afterwards no callback of this app runs and no ctx of it is touched. Legal
 * inside every callback. NULL is fine. */
PM_API void pm_app_free(pm_app *app);

PM_API pm_loop *pm_app_loop(const pm_app *app); /* borrowed */
PM_API const pm_server *
pm_app_server(const pm_app *app);                 /* this one; borrowed until
                                                     the app is freed */
PM_API const char *pm_app_env(const pm_app *app); /* borrowed */
/* The client port that is really open (for port 0 on a test), 0 when none. */
PM_API uint16_t pm_app_client_port(const pm_app *app);
/* On a frontend: refuses new connections from a CIDR block ("192.0.2.0/24",
 * "2001:db8::/32", one address) from now on, until it is taken away. Behind a
 * proxy that is believed the player's address counts. `close` also closes the
 * sessions from there, PM_CLOSE_BLACKLIST, on a later turn; otherwise they
 * stay. Again is fine. Copied. PM_EINVAL no block, PM_ELIMIT over 10,000 of
 * them, PM_ENOMEM; PM_ECLOSED. */
PM_API pm_err pm_app_block(pm_app *app, const char *cidr, bool close);
/* The same block, as it was added (or an option's). PM_EINVAL, PM_ENOTFOUND,
 * PM_ECLOSED */
PM_API pm_err pm_app_unblock(pm_app *app, const char *cidr);
/* Other certificates while all runs: handshakes that begin from now on use
 * them, sessions and links go on. NULL: the files that the options (or the call
 * before) name are read again. Reads files: a moment on the loop's thread.
 *   clients, servers   borrowed until this call returns.
 * PM_ECONFIG one is wrong, see the log: that port has the certificate that it
 * had. PM_ESTATE given for a port that has no TLS, or none has. PM_ENOMEM */
PM_API pm_err pm_app_tls_reload(pm_app *app, const pm_tls_opts *clients,
                                const pm_tls_opts *servers);
/* A pointer of the application's, kept for it (app.set / app.get of Pomelo).
 * The name is copied; NULL takes it away. PM_ENOMEM */
PM_API pm_err pm_app_set(pm_app *app, const char *name, void *value);
PM_API void *pm_app_get(const pm_app *app, const char *name);

/* What runs when; see "Crons" below. */
typedef struct pm_cron {
    const char *id;     /* unique on its server */
    const char *time;   /* "second minute hour day month weekday [year]" */
    const char *action; /* "file.method" */
} pm_cron;

/* ---- Events (app.event of Pomelo) -------------------------------------- */
/* Every function may be NULL. A session is borrowed until the callback returns.
 */
typedef struct pm_app_events {
    size_t size;
    void (*session_opened)(pm_app *app, pm_session *session, void *ctx);
    void (*session_bound)(pm_app *app, pm_session *session, void *ctx);
    void (*session_unbound)(pm_app *app, pm_session *session, const char *uid,
                            void *ctx);
    void (*session_closed)(pm_app *app, pm_session *session,
                           pm_close_reason reason, void *ctx);
    /* A client who was slow (a quarter of client_queue_bytes has waited for it,
     * or a push was dropped) has taken all of it. */
    void (*session_drained)(pm_app *app, pm_session *session, void *ctx);
    void (*server_added)(pm_app *app, const pm_server *server, void *ctx);
    void (*server_removed)(pm_app *app, const char *server_id, void *ctx);
    void (*server_up)(pm_app *app, const pm_server *server, void *ctx);
    void (*server_down)(pm_app *app, const pm_server *server, void *ctx);
    /* The same of a server and peer_queue_bytes. */
    void (*server_drained)(pm_app *app, const pm_server *server, void *ctx);
    /* The master says that every server of its table runs, or pm_run, when it
     * plays the whole table. Once. */
    void (*all_started)(pm_app *app, void *ctx);
    /* A cron was added or removed at run time, by a console or by pm_cron_add
     * and pm_cron_remove. Borrowed until the callback returns. */
    void (*cron_added)(pm_app *app, const pm_cron *cron, void *ctx);
    void (*cron_removed)(pm_app *app, const pm_cron *cron, void *ctx);
    /* connector.resume_ms: the session has lost its connection, for this
     * reason, and goes on without it: it is bound, is pushed to and answered.
     * Then either session_resumed or session_closed comes. */
    void (*session_suspended)(pm_app *app, pm_session *session,
                              pm_close_reason reason, void *ctx);
    /* Its client is there again, with all that it missed on its way to it; also
     * when the old connection was not known to be dead (it was not suspended
     * then). pm_session_address may have changed. */
    void (*session_resumed)(pm_app *app, pm_session *session, void *ctx);
} pm_app_events;
static inline pm_app_events pm_app_events_default(void)
{
    pm_app_events e = PM_ZERO;
    e.size = sizeof e;
    return e;
}
/* `events` is copied. Any number of listeners, called in order. PM_EINVAL,
 * PM_ENOMEM */
PM_API pm_err pm_app_listen(pm_app *app, const pm_app_events *events,
                            void *ctx);

/* ---- Components and timers --------------------------------------------- */
/* Parts of the application with a life cycle (Pomelo's components, and its
 * lifecycle.js). In order of registration: start inside pm_app_start before the
 * ports open, after_start when they are open; a start that fails ends
 * pm_app_start with its error. after_start_all: beside the event all_started.
 * In reverse order: before_stop first thing in pm_app_stop, when everything
 * still works, and stop at the end, also of pm_app_free. Any may be NULL. */
typedef struct pm_component {
    const char *name; /* copied; unique */
    pm_err (*start)(pm_app *app, void *ctx);
    pm_err (*after_start)(pm_app *app, void *ctx);
    void (*stop)(pm_app *app, void *ctx);
    void (*before_stop)(pm_app *app, void *ctx);
    void (*after_start_all)(pm_app *app, void *ctx);
} pm_component;
/* PM_EEXIST, PM_ESTATE (started), PM_ENOMEM */
PM_API pm_err pm_app_component(pm_app *app, const pm_component *component,
                               void *ctx);

/* What before_stop has begun and the library does not see (players being saved
 * by another thread) can hold up the end of a stop: it comes when as many
 * releases as holds have come and all else has ended, or when drain_ms has
 * passed. Calls to other servers need no hold. PM_ESTATE: the app does not run,
 * or it is too late. */
PM_API pm_err pm_app_stop_hold(pm_app *app);
PM_API void pm_app_stop_release(pm_app *app);

/* A timer of the application: first after delay_ms, then every repeat_ms (0:
 * once) from when it was due, however late it came: it does not drift. Times
 * that have passed meanwhile are left out. *id (may be NULL) is for
 * pm_app_timer_cancel. Ends with the app. PM_ENOMEM */
typedef void (*pm_timer_cb)(pm_app *app, void *ctx);
PM_API pm_err pm_app_timer(pm_app *app, uint32_t delay_ms, uint32_t repeat_ms,
                           pm_timer_cb cb, void *ctx, uint64_t *id);
/* Harmless when it has fired. */
PM_API void pm_app_timer_cancel(pm_app *app, uint64_t id);

/* ---- Crons ------------------------------------------------------------- */
/* Jobs by the clock on the wall, Pomelo's crons. A job is registered on every
 * app as "type.file.method"; a cron of this server's type calls its action
 * "file.method". The fields of its time, with spaces between them:
 *
 *     second minute hour day month         weekday      [year]
 *      0-59   0-59  0-24 1-31 0-11 (Jan: 0) 0-6 (Sun: 0) 1970-2099
 *
 * each "*", n, a-b, r/p (every value whose remainder by p is r: "0/10" is 0,
 * 10, 20 ...) or a list of these with commas. Day and weekday must both fit. 24
 * o'clock is the midnight that ends the day. Local time; docs/OPERATE.md tells
 * of summer time and of clocks that are set.
 *
 * Crons begin when the app runs and end when it stops. What was missed, because
 * the loop was busy or the machine slept, runs once. At most 1,024 a server. */

/* `cron` is borrowed until the callback returns, also when it is removed
 * there. */
typedef void (*pm_cron_cb)(pm_app *app, const pm_cron *cron, void *ctx);
/* A job. One of another type: recorded, unused. PM_EINVAL not three parts, over
 * 255 bytes; PM_EEXIST, PM_ESTATE (started), PM_ENOMEM */
PM_API pm_err pm_app_cron(pm_app *app, const char *action, pm_cron_cb cb,
                          void *ctx);
/* At any time; beside those of opts.crons. `cron` is copied. PM_EINVAL a time
 * that is wrong or never comes (the log says what), an empty text or one over
 * 255 bytes; PM_EEXIST the id; PM_ENOTFOUND no such job, while the app runs
 * (before, pm_app_start says PM_ECONFIG); PM_ELIMIT, PM_ENOMEM, PM_ECLOSED */
PM_API pm_err pm_cron_add(pm_app *app, const pm_cron *cron);
/* PM_ENOTFOUND */
PM_API pm_err pm_cron_remove(pm_app *app, const char *id);
/* When it runs next: *utc_ms in milliseconds since 1970; INT64_MAX: never
 * again. PM_ENOTFOUND; PM_ESTATE the app does not run. */
PM_API pm_err pm_cron_next(const pm_app *app, const char *id, int64_t *utc_ms);

/* ==== Handlers and requests =================================================
 * A route is "type.handler.method". A handler of this app's own type is called
 * here; one of another type is forwarded to a server of that type. Register
 * everything on every app: so all have the same dictionary, as in Pomelo. */

/* Must end `req` by exactly one of pm_reply_*, pm_request_fail,
 * pm_request_drop: now or later. */
typedef void (*pm_handler_cb)(pm_request *req, void *ctx);
/* PM_EINVAL  not three non-empty parts, over 255 bytes.   PM_EEXIST
 * PM_ESTATE  already started.   PM_ENOMEM */
PM_API pm_err pm_app_handler(pm_app *app, const char *route, pm_handler_cb cb,
                             void *ctx);
/* A route of another server for the dictionary only. Twice is fine. */
PM_API pm_err pm_app_declare(pm_app *app, const char *route);

PM_API pm_app *pm_request_app(const pm_request *req); /* borrowed */
PM_API pm_session *
pm_request_session(const pm_request *req); /* borrowed until the
                                              request ends */
PM_API const char *
pm_request_route(const pm_request *req); /* borrowed, likewise */
PM_API bool pm_request_is_notify(const pm_request *req);
/* The body as it came, borrowed until the handler returns; with pm_request_keep
 * until the request ends. */
PM_API pm_body pm_request_body(const pm_request *req);
/* The body as a tree, whatever it came as; parsed at the first call. As in
 * Pomelo what is not JSON is {} and objects have a last member "__route__".
 * *out is borrowed until the request ends; it may be changed. PM_ENOMEM,
 * PM_EDEPTH, PM_ENUL, PM_EPROTOBUF, PM_ECLOSED (body gone: keep it before the
 * handler returns). */
PM_API pm_err pm_request_json(pm_request *req, struct cJSON **out);
/* Copies the body so that it stays until the request ends. PM_ENOMEM */
PM_API pm_err pm_request_keep(pm_request *req);
/* A number for other threads: pm_request_find gives the request again, or NULL
 * when it has ended (numbers are not used twice). */
PM_API uint64_t pm_request_id(const pm_request *req);
PM_API pm_request *pm_request_find(pm_app *app, uint64_t id);
/* Runs once if the wire side ends before the handler answers: the session
 * closed (PM_ECLOSED), the deadline passed (PM_ETIMEOUT), the app is freed
 * (PM_ECLOSED). The request must still be ended; what it answers goes nowhere.
 * One callback a request; a second call replaces it. PM_ECLOSED: it has ended
 * already, cb never runs. */
typedef void (*pm_cancel_cb)(pm_request *req, pm_err why, void *ctx);
PM_API pm_err pm_request_on_cancel(pm_request *req, pm_cancel_cb cb, void *ctx);

/* Answers. Each ends the request: `req` is gone afterwards, whatever is
 * returned. PM_ENOTIFY  a notify takes no answer (nothing is sent: harmless, as
 * in Pomelo). PM_ECLOSED  too late: cancelled before. PM_EDEPTH, PM_EPROTOBUF,
 * PM_ESIZE, PM_ENOMEM, PM_EJSON  the client gets
 *             {"code":500}. */
/* Pomelo's next(null, body). NULL and JavaScript's falsy values are {}. `body`
 * is borrowed until this call returns. */
PM_API pm_err pm_reply_json(pm_request *req, const struct cJSON *body);
/* JSON text that is right already: not parsed unless a protobuf schema wants
 * it. */
PM_API pm_err pm_reply_text(pm_request *req, const char *json);
/* Bytes as they are; no schema is applied. Borrowed until this call returns. */
PM_API pm_err pm_reply_bytes(pm_request *req, pm_slice bytes);
PM_API pm_err pm_reply_body(pm_request *req, pm_body body);
/* Pomelo's next(err, body): the client gets {"code":500}, or `body` with
 * "code":500 added unless it has a true code, or any body that is no object as
 * it is. Error handlers see `err` and `detail`. body and detail are borrowed
 * until this call returns; NULL is fine. */
PM_API pm_err pm_request_fail(pm_request *req, pm_err err, const char *detail,
                              const struct cJSON *body);
/* No answer at all. */
PM_API void pm_request_drop(pm_request *req);

/* ==== Filters ===============================================================
 * before, in order -> handler -> error handler -> after, in reverse order ->
 * answer. Global filters run on the frontend around local handling and
 * forwarding; server filters where the handler runs. An error in a before
 * skips the handler. */
typedef struct pm_response {
    pm_err err;         /* PM_OK, or why it failed */
    const char *detail; /* borrowed until the callback returns; may be NULL */
    pm_body body;       /* likewise. What will be sent. */
} pm_response;

typedef struct pm_filter {
    /* Goes on by pm_filter_next(req), now or later, or ends the request by
     * pm_request_fail or pm_reply_* (the handler is skipped). May be NULL. */
    void (*before)(pm_request *req, void *ctx);
    /* The answer that is on its way. Goes on by pm_filter_next(req), now or
     * later. pm_filter_set changes the answer before that. May be NULL. */
    void (*after)(pm_request *req, const pm_response *response, void *ctx);
    /* The app is freed. May be NULL. */
    void (*free)(void *ctx);
} pm_filter;

/* PM_ESTATE (started), PM_ENOMEM. `filter` is copied. */
PM_API pm_err pm_app_filter(pm_app *app, const pm_filter *filter, void *ctx);
PM_API pm_err pm_app_global_filter(pm_app *app, const pm_filter *filter,
                                   void *ctx);
PM_API void pm_filter_next(pm_request *req);
/* Another answer, from inside an after filter or an error handler. Borrowed
 * until this call returns. PM_ESTATE, PM_ENOMEM */
PM_API pm_err pm_filter_set(pm_request *req, pm_err err,
                            const struct cJSON *body);
/* Sees every failed request before the after filters; may change the answer by
 * pm_filter_set; goes on by pm_filter_next. One an app: a second call replaces
 * it. The global one sees the failures of global filters only, as in Pomelo. */
typedef void (*pm_error_cb)(pm_request *req, const pm_response *response,
                            void *ctx);
PM_API void pm_app_error_handler(pm_app *app, pm_error_cb cb, void *ctx);
PM_API void pm_app_global_error_handler(pm_app *app, pm_error_cb cb, void *ctx);

/* Built-in filters (Pomelo's, without their faults). PM_ESTATE, PM_ENOMEM */
/* One message at a time per session; the next starts when the first has ended;
 * a first that takes longer than timeout_ms (0: 3,000) is cancelled with
 * PM_ETIMEOUT. */
PM_API pm_err pm_filter_serial(pm_app *app, uint32_t timeout_ms);
/* Logs the time of each request at PM_LOG_INFO, module "time". */
PM_API pm_err pm_filter_time(pm_app *app);
/* Logs a request that is not answered within ms (0: 3,000). */
PM_API pm_err pm_filter_timeout(pm_app *app, uint32_t ms);
/* Refuses with {"code":500} while the loop lags more than lag_ms (0: 70). */
PM_API pm_err pm_filter_toobusy(pm_app *app, uint32_t lag_ms);

/* ==== Sessions ==============================================================
 * A player's session: on its frontend the thing itself, on a backend a view
 * that came with a request; the same functions work on both, there by a call
 * to the frontend. */
typedef void (*pm_done_cb)(pm_err err, const char *detail, void *ctx);

PM_API uint64_t
pm_session_id(const pm_session *session); /* unique on its frontend */
PM_API const char *
pm_session_frontend_id(const pm_session *session); /* borrowed */
/* NULL when not bound; borrowed until it is bound or unbound. */
PM_API const char *pm_session_uid(const pm_session *session);
/* "192.0.2.7"; "" on a backend or when it came by memory. Borrowed. */
PM_API const char *pm_session_address(const pm_session *session);
PM_API bool pm_session_is_closed(const pm_session *session);
PM_API void pm_session_ref(pm_session *session);
PM_API void pm_session_unref(pm_session *session); /* NULL is fine */
/* A pointer of the application's on this object (of this process). */
PM_API void pm_session_set_data(pm_session *session, void *data);
PM_API void *pm_session_data(const pm_session *session);

/* uid: 1..255 bytes, copied. cb (may be NULL) runs once on a later turn.
 * By callback: PM_EBOUND bound to another uid (the same again is fine),
 * PM_EEXIST the single-session policy, PM_ECLOSED, PM_ENOTFOUND, or the call's
 * own failure. PM_EINVAL, PM_ENOMEM: returned, no callback. */
PM_API pm_err pm_session_bind(pm_session *session, const char *uid,
                              pm_done_cb cb, void *ctx);
PM_API pm_err pm_session_unbind(pm_session *session, const char *uid,
                                pm_done_cb cb, void *ctx);
/* Settings: JSON values by name, on this object only until they are synced.
 * `value` is copied; NULL takes the name away. PM_ELIMIT over 16 KiB in all,
 * PM_ENOMEM */
PM_API pm_err pm_session_set(pm_session *session, const char *name,
                             const struct cJSON *value);
PM_API pm_err pm_session_set_text(pm_session *session, const char *name,
                                  const char *text);
/* Borrowed until settings are changed; NULL when there is none (or no text). */
PM_API const struct cJSON *pm_session_get(const pm_session *session,
                                          const char *name);
PM_API const char *pm_session_get_text(const pm_session *session,
                                       const char *name);
/* Pomelo's session.push(name) and pushAll() (name NULL): hands settings to the
 * frontend, where later requests see them: whole or, by callback PM_ELIMIT, not
 * at all. On the frontend itself: done already. PM_ENOTFOUND: no such name. */
PM_API pm_err pm_session_sync(pm_session *session, const char *name,
                              pm_done_cb cb, void *ctx);
/* Sends the client {"reason":reason} and ends the connection; NULL: ends it
 * without a word. Copied. cb may be NULL. */
PM_API pm_err pm_session_kick(pm_session *session, const char *reason,
                              pm_done_cb cb, void *ctx);
/* Pushes one message to this client, by the frontend's push_policy. route:
 * 1..255 bytes. Borrowed until this call returns. PM_EINVAL (route, body NONE),
 * PM_ECLOSED, PM_ELIMIT (the queue is full; on the frontend the session is
 * being closed for it), PM_EDROPPED by its policy, PM_EPROTOBUF, PM_ESIZE,
 * PM_ENOMEM. */
PM_API pm_err pm_session_push(pm_session *session, const char *route,
                              pm_body body);
/* On its frontend: bytes that wait for this client and have not been handed to
 * the system. 0 on a backend and when closed. */
PM_API size_t pm_session_queued(const pm_session *session);
/* On its frontend: pushes to this client that were dropped or replaced by their
 * policies. 0 on a backend and when closed. */
PM_API uint64_t pm_session_dropped(const pm_session *session);

/* On a frontend: sessions of this app. Borrowed. `uid` NULL: all sessions. The
 * walk survives sessions that end while it runs. Returns how many were visited;
 * each returns false to stop. */
PM_API pm_session *pm_session_find(pm_app *app, uint64_t id);
typedef bool (*pm_session_cb)(pm_session *session, void *ctx);
PM_API size_t pm_session_each(pm_app *app, const char *uid, pm_session_cb each,
                              void *ctx);

/* From any server, by a call. frontend_id NULL: every frontend of the table is
 * asked. The views are borrowed until the callback returns; pm_session_ref
 * keeps one. By callback: PM_ENOTFOUND nobody has it, or why a frontend could
 * not be asked. PM_EINVAL, PM_ENOSERVER no frontend in the table, PM_ENOMEM,
 * PM_ECLOSED: cb never runs. */
typedef void (*pm_session_found_cb)(pm_err err, pm_session *const *sessions,
                                    size_t count, void *ctx);
PM_API pm_err pm_session_fetch(pm_app *app, const char *frontend_id,
                               uint64_t sid, pm_session_found_cb cb, void *ctx);
PM_API pm_err pm_session_fetch_uid(pm_app *app, const char *frontend_id,
                                   const char *uid, pm_session_found_cb cb,
                                   void *ctx);
/* Kicks from any server; reason as for pm_session_kick; cb may be NULL. */
PM_API pm_err pm_session_kick_sid(pm_app *app, const char *frontend_id,
                                  uint64_t sid, const char *reason,
                                  pm_done_cb cb, void *ctx);
PM_API pm_err pm_session_kick_uid(pm_app *app, const char *frontend_id,
                                  const char *uid, const char *reason,
                                  pm_done_cb cb, void *ctx);

/* ==== Channels ==============================================================
 * Named groups of players (uid and the frontend that holds them), local to
 * this server. A push costs one call per frontend, whatever the number of
 * members. */
typedef struct pm_receiver {
    const char *uid;
    const char *frontend_id;
} pm_receiver;

/* A push is on its way to every frontend. `missed`: receivers without a
 * session, and all those of frontends that could not be reached; borrowed until
 * the callback returns. err: PM_OK, or why no frontend could be reached;
 * PM_ENOMEM: no memory for the list of the missed. */
typedef void (*pm_push_cb)(pm_err err, const pm_receiver *missed,
                           size_t missed_count, void *ctx);

/* The channel of that name, made when there is none and `create`. Borrowed
 * until destroyed. NULL: none (or, with create, no memory or a name that is
 * empty or over 255 bytes). */
PM_API pm_channel *pm_channel_get(pm_app *app, const char *name, bool create);
PM_API void pm_channel_destroy(pm_channel *channel);
PM_API const char *pm_channel_name(const pm_channel *channel);
PM_API size_t pm_channel_count(const pm_channel *channel);
/* Adding twice is once (Pomelo would deliver twice). Copied. PM_EINVAL,
 * PM_ENOMEM */
PM_API pm_err pm_channel_add(pm_channel *channel, const char *uid,
                             const char *frontend_id);
/* PM_ENOTFOUND */
PM_API pm_err pm_channel_leave(pm_channel *channel, const char *uid,
                               const char *frontend_id);
PM_API bool pm_channel_has(const pm_channel *channel, const char *uid);
/* In order of joining. each returns false to stop. Members may leave meanwhile
 * (they are not visited any more) and join (nor are they), the channel may be
 * destroyed. */
typedef bool (*pm_member_cb)(const pm_receiver *member, void *ctx);
PM_API size_t pm_channel_each(pm_channel *channel, pm_member_cb each,
                              void *ctx);
/* From now on members whose last session on their frontend ends or is unbound
 * leave by themselves, and those who have none; `on` false: no more. While a
 * frontend is down its members stay; when it leaves the table they leave.
 * `left` (may be NULL) is told of each one on a later turn, when it is out; the
 * member is borrowed until the callback returns. PM_ENOMEM: all is as before.
 * PM_ECLOSED */
typedef void (*pm_left_cb)(pm_channel *channel, const pm_receiver *member,
                           void *ctx);
PM_API pm_err pm_channel_leave_on_close(pm_channel *channel, bool on,
                                        pm_left_cb left, void *ctx);
/* To every member. route: 1..255 bytes. route and body are borrowed until this
 * call returns. cb may be NULL; runs once, on a later turn. PM_EINVAL (route;
 * body NONE), PM_ESIZE, PM_ENOMEM, PM_ECLOSED the app is being freed: cb never
 * runs. Without cb also why no frontend took it: PM_ELIMIT. */
PM_API pm_err pm_channel_push(pm_channel *channel, const char *route,
                              pm_body body, pm_push_cb cb, void *ctx);
/* Pomelo's pushMessageByUids. Who is named twice gets it twice. */
PM_API pm_err pm_push_uids(pm_app *app, const char *route, pm_body body,
                           const pm_receiver *receivers, size_t count,
                           pm_push_cb cb, void *ctx);

/* The general form of the three above: to whom, and how it waits for a client
 * who reads too slowly. All is borrowed until the call returns. */
typedef struct pm_push_opts {
    size_t size;
    const char *route;
    pm_body body;
    pm_push_policy policy;
    const char *key; /* of PM_PUSH_REPLACE: at most 255 bytes; NULL: all pushes
                        of the route are of one key */
    /* One of these three. */
    pm_session *session;
    pm_channel *channel;
    const pm_receiver *receivers;
    size_t receivers_count;
} pm_push_opts;
static inline pm_push_opts pm_push_opts_default(void)
{
    pm_push_opts o = PM_ZERO;
    o.size = sizeof o;
    return o;
}
/* cb: as for pm_channel_push; to a session there is none (NULL). Who drops a
 * push by its policy is not missed. Errors as for pm_session_push and
 * pm_channel_push; PM_EINVAL also the policy, the key, two kinds of receivers.
 *
 * The policy goes with the push to other frontends. Between servers it counts
 * too, when the queue of a link is full (pm_limits.peer_queue_bytes): there
 * DEFAULT and CLOSE are KEEP, and so is every push with a cb. What is kept is
 * refused with PM_ELIMIT, what is not PM_EDROPPED; without cb that is returned
 * when no frontend took it. */
PM_API pm_err pm_push(pm_app *app, const pm_push_opts *opts, pm_push_cb cb,
                      void *ctx);
/* All is borrowed until the call returns. */
typedef struct pm_broadcast_opts {
    size_t size;
    const char *frontend_type;
    const char *route;
    pm_body body;
    bool bound_only;          /* only sessions with a uid */
    const char *filter_param; /* for the filters; at most 64 KiB; or NULL */
    pm_push_policy policy;    /* as in pm_push_opts */
    const char *key;          /* likewise */
} pm_broadcast_opts;
static inline pm_broadcast_opts pm_broadcast_opts_default(void)
{
    pm_broadcast_opts o = PM_ZERO;
    o.size = sizeof o;
    return o;
}
/* To all sessions of every server of a frontend type that its filter lets
 * through. Errors as for pm_channel_push. */
PM_API pm_err pm_broadcast(pm_app *app, const pm_broadcast_opts *opts,
                           pm_push_cb cb, void *ctx);
/* On a frontend (Pomelo's broadcastFilter): is this broadcast for this session?
 * All is borrowed until the callback returns; filter_param may be NULL. One an
 * app: a second call replaces it; NULL takes it away. */
typedef bool (*pm_broadcast_filter_cb)(pm_session *session, const char *route,
                                       pm_body body, const char *filter_param,
                                       void *ctx);
PM_API void pm_app_broadcast_filter(pm_app *app, pm_broadcast_filter_cb cb,
                                    void *ctx);

/* Where channels are kept beyond the life of their server (Pomelo's `store`).
 * Each may be NULL and runs inside the call that changes the channel, which
 * changes all the same when it fails: that is logged. The end of the app tells
 * nothing. Names and members are borrowed until the callback returns. */
typedef struct pm_channel_store {
    size_t size;
    /* Somebody has joined; member NULL: the channel was made. */
    pm_err (*add)(pm_app *app, const char *channel, const pm_receiver *member,
                  void *ctx);
    pm_err (*remove)(pm_app *app, const char *channel,
                     const pm_receiver *member, void *ctx);
    /* The channel was destroyed. */
    pm_err (*remove_all)(pm_app *app, const char *channel, void *ctx);
    /* Inside pm_app_start, as a component in this place would: says what was
     * there by pm_channel_restore, now or later. Its error ends the start. */
    pm_err (*load)(pm_app *app, void *ctx);
} pm_channel_store;
static inline pm_channel_store pm_channel_store_default(void)
{
    pm_channel_store s = PM_ZERO;
    s.size = sizeof s;
    return s;
}
/* `store` is copied. PM_EINVAL, PM_EEXIST, PM_ESTATE (started), PM_ENOMEM */
PM_API pm_err pm_app_channel_store(pm_app *app, const pm_channel_store *store,
                                   void *ctx);
/* pm_channel_get and pm_channel_add, but the store is not told. uid NULL: only
 * the channel. PM_EINVAL, PM_ENOMEM */
PM_API pm_err pm_channel_restore(pm_app *app, const char *channel,
                                 const char *uid, const char *frontend_id);

/* ==== Routing and RPC =======================================================
 * Calls between servers, "type.service.method". Every call that is accepted
 * (PM_OK) completes exactly once, by its deadline, on a later turn. */

/* What a router may look at. */
typedef enum pm_param_kind {
    PM_PARAM_NONE = 0,
    PM_PARAM_SESSION = 1,
    PM_PARAM_INTEGER = 2,
    PM_PARAM_STRING = 3
} pm_param_kind;
typedef struct pm_param {
    pm_param_kind kind;
    union {
        const pm_session *session; /* borrowed until the call returns */
        int64_t integer;
        const char *string; /* likewise */
    } as;
} pm_param;

/* One routing decision. End it exactly once, now or later: pm_route_to(choice,
 * id), or NULL when there is none. It stays until then, also when the caller's
 * deadline has passed or the app is freed: its loop can not be freed before. */
typedef struct pm_choice pm_choice;
PM_API pm_param
pm_choice_param(const pm_choice *choice); /* strings borrowed until it ends */
PM_API size_t
pm_choice_count(const pm_choice *choice); /* servers of the type, table order */
PM_API const pm_server *pm_choice_server(const pm_choice *choice, size_t index);
PM_API void pm_route_to(pm_choice *choice, const char *server_id);
typedef void (*pm_route_cb)(pm_app *app, pm_choice *choice, void *ctx);
/* The router of a server type, or of "default". Used by forwarding and by RPC.
 * NULL takes it away. PM_EINVAL, PM_ENOMEM */
PM_API pm_err pm_app_route(pm_app *app, const char *server_type, pm_route_cb cb,
                           void *ctx);
/* A built-in one by name: "def" (Pomelo's CRC of the uid), "rr", "wrr", "la"
 * (fewest in flight), "ch" (consistent hash), "rendezvous" (moves only what it
 * must). def, ch and rendezvous go by the session's uid, the string or the
 * integer's digits; none is "". rr, wrr and la pass over who is down.
 * PM_EINVAL, PM_ENOMEM */
PM_API pm_err pm_app_route_builtin(pm_app *app, const char *server_type,
                                   const char *name);
/* Pomelo's dispatcher: the index for a uid among n servers. n > 0. */
PM_API size_t pm_dispatch(const char *uid, size_t n);

typedef struct pm_rpc_result {
    pm_err
        err;  /* PM_OK, or: PM_ENOSERVER unknown server or type without servers;
                 PM_EDOWN the server is down; PM_ETIMEOUT; PM_ECLOSED the link
                 broke or the app is freed; PM_ENOMETHOD; PM_EREMOTE */
    int code; /* with PM_EREMOTE: the remote's own number */
    const char *detail; /* a sentence; never NULL; borrowed until the callback
                           returns */
    pm_body body;       /* the answer; borrowed until the callback returns */
    const char *server_id; /* who was asked; NULL when nobody was chosen */
} pm_rpc_result;
typedef void (*pm_rpc_cb)(const pm_rpc_result *result, void *ctx);

/* A remote: what other servers may call. Must end `call` exactly once by
 * pm_call_reply or pm_call_fail, now or later. */
typedef void (*pm_remote_cb)(pm_call *call, void *ctx);
/* method: "type.service.method"; of another type: recorded, unused.
 * PM_EINVAL, PM_EEXIST, PM_ESTATE, PM_ENOMEM */
PM_API pm_err pm_app_remote(pm_app *app, const char *method, pm_remote_cb cb,
                            void *ctx);
PM_API pm_app *pm_call_app(const pm_call *call);
PM_API const char *pm_call_method(const pm_call *call);
PM_API const char *
pm_call_caller(const pm_call *call); /* server id; borrowed */
PM_API bool pm_call_is_notify(const pm_call *call);
/* What the caller gave, or a number that its server has drawn: set it in the
 * calls that this one leads to, and logs tell what belongs together. */
PM_API uint64_t pm_call_trace_id(const pm_call *call);
/* Borrowed until the remote returns; pm_call_keep copies. */
PM_API pm_body pm_call_args(const pm_call *call);
PM_API pm_err pm_call_keep(pm_call *call);
/* The arguments as a tree (Pomelo: an array). Borrowed until the call ends.
 * PM_EJSON, PM_EDEPTH, PM_ENUL, PM_ENOMEM, PM_ECLOSED */
PM_API pm_err pm_call_json(pm_call *call, struct cJSON **out);
/* Microseconds until the caller's deadline; 0 when it has passed. */
PM_API uint64_t pm_call_left_us(const pm_call *call);
/* Both end the call. PM_ECLOSED the caller is gone, PM_ENOTIFY, PM_ESIZE,
 * PM_ELIMIT, PM_ENOMEM. */
PM_API pm_err pm_call_reply(pm_call *call, pm_body body);
PM_API pm_err pm_call_fail(pm_call *call, int code, const char *detail);

/* Calls a server of the method's type, chosen by the type's router from
 * `route`. args are copied or sent before this returns. cb NULL: a notify,
 * nobody answers. PM_EINVAL the method; PM_ESIZE over 16 MiB; PM_ELIMIT the
 * peer's queue is full; PM_ESTATE not started; PM_ENOMEM; PM_ECLOSED the app is
 * being freed: cb never runs. All that concerns the target comes by callback.
 */
PM_API pm_err pm_rpc_invoke(pm_app *app, const char *method, pm_param route,
                            pm_body args, pm_rpc_cb cb, void *ctx);

typedef struct pm_rpc_opts {
    size_t size;
    const char *method;    /* borrowed until the call returns, like all here */
    const char *server_id; /* this very server; NULL: chosen by `route` */
    pm_param route;
    pm_body args;
    uint32_t deadline_ms; /* 0: the app's rpc.deadline_ms */
    uint64_t trace_id;    /* 0: a new one, pm_call_trace_id there */
} pm_rpc_opts;
static inline pm_rpc_opts pm_rpc_opts_default(void)
{
    pm_rpc_opts o = PM_ZERO;
    o.size = sizeof o;
    return o;
}
/* *call_id (may be NULL) is for pm_rpc_cancel. */
PM_API pm_err pm_rpc_call(pm_app *app, const pm_rpc_opts *opts, pm_rpc_cb cb,
                          void *ctx, uint64_t *call_id);
/* cb runs with PM_ECANCELED on a later turn. PM_ENOTFOUND: it has completed. */
PM_API pm_err pm_rpc_cancel(pm_app *app, uint64_t call_id);

/* Calls every server of the method's type (Pomelo's toServer "*", with the
 * results that it throws away). cb runs once, when all have completed: one
 * result a server, in table order, each as for pm_rpc_call; borrowed until the
 * callback returns. A type without servers: count 0. Errors as pm_rpc_call. */
typedef void (*pm_rpc_all_cb)(const pm_rpc_result *results, size_t count,
                              void *ctx);
PM_API pm_err pm_rpc_all(pm_app *app, const char *method, pm_body args,
                         pm_rpc_all_cb cb, void *ctx);

/* Sees this app's own pm_rpc_* calls, on the caller's side (Pomelo's rpcBefore
 * and rpcAfter; both chains in order of registration). */
typedef struct pm_rpc_filter {
    /* Before it is sent; `call` is borrowed until the callback returns.
     * Anything but PM_OK: it is not sent and completes with that error. May be
     * NULL. */
    pm_err (*before)(pm_app *app, const pm_rpc_opts *call, void *ctx);
    /* The result, before the caller's callback. May be NULL. */
    void (*after)(pm_app *app, const char *method, const pm_rpc_result *result,
                  void *ctx);
} pm_rpc_filter;
/* `filter` is copied. PM_EINVAL, PM_ESTATE (started), PM_ENOMEM */
PM_API pm_err pm_app_rpc_filter(pm_app *app, const pm_rpc_filter *filter,
                                void *ctx);
/* Sees every call that failed, before the after filters (Pomelo's
 * rpcErrorHandler). One an app: a second call replaces it; NULL takes it away.
 */
typedef void (*pm_rpc_error_cb)(pm_app *app, const char *method,
                                const pm_rpc_result *result, void *ctx);
PM_API void pm_app_rpc_error_handler(pm_app *app, pm_rpc_error_cb cb,
                                     void *ctx);

/* What became of pushes to slow receivers, since the start. */
typedef struct pm_queue_counts {
    size_t size; /* of the caller's struct, set before the call */
    /* On a frontend, pushes to clients. */
    uint64_t dropped_oldest; /* had waited, and made room for others */
    uint64_t dropped_new;    /* found no room */
    uint64_t replaced;       /* by a later one of the same key */
    uint64_t closed;         /* sessions, by PM_CLOSE_QUEUE */
    uint64_t drained;        /* times that session_drained was told */
    /* To other servers. */
    uint64_t peer_dropped; /* pushes */
    uint64_t peer_refused; /* calls, answers and pushes that found no room:
                              PM_ELIMIT */
} pm_queue_counts;
/* PM_EINVAL */
PM_API pm_err pm_queue_counts_get(const pm_app *app, pm_queue_counts *counts);

/* ==== Cluster =========================================================== */
/* Servers of the table; NULL type: all. Table order; borrowed until the table
 * changes. */
PM_API size_t pm_server_count(const pm_app *app, const char *type);
PM_API const pm_server *pm_server_at(const pm_app *app, const char *type,
                                     size_t index);
PM_API const pm_server *pm_server_find(const pm_app *app, const char *id);
/* Is there a link to it (or is it this app)? */
PM_API bool pm_server_is_up(const pm_app *app, const char *id);
/* Bytes that wait for it and have not been handed to the system; 0: none, or
 * no such server. */
PM_API size_t pm_server_queued(const pm_app *app, const char *id);
/* Changes the table at run time. `server` is copied. PM_EINVAL, PM_EEXIST,
 * PM_ENOTFOUND, PM_ENOMEM */
PM_API pm_err pm_server_add(pm_app *app, const pm_server *server);
PM_API pm_err pm_server_remove(pm_app *app, const char *id);

/* ==== Numbers ===============================================================
 * What a server counts; docs/OPERATE.md has the list. Reading is what costs:
 * nothing is kept for the reader that has to be counted anyway. */
typedef enum pm_stat_kind {
    PM_STAT_COUNTER = 0, /* only ever grows */
    PM_STAT_GAUGE = 1,   /* goes up and down */
    PM_STAT_TIME = 2     /* how long something took, each time */
} pm_stat_kind;

/* All is borrowed until the callback returns. */
typedef struct pm_stat {
    const char *name; /* "pomelo_sessions" */
    const char *help; /* a sentence; may be NULL */
    pm_stat_kind kind;
    const char *labels; /* as Prometheus writes them: server="chat-1"; "" */
    uint64_t value;     /* PM_STAT_TIME: how many times */
    /* PM_STAT_TIME alone. A percentile is at most 1/16 too high. */
    uint64_t sum_us, max_us, p50_us, p90_us, p99_us;
} pm_stat;

/* Every number of this app and of its loop, those that are 0 included; all of
 * one name together. each returns false to stop. Returns how many were told. */
typedef bool (*pm_stat_cb)(const pm_stat *stat, void *ctx);
PM_API size_t pm_stats_each(pm_app *app, pm_stat_cb each, void *ctx);
/* The same of several apps of one loop as Prometheus's text (format 0.0.4).
 * *out is owned by the caller, free with pm_text_free. PM_EINVAL no app, or of
 * two loops; PM_ENOMEM */
PM_API pm_err pm_stats_text(pm_app *const *apps, size_t count, char **out);
/* A number of the application's own, told with all others under its label
 * "server": *out is 0 and is the application's to change, **out for short; it
 * is borrowed until the app is freed. kind: PM_STAT_COUNTER (its name ends with
 * "_total") or PM_STAT_GAUGE. name: [a-zA-Z_][a-zA-Z0-9_]*, at most 100 bytes;
 * those that begin with "pomelo_" or "process_" are the library's. help: a
 * sentence; may be NULL. Both are copied. At most 256 an app: names are chosen
 * by the program, never by its players. PM_EINVAL, PM_EEXIST, PM_ELIMIT,
 * PM_ENOMEM */
PM_API pm_err pm_app_stat(pm_app *app, pm_stat_kind kind, const char *name,
                          const char *help, uint64_t **out);

/* ==== Master and monitor ====================================================
 * Pomelo's admin protocol. An app whose type is "master" is the master: it
 * listens on its server's `port` for servers and consoles, tells every server
 * who has come and gone, and has servers started by the callbacks of
 * pm_master_opts. Every other app with opts.master.port registers there, and
 * adds to and removes from its table what it is told. Traffic never needs the
 * master: while it is away the table stays as it is. */

/* What the master knows of strangers and of its own work, since the start. */
typedef struct pm_master_counts {
    size_t size;            /* of the caller's struct, set before the call */
    uint64_t registered;    /* servers, reconnects included */
    uint64_t consoles;      /* logins */
    uint64_t refused_auth;  /* no token, a wrong one, no such user */
    uint64_t refused_json;  /* not JSON, or not an object where one is due */
    uint64_t refused_frame; /* no MQTT, or too long */
    uint64_t refused_level; /* a user without the right */
    uint64_t refused_links; /* too many at a time, or not registered in time */
    uint64_t late_removals; /* of a connection that a newer one had replaced */
    uint64_t spawned, respawned;
} pm_master_counts;
/* PM_EINVAL, PM_ESTATE this app is no master. */
PM_API pm_err pm_master_counts_get(const pm_app *app, pm_master_counts *counts);
/* A process that `spawn` has started has ended: with auto-restart it is started
 * again, also when it never came so far as to register. PM_ESTATE this app is
 * no master; PM_ENOTFOUND. */
PM_API pm_err pm_master_exited(pm_app *app, const char *server_id);
/* Is this app registered at its master (or is it the master)? */
PM_API bool pm_master_is_up(const pm_app *app);

/* ---- Modules: what can be asked over the console ----------------------- */
/* A question or a word on its way: end it exactly once, now or later, by
 * pm_admin_reply or pm_admin_fail; also when nobody waits for an answer. */
typedef struct pm_admin_call pm_admin_call;
PM_API pm_app *pm_admin_app(const pm_admin_call *call);
/* NULL: none was sent (a timer's turn). Borrowed until the call ends. */
PM_API const struct cJSON *pm_admin_body(const pm_admin_call *call);
/* The server's id or the console's user name; "" for the master and for a
 * timer. Borrowed until the call ends. */
PM_API const char *pm_admin_from(const pm_admin_call *call);
PM_API bool pm_admin_is_notify(const pm_admin_call *call);
/* body: borrowed until this call returns; may be NULL. PM_ENOTIFY (harmless),
 * PM_ECLOSED who asked is gone, PM_EDEPTH, PM_ESIZE, PM_ELIMIT, PM_ENOMEM */
PM_API pm_err pm_admin_reply(pm_admin_call *call, const struct cJSON *body);
PM_API pm_err pm_admin_fail(pm_admin_call *call, const char *detail);

/* Pomelo's admin modules. Register the same on every app. */
typedef struct pm_admin_module {
    size_t size;
    const char *id; /* copied; names like __console__ are the library's */
    /* Each may be NULL. On a server: the master asks or tells. */
    void (*monitor)(pm_admin_call *call, void *ctx);
    /* On the master: a server asks or tells. */
    void (*master)(pm_admin_call *call, void *ctx);
    /* On the master: a console asks. */
    void (*client)(pm_admin_call *call, void *ctx);
    int level; /* of the user who may ask; 0: 1, so that nothing is open by
                  mistake */
    /* With an interval: `push` runs `monitor` on every server by itself, else
     * `master` on the master; first after delay_ms. Such a call has no body. */
    uint32_t interval_ms, delay_ms;
    bool push;
} pm_admin_module;
static inline pm_admin_module pm_admin_module_default(void)
{
    pm_admin_module m = PM_ZERO;
    m.size = sizeof m;
    return m;
}
/* `module` is copied. PM_EINVAL, PM_EEXIST, PM_ESTATE (started), PM_ENOMEM */
PM_API pm_err pm_app_admin_module(pm_app *app, const pm_admin_module *module,
                                  void *ctx);

/* How a question ended. All is borrowed until the callback returns. */
typedef struct pm_admin_result {
    pm_err err; /* PM_OK; PM_EREMOTE: answered with an error; PM_ETIMEOUT;
                   PM_ECLOSED the link broke or the asker is freed; consoles:
                   PM_EAUTH not let in, PM_EDOWN no master there */
    const char *detail;        /* a sentence; never NULL */
    const struct cJSON *body;  /* may be NULL; may be there with an error */
    const struct cJSON *error; /* with PM_EREMOTE: as it came */
} pm_admin_result;
typedef void (*pm_admin_cb)(const pm_admin_result *result, void *ctx);
/* From the master to a server (its id), or from a server to the master (NULL).
 * body: borrowed until this call returns; may be NULL. cb NULL: a notify; on
 * the master server_id NULL: a notify to every server. PM_EINVAL, PM_ENOSERVER,
 * PM_EDOWN no link, PM_EDEPTH, PM_ESIZE, PM_ELIMIT, PM_ENOMEM, PM_ECLOSED: cb
 * never runs. */
PM_API pm_err pm_admin_request(pm_app *app, const char *server_id,
                               const char *module, const struct cJSON *body,
                               pm_admin_cb cb, void *ctx);

/* ---- The console's end ------------------------------------------------- */
typedef struct pm_console pm_console;
typedef struct pm_console_opts {
    size_t size;
    pm_loop *loop;                   /* borrowed until the console is freed */
    const char *host;                /* NULL: 127.0.0.1. Texts are copied */
    uint16_t port;                   /* 0: 3005 */
    const char *username, *password; /* NULL: "admin" */
    uint32_t connect_ms;             /* 0: 5,000. Connection and login */
    uint32_t request_ms;             /* 0: 30,000 */
} pm_console_opts;
static inline pm_console_opts pm_console_opts_default(void)
{
    pm_console_opts o = PM_ZERO;
    o.size = sizeof o;
    return o;
}
/* Starts to connect and to log in; what is asked meanwhile waits for it. *out
 * is owned by the caller, free with pm_console_free; `opts` is borrowed until
 * this call returns. A console that has failed, or lost its link, stays so:
 * make another one. PM_EINVAL, PM_ENOMEM, PM_ELIMIT no descriptor is left. */
PM_API pm_err pm_console_new(pm_console **out, const pm_console_opts *opts);
/* Every question completes with PM_ECLOSED before it returns. NULL is fine.
 * Legal inside its callbacks. */
PM_API void pm_console_free(pm_console *console);
/* Asks a module: "__console__" with {"signal":"list"}, "watchServer", one's
 * own. body: JSON text, borrowed until this call returns; NULL: {}. cb runs
 * once, on a later turn. PM_EINVAL (body is no object's text), PM_ELIMIT,
 * PM_ENOMEM: cb never runs. */
PM_API pm_err pm_console_request(pm_console *console, const char *module,
                                 const char *body, pm_admin_cb cb, void *ctx);
/* Pomelo's commands: "list", "enable", "disable"; module may be NULL. */
PM_API pm_err pm_console_command(pm_console *console, const char *command,
                                 const char *module, pm_admin_cb cb, void *ctx);

/* ==== Config ================================================================
 * Pomelo's files. Everything may come from memory instead. */
typedef struct pm_config pm_config;
/* Reads DIR/servers.json (or DIR/ENV/servers.json) and what lies beside it.
 * NULL env: "development". *out is owned by the caller, free with
 * pm_config_free. On failure `why` (may be NULL) gets one sentence with file,
 * line, key and what was expected. PM_ECONFIG, PM_ENOTFOUND no servers.json,
 * PM_ENOMEM */
PM_API pm_err pm_config_load(pm_config **out, const char *dir, const char *env,
                             char *why, size_t why_size);
/* The same from the text of a servers.json. */
PM_API pm_err pm_config_parse(pm_config **out, const char *servers_json,
                              const char *env, char *why, size_t why_size);
PM_API const pm_server *
pm_config_servers(const pm_config *config,
                  size_t *count); /* borrowed until freed */
/* Text of a sibling file ("serverProtos.json", "dictionary.json" ...), found by
 * the same rule and cut to the environment's part; NULL when there is none.
 * Borrowed until freed. */
PM_API const char *pm_config_file(const pm_config *config, const char *name);
PM_API void pm_config_free(pm_config *config);

/* ==== A whole process =======================================================
 * The only place that touches signals. */
typedef pm_err (*pm_configure_cb)(pm_app *app, void *ctx);
typedef struct pm_run_opts {
    size_t size;
    const pm_server *servers; /* the table, or: */
    size_t servers_count;
    const char *config_dir; /* where servers.json lies */
    const char *env;
    /* What this process plays: "connector-1,chat-1", or the id of
     * config_dir/master.json. NULL: every server of the table, and no master.
     */
    const char *ids;
    uint32_t drain_ms; /* 0: 3,000 */
    const pm_app_opts
        *app; /* connector, rpc, limits, binds for every app; NULL: defaults */
    pm_log_cb log; /* NULL: lines of PM_LOG_INFO to stderr */
    void *log_ctx;
    /* All apps run; called once. May be NULL. */
    void (*started)(pm_loop *loop, pm_app *const *apps, size_t count,
                    void *ctx);
    /* ---- Of a cluster with a master. pm_run_args fills these in. ---- */
    const char *start;   /* what the master starts: "none", a type, an id; NULL:
                            "all" */
    const char *binary;  /* the program that it starts; NULL: "binary" of
                            config_dir/pomelo.json, else `program` */
    const char *program; /* this program: argv[0] */
    /* GET /metrics tells Prometheus the numbers of all apps of this process.
     * Port 0: the first stats_port of the servers that it plays; for the master
     * or who plays all of them, "stats" of config_dir/pomelo.json; else
     * nowhere. Host NULL: "stats" of that file, else 127.0.0.1. */
    const char *stats_host;
    uint16_t stats_port;
    const char *servers_json; /* servers that are in no file, as a servers.json
                                 of their own: added at run time */
    uint32_t spin_us;         /* pm_loop_opts.spin_us */
} pm_run_opts;
static inline pm_run_opts pm_run_opts_default(void)
{
    pm_run_opts o = PM_ZERO;
    o.size = sizeof o;
    return o;
}
/* Reads --id, --env, --start and --servers from a command line: what
 * `pomelo start` and a master say to a process. Everything else is left to the
 * application; of two the last one counts. argv is borrowed until pm_run
 * returns. PM_EINVAL: one of them has no value. */
PM_API pm_err pm_run_args(pm_run_opts *opts, int argc, char **argv);
/* Makes a loop and an app for each id, calls configure(app, ctx) on each,
 * starts them, and runs until SIGINT or SIGTERM (drains for drain_ms) or a
 * second one (ends at once), or until a console has stopped them all. Returns
 * PM_OK after a stop, or why it did not start.
 *
 * With config_dir the files beside servers.json count too: dictionary.json and
 * the protos where `app` has none, log.json unless `log` is given, master.json
 * (each server whose id is given registers there) with adminServer.json and
 * adminUser.json. A master starts the other processes, as
 * `BINARY [args] --env E --id I`, and stops them when it gets a signal; it also
 * serves the page of pomelo.json ("web": {"root", "host", "port"}), as does a
 * process that plays every server. A process that plays one server with `cpu`
 * is pinned to that core. */
PM_API pm_err pm_run(const pm_run_opts *opts, pm_configure_cb configure,
                     void *ctx);

/* ==== Client ================================================================
 * The other end of the wire: for bots, tests and games in C. */
typedef enum pm_transport {
    PM_TRANSPORT_TCP = 0,
    PM_TRANSPORT_WS = 1,
    PM_TRANSPORT_MEMORY = 2 /* an app on the same loop */
} pm_transport;

/* Over TCP it is TLS, over WebSocket wss; not through memory. PEM text or paths
 * as in pm_tls_opts; copied. */
typedef struct pm_client_tls {
    bool on;
    const char *ca;   /* who is believed; NULL: the system's list */
    const char *name; /* what the certificate must be made out to, a DNS name or
                         an address; NULL: `host` */
    const char *cert, *key; /* shown to a server that asks; NULL: none */
    bool insecure;          /* talks to anybody: for tests */
} pm_client_tls;

/* Each may be NULL. */
typedef struct pm_client_events {
    /* Handshake done: requests may be sent. `user` is what the server's
     * handshake callback said; may be NULL; borrowed until the callback
     * returns. */
    void (*connected)(pm_client *client, const struct cJSON *user, void *ctx);
    /* route and body are borrowed until the callback returns. body: as with
     * pm_client_cb. */
    void (*pushed)(pm_client *client, const char *route, pm_body body,
                   void *ctx);
    /* `disconnected` follows. reason: never NULL, "" when none was told;
     * borrowed until the callback returns. */
    void (*kicked)(pm_client *client, const char *reason, void *ctx);
    /* The connection is gone, or a try to make one has failed; every request
     * has completed before. With reconnect on, it is tried again by itself,
     * unless pm_client_disconnect is called, here or before. reason:
     * PM_CLOSE_SERVER when the server has closed it. handshake_code: 500 or
     * 501 when the server refused us, else 0. Not called by pm_client_free. */
    void (*disconnected)(pm_client *client, pm_close_reason reason,
                         int handshake_code, void *ctx);
    /* With `resume`, in the place of disconnected: the connection is gone, the
     * session is not. Requests go on waiting, new ones may be made. Then
     * `resumed` comes; or disconnected, when it has not come about in the
     * server's time; or, with PM_CLOSE_RESUME, disconnected and connected: the
     * server has begun another session. */
    void (*suspended)(pm_client *client, pm_close_reason reason, void *ctx);
    void (*resumed)(pm_client *client, void *ctx);
} pm_client_events;

typedef struct pm_client_opts {
    size_t size;
    pm_loop *loop;          /* borrowed until the client is freed */
    pm_transport transport; /* on a memory_only loop always through memory */
    const char *host;       /* copied; NULL: 127.0.0.1 */
    uint16_t port;
    const char *type, *version; /* sys.type, sys.version; copied; NULL: "c",
                                   PM_VERSION */
    const struct cJSON *user;   /* handshake's user part; copied; may be NULL */
    bool reconnect;             /* with back-off and jitter, 100 ms to 10 s */
    bool resume; /* with reconnect: the session goes on by the next connection,
                    where the server has connector.resume_ms: nothing is lost,
                    doubled or out of order. `user` must be an object or NULL */
    uint32_t connect_ms; /* 0: 10,000. Connection and handshake together */
    uint32_t request_ms; /* 0: 30,000 */
    pm_client_events events;
    void *ctx;
    pm_client_tls tls; /* a handshake that fails: `disconnected` with
                          PM_CLOSE_TLS, and a warning in the loop's log */
} pm_client_opts;
static inline pm_client_opts pm_client_opts_default(void)
{
    pm_client_opts o = PM_ZERO;
    o.size = sizeof o;
    return o;
}

/* Starts to connect. *out is owned by the caller, free with pm_client_free;
 * `opts` is borrowed until this call returns. PM_EINVAL, PM_EDEPTH the user
 * part, PM_ENOMEM, PM_ELIMIT no descriptor is left, PM_ECONFIG a certificate
 * (see the loop's log). */
PM_API pm_err pm_client_new(pm_client **out, const pm_client_opts *opts);
/* Every request completes with PM_ECLOSED before it returns; no other event
 * comes. NULL is fine. Legal inside its callbacks. */
PM_API void pm_client_free(pm_client *client);
/* Ends the connection (and trying again) for good; `disconnected` comes on a
 * later turn if there was one, or a try. */
PM_API void pm_client_disconnect(pm_client *client);
PM_API bool pm_client_is_connected(const pm_client *client);
/* err: PM_OK, PM_ECLOSED, PM_ETIMEOUT; an answer that can not be read:
 * PM_EPROTOBUF, PM_EDEPTH, PM_ENUL, PM_ENOMEM. body: PM_OK's answer, borrowed
 * until the callback returns; of kind JSON: made by the route's schema, or the
 * server's bytes as they came; else of kind NONE. */
typedef void (*pm_client_cb)(pm_client *client, pm_err err, pm_body body,
                             void *ctx);
/* route: 1..255 bytes. A body of kind JSON is encoded by the route's schema
 * when the server has sent one; others go as they are. Both are borrowed until
 * the call returns. PM_ESTATE not connected (and no session that is being
 * resumed: then it is kept until it is); PM_EINVAL; PM_EPROTOBUF, PM_EJSON,
 * PM_EDEPTH, PM_ENUL a body that its schema can not encode; PM_ESIZE; PM_ELIMIT
 * too much is queued or waits for its answer; PM_ENOMEM. */
PM_API pm_err pm_client_request(pm_client *client, const char *route,
                                pm_body body, pm_client_cb cb, void *ctx);
/* The same without an answer. */
PM_API pm_err pm_client_notify(pm_client *client, const char *route,
                               pm_body body);

/* ==== Bodies: helpers =================================================== */
static inline pm_slice pm_bytes(const void *data, size_t len)
{
    pm_slice s;
    s.data = data;
    s.len = len;
    return s;
}
static inline pm_slice pm_text(const char *text)
{
    pm_slice s;
    s.data = text;
    s.len = 0;
    if (text)
        while (text[s.len])
            s.len++;
    return s;
}
/* JSON text. Borrowed like every slice. */
static inline pm_body pm_body_text(const char *json)
{
    pm_body b;
    b.kind = json ? PM_BODY_JSON : PM_BODY_NONE;
    b.data = pm_text(json);
    return b;
}
static inline pm_body pm_body_bytes(const void *data, size_t len)
{
    pm_body b;
    b.kind = PM_BODY_BYTES;
    b.data = pm_bytes(data, len);
    return b;
}
static inline pm_body pm_body_none(void)
{
    pm_body b;
    b.kind = PM_BODY_NONE;
    b.data = pm_bytes(NULL, 0);
    return b;
}
static inline pm_param pm_param_none(void)
{
    pm_param p;
    p.kind = PM_PARAM_NONE;
    p.as.integer = 0;
    return p;
}
static inline pm_param pm_param_integer(int64_t integer)
{
    pm_param p;
    p.kind = PM_PARAM_INTEGER;
    p.as.integer = integer;
    return p;
}
static inline pm_param pm_param_string(const char *string)
{
    pm_param p;
    p.kind = PM_PARAM_STRING;
    p.as.string = string;
    return p;
}
static inline pm_param pm_param_session(const pm_session *session)
{
    pm_param p;
    p.kind = PM_PARAM_SESSION;
    p.as.session = session;
    return p;
}
/* A tree as JSON text, as JavaScript prints it, 0 at its end. *out is owned by
 * the caller, free with pm_text_free. PM_EDEPTH, PM_ENOMEM */
PM_API pm_err pm_json_text(const struct cJSON *tree, char **out);
PM_API void pm_text_free(char *text);
/* JSON text to a tree, strict. *out is owned by the caller, free with
 * cJSON_Delete. PM_EJSON, PM_EDEPTH, PM_ENUL, PM_ENOMEM */
PM_API pm_err pm_json_tree(pm_slice text, struct cJSON **out);

/* ---- Typed bodies: nanopb ------------------------------------------------
 * Only for those who include pb_decode.h or pb_encode.h in front of this
 * header: it is their nanopb that is used. `fields` is what PB_BIND or nanopb's
 * generator makes, `message` the struct that belongs to it. */
#ifdef PB_DECODE_H_INCLUDED
/* Any body's bytes, whatever its kind. PM_EPROTOBUF */
static inline pm_err pm_body_decode(pm_body body, const pb_msgdesc_t *fields,
                                    void *message)
{
    pb_istream_t in = pb_istream_from_buffer((const pb_byte_t *)body.data.data,
                                             body.data.len);
    return pb_decode(&in, fields, message) ? PM_OK : PM_EPROTOBUF;
}
/* Inside the handler, or later after pm_request_keep. PM_EPROTOBUF */
static inline pm_err pm_request_decode(const pm_request *req,
                                       const pb_msgdesc_t *fields,
                                       void *message)
{
    return pm_body_decode(pm_request_body(req), fields, message);
}
#endif
#ifdef PB_ENCODE_H_INCLUDED
/* The body lies in `room`; nanopb's NAME_size bytes are always enough.
 * PM_EPROTOBUF: it is not, or a field can not be written. */
static inline pm_err pm_body_encode(const pb_msgdesc_t *fields,
                                    const void *message, void *room,
                                    size_t room_bytes, pm_body *out)
{
    pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)room, room_bytes);
    if (!pb_encode(&stream, fields, message))
        return PM_EPROTOBUF;
    *out = pm_body_bytes(room, stream.bytes_written);
    return PM_OK;
}
/* Ends the request, as pm_reply_bytes does, whatever is returned; `room` as
 * above, borrowed until this call returns. PM_EPROTOBUF: the client gets
 * {"code":500}. */
static inline pm_err pm_reply_encode(pm_request *req,
                                     const pb_msgdesc_t *fields,
                                     const void *message, void *room,
                                     size_t room_bytes)
{
    pm_body body = pm_body_none();
    pm_err err = pm_body_encode(fields, message, room, room_bytes, &body);
    if (err == PM_OK)
        return pm_reply_body(req, body);
    pm_request_fail(req, err, "the answer does not fit its message", NULL);
    return err;
}
#endif

#ifdef __cplusplus
}
#endif
#endif
