/* SPDX-License-Identifier: MIT */
/* pomelo_opts.c -- options that hold texts of their own: an app keeps copies.
 * Those of certificates may be replaced while all runs. Start at
 * pm_app_tls_reload. */
#include "pomelo_opts_internal.h"

#include "pomelo_connector_internal.h"
#include "pomelo_rpc_internal.h"

static uint32_t opts_or(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static char *opts_copy(const pmi_env *env, const char *text, pm_err *err)
{
    char *copy = text ? pmi_strdup(env, text) : NULL;
    if (text && !copy)
        *err = PM_ENOMEM;
    return copy;
}

/* ---- Certificates ------------------------------------------------------ */

void pmi_certs_copy(const pmi_env *env, pm_tls_opts *tls, pm_err *err)
{
    tls->cert = opts_copy(env, tls->cert, err);
    tls->key = opts_copy(env, tls->key, err);
    tls->ca = opts_copy(env, tls->ca, err);
}

void pmi_certs_free(const pmi_env *env, const pm_tls_opts *tls)
{
    pmi_free(env, (void *)(uintptr_t)tls->cert);
    pmi_free(env, (void *)(uintptr_t)tls->key);
    pmi_free(env, (void *)(uintptr_t)tls->ca);
}

static pm_err opts_renew_clients(pm_app *app, const pm_tls_opts *tls)
{
    return pmi_connector_renew(pmi_app_connector(app), tls);
}

static pm_err opts_renew_servers(pm_app *app, const pm_tls_opts *tls)
{
    return pmi_rpc_renew(pmi_app_rpc(app), tls);
}

/* One port's new certificate; `mine` becomes it when all of it is good. */
static pm_err opts_renew(pm_app *app, pm_tls_opts *mine,
                         const pm_tls_opts *given,
                         pm_err (*renew)(pm_app *app, const pm_tls_opts *tls))
{
    const pmi_env *env = pmi_app_env(app);
    pm_tls_opts next = given ? *given : *mine, old;
    pm_err err = PM_OK;
    if (!mine->cert)
        return given ? PM_ESTATE : PM_OK;
    if (!next.cert)
        return PM_EINVAL;
    pmi_certs_copy(env, &next, &err);
    if (err == PM_OK)
        err = renew(app, &next);
    if (err == PM_OK) {
        old = *mine;
        *mine = next;
        next = old;
    }
    pmi_certs_free(env, &next);
    return err;
}

pm_err pm_app_tls_reload(pm_app *app, const pm_tls_opts *clients,
                         const pm_tls_opts *servers)
{
    pm_tls_opts *of_clients, *of_servers;
    pm_err err, other;
    pmi_app_certs(app, &of_clients, &of_servers);
    if (pmi_app_state_of(app) == PMI_APP_FREED ||
        (!of_clients->cert && !of_servers->cert))
        return PM_ESTATE;
    err = opts_renew(app, of_clients, clients, opts_renew_clients);
    other = opts_renew(app, of_servers, servers, opts_renew_servers);
    return err ? err : other;
}

/* ---- Of a master -------------------------------------------------------- */

/* Filled as far as it came when memory ends: what is there is freed. */
static pm_err opts_copy_admin(const pmi_env *env, pm_master_opts *to,
                              const pm_master_opts *from)
{
    pm_admin_token *tokens =
        pmi_zalloc(env, from->tokens_count * sizeof *tokens);
    pm_admin_user *users = pmi_zalloc(env, from->users_count * sizeof *users);
    pm_err err = tokens && users ? PM_OK : PM_ENOMEM;
    to->tokens = tokens;
    to->users = users;
    to->tokens_count = tokens ? from->tokens_count : 0;
    to->users_count = users ? from->users_count : 0;
    for (size_t i = 0; i < to->tokens_count; i++) {
        tokens[i].type = opts_copy(env, from->tokens[i].type, &err);
        tokens[i].token = opts_copy(env, from->tokens[i].token, &err);
        if (!from->tokens[i].type || !from->tokens[i].token)
            err = PM_EINVAL;
    }
    for (size_t i = 0; i < to->users_count; i++) {
        users[i].username = opts_copy(env, from->users[i].username, &err);
        users[i].password = opts_copy(env, from->users[i].password, &err);
        users[i].level = from->users[i].level;
        if (!from->users[i].username || !from->users[i].password)
            err = PM_EINVAL;
    }
    return err;
}

pm_err pmi_master_opts_copy(const pmi_env *env, pm_master_opts *to,
                            const pm_master_opts *from)
{
    pm_err err = PM_OK;
    *to = *from;
    to->tokens = NULL;
    to->users = NULL;
    to->reconnect_ms_max = opts_or(to->reconnect_ms_max, 3000);
    to->grace_ms = opts_or(to->grace_ms, 1000);
    to->request_ms = opts_or(to->request_ms, 10000);
    to->stop_ms = opts_or(to->stop_ms, 15000);
    to->message_bytes = opts_or(to->message_bytes, 1024 * 1024);
    to->host = opts_copy(env, from->host, &err);
    to->token = opts_copy(env, from->token, &err);
    to->start = opts_copy(env, from->start, &err);
    return err ? err : opts_copy_admin(env, to, from);
}

void pmi_master_opts_free(const pmi_env *env, const pm_master_opts *opts)
{
    for (size_t i = 0; opts->tokens && i < opts->tokens_count; i++) {
        pmi_free(env, (void *)(uintptr_t)opts->tokens[i].type);
        pmi_free(env, (void *)(uintptr_t)opts->tokens[i].token);
    }
    for (size_t i = 0; opts->users && i < opts->users_count; i++) {
        pmi_free(env, (void *)(uintptr_t)opts->users[i].username);
        pmi_free(env, (void *)(uintptr_t)opts->users[i].password);
    }
    pmi_free(env, (void *)(uintptr_t)opts->tokens);
    pmi_free(env, (void *)(uintptr_t)opts->users);
    pmi_free(env, (void *)(uintptr_t)opts->host);
    pmi_free(env, (void *)(uintptr_t)opts->token);
    pmi_free(env, (void *)(uintptr_t)opts->start);
}
