/* SPDX-License-Identifier: MIT */
/* pomelo_admin_internal.h -- Pomelo's admin protocol: a link, its envelopes,
 * questions and answers. Master, monitor and console stand on it.
 *
 *     TCP | MQTT | PUBLISH topic, payload | JSON, or a JSON text of JSON
 *
 *     request   {"reqId":1,"moduleId":"m","body":{..}}
 *     response  {"respId":1,"error":..,"body":..}
 *     notify    {"moduleId":"m","body":{..}}
 *     command   {"reqId":1,"command":"list","moduleId":"m","body":{..}}
 *
 * topics: register, reconnect, reconnect_ok; then monitor or client. */
#ifndef PMI_ADMIN_INTERNAL_H
#define PMI_ADMIN_INTERNAL_H

#include "core/conn.h"
#include "core/json.h"
#include "core/mqtt.h"
#include "pomelo_app_internal.h"

#define PMI_ADMIN_WAITS_MAX 4096
/* Before a link has registered. */
#define PMI_ADMIN_STRANGER_BYTES (64 * 1024)

typedef enum pmi_admin_kind {
    PMI_ADMIN_REGISTER,
    PMI_ADMIN_RECONNECT,
    PMI_ADMIN_RECONNECT_OK,
    PMI_ADMIN_REQUEST,
    PMI_ADMIN_NOTIFY,
    PMI_ADMIN_COMMAND
} pmi_admin_kind;

/* One message, borrowed until the listener returns, unless it takes the tree.
 */
typedef struct pmi_admin_msg {
    pmi_admin_kind kind;
    struct cJSON *tree;           /* set to NULL by who takes it */
    const struct cJSON *id;       /* reqId as it came, to be echoed so */
    const char *module, *command; /* never NULL */
    const struct cJSON *body;     /* may be NULL */
} pmi_admin_msg;

typedef struct pmi_admin_link pmi_admin_link;
typedef struct pmi_admin_ops {
    /* Dialled: the other side has said welcome. May be NULL. */
    void (*opened)(pmi_admin_link *link);
    /* Responses do not come here. Anything but NONE closes the link. */
    pm_close_reason (*heard)(pmi_admin_link *link, pmi_admin_msg *msg);
    /* Once; the link is to be freed here or later. What was asked on it has
     * completed. */
    void (*closed)(pmi_admin_link *link, pm_close_reason why);
} pmi_admin_ops;

struct pmi_admin_link {
    pm_loop *loop;
    pmi_env env; /* a copy: what is asked may outlive the app */
    pmi_conn *conn;
    const pmi_admin_ops *ops;
    void *owner, *ctx; /* the listener's */
    pmi_link in_owner;
    pmi_timer timer;   /* the listener's */
    pmi_map waits;     /* our number -> who waits for its answer */
    pmi_link calls;    /* pm_admin_call: what is asked of us */
    const char *topic; /* static: "monitor" or "client" */
    uint64_t last_id, heard_us;
    size_t in_max;
    pmi_task grave;
    bool dialled;
    bool connected; /* CONNECT or CONNACK was heard */
    bool left;      /* DISCONNECT was heard: it went on purpose */
    bool freed;
};

/* Takes an accepted connection, or dials. PM_ENOMEM (the connection is the
 * caller's still), PM_ELIMIT. */
pm_err pmi_admin_accept(pm_loop *loop, const pmi_env *env, pmi_conn *conn,
                        size_t in_max, const pmi_admin_ops *ops, void *owner,
                        pmi_admin_link **out);
pm_err pmi_admin_dial(pm_loop *loop, const pmi_env *env,
                      const pmi_connect_opts *opts, const pmi_admin_ops *ops,
                      void *owner, pmi_admin_link **out);
/* What is asked on it completes with PM_ECLOSED before this returns; `closed`
 * does not come. NULL is fine. */
void pmi_admin_link_free(pmi_admin_link *link);
/* Says DISCONNECT and closes; `closed` comes on a later turn. */
void pmi_admin_leave(pmi_admin_link *link, pm_close_reason why);
pm_err pmi_admin_ping(pmi_admin_link *link);

/* One JSON text as a message of this topic. twice: as a text of its own. */
pm_err pmi_admin_publish(pmi_admin_link *link, const char *topic, pm_slice json,
                         bool twice);
/* body: JSON text. cb NULL: a notify. command may be NULL. PM_ECLOSED,
 * PM_ESIZE, PM_ELIMIT, PM_ENOMEM: cb never runs. */
pm_err pmi_admin_ask(pmi_admin_link *link, const char *command,
                     const char *module, pm_slice body, uint32_t timeout_ms,
                     pm_admin_cb cb, void *ctx);

/* ---- Being asked ------------------------------------------------------- */
struct pm_admin_call {
    pm_app *app; /* NULL: it has gone */
    pm_loop *loop;
    pmi_admin_link *link; /* NULL: it has gone, or there was none */
    pmi_link in_link;     /* the link's */
    pmi_link in_app;      /* the module table's: for when the app goes */
    struct cJSON *tree;
    const struct cJSON *id, *body;
    int level; /* of the console's user; 0 for servers */
    bool notify;
    char from[256];
};
/* Takes the message's tree. NULL: no memory. */
pm_admin_call *pmi_admin_call_new(pm_app *app, pmi_admin_link *link,
                                  pmi_admin_msg *msg, const char *from);
/* Ends the call. Both are JSON texts; error empty: null; body empty: none. */
pm_err pmi_admin_answer(pm_admin_call *call, pm_slice error, pm_slice body);
/* A body without an error; or, when it has failed, that there is no memory. */
void pmi_admin_answer_buf(pm_admin_call *call, const pmi_buf *body);
/* A message as JavaScript's string, and as its Error. */
pm_err pmi_admin_answer_word(pm_admin_call *call, const char *fmt, ...)
    PMI_PRINTF(2, 3);
/* The app goes: what is not answered yet knows it no more. */
void pmi_admin_calls_orphan(pmi_link *calls);

/* ---- JSON -------------------------------------------------------------- */
/* The text of a member that is a string, else NULL. */
const char *pmi_admin_text(const struct cJSON *object, const char *name);
/* A whole number, or digits in quotes, up to max; 0 when there is none. */
uint64_t pmi_admin_number(const struct cJSON *object, const char *name,
                          uint64_t max);
/* Appends `"name":"text"`; with a comma in front unless `out` ends with a
 * bracket. */
void pmi_admin_put(pmi_buf *out, const char *name, const char *text);
/* "true", or true itself: so Pomelo's arguments say it. */
bool pmi_admin_flag(const struct cJSON *object, const char *name);
/* What a server says of itself, as an entry of the table; texts lie in `info`,
 * raw is left NULL. False: no id, no type, or one that is too long. */
bool pmi_admin_server(const struct cJSON *info, pm_server *out);

#endif
