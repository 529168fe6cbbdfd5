/* SPDX-License-Identifier: MIT */
/* pomelo_client_resume.c -- what a client keeps so that its session can go on
 * by another connection: the token, how many packages came, and what it sent
 * itself. docs/PROTOCOL.md tells the words. Start at pmi_client_resume_tell. */
#include "pomelo_client_internal.h"

#include <cjson/cJSON.h>

#define RESUME_BYTES_MIN 4096.0
#define RESUME_BYTES_MAX 16777216.0
#define RESUME_MS_MAX 4294967295.0

void pmi_client_resume_init(pmi_client_resume *resume, pm_loop *loop)
{
    memset(resume, 0, sizeof *resume);
    pmi_window_init(&resume->window, loop, (size_t)RESUME_BYTES_MIN);
}

void pmi_client_resume_forget(pmi_client_resume *resume)
{
    pm_loop *loop = resume->window.loop;
    pmi_window_fini(&resume->window);
    pmi_client_resume_init(resume, loop);
}

bool pmi_client_resume_survives(pm_close_reason why)
{
    switch (why) {
    case PM_CLOSE_CLIENT:
    case PM_CLOSE_KICK:
    case PM_CLOSE_PACKAGE:
    case PM_CLOSE_PACKAGE_SIZE:
    case PM_CLOSE_MESSAGE:
    case PM_CLOSE_WS:
    case PM_CLOSE_CHECK_CLIENT:
        return false;
    default:
        return true;
    }
}

void pmi_client_resume_join(pmi_buf *user)
{
    if (user->len > 2)
        user->data[0] = ',';
    else
        pmi_buf_reset(user);
    if (!user->len)
        pmi_buf_add_byte(user, '}');
}

void pmi_client_resume_tell(const pmi_client_resume *resume, pmi_buf *out)
{
    pmi_buf_add_text(out, "\"" PMI_RESUME_NAME "\":{");
    if (resume->token[0])
        pmi_buf_add_format(
            out, "\"token\":\"%s\",\"received\":%llu,\"from\":%llu",
            resume->token, (unsigned long long)resume->received,
            (unsigned long long)pmi_window_oldest(&resume->window));
    pmi_buf_add_byte(out, '}');
}

static const cJSON *client_resume_member(const cJSON *answer)
{
    return pmi_json_get(pmi_json_get(answer, "user"), PMI_RESUME_NAME);
}

bool pmi_client_resume_over(const pmi_client_resume *resume,
                            const cJSON *answer)
{
    return resume->token[0] && !pmi_json_truthy(pmi_json_get(
                                   client_resume_member(answer), "resumed"));
}

static double client_resume_number(const cJSON *member, const char *name,
                                   double min, double max)
{
    const cJSON *value = pmi_json_get(member, name);
    double number = cJSON_IsNumber(value) ? value->valuedouble : min;
    if (!(number >= min))
        return min;
    return number < max ? number : max;
}

/* The last of ours that has come there. False: it can not be. */
static bool client_resume_trim(pmi_client_resume *resume, const cJSON *member)
{
    const cJSON *received = pmi_json_get(member, "received");
    double number = cJSON_IsNumber(received) ? received->valuedouble : -1;
    double oldest = (double)pmi_window_oldest(&resume->window);
    if (!(number >= oldest - 1 && number <= (double)resume->window.last))
        return false;
    pmi_window_trim(&resume->window, (uint64_t)number);
    return true;
}

pm_err pmi_client_resume_learn(pmi_client_resume *resume, cJSON *answer,
                               bool *resumed)
{
    const cJSON *member = client_resume_member(answer);
    const cJSON *token = pmi_json_get(member, "token");
    cJSON *user = (cJSON *)(uintptr_t)pmi_json_get(answer, "user");
    *resumed = resume->token[0] != 0;
    if (*resumed && !client_resume_trim(resume, member))
        return PM_EHANDSHAKE;
    if (!cJSON_IsString(token) ||
        strlen(token->valuestring) >= sizeof resume->token)
        return *resumed ? PM_EHANDSHAKE : PM_OK; /* it can not do it */
    memcpy(resume->token, token->valuestring, strlen(token->valuestring) + 1);
    resume->window.bytes_max = (size_t)client_resume_number(
        member, "bytes", RESUME_BYTES_MIN, RESUME_BYTES_MAX);
    resume->ms = (uint32_t)client_resume_number(member, "ms", 0, RESUME_MS_MAX);
    /* The rest is the application's. */
    cJSON_Delete(cJSON_DetachItemViaPointer(user, (cJSON *)(uintptr_t)member));
    return PM_OK;
}

pm_err pmi_client_resume_replay(const pmi_client_resume *resume, pmi_conn *conn)
{
    const pmi_window *window = &resume->window;
    pm_err err = PM_OK;
    for (uint64_t n = pmi_window_oldest(window); n <= window->last && !err;
         n++) {
        pm_slice package = pmi_window_get(window, n);
        err = pmi_conn_send(conn, &package, 1, 0);
    }
    return err;
}
