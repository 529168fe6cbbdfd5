/* SPDX-License-Identifier: MIT */
/* pomelo_channel.c -- named groups of players, and what is said to many.
 *
 *   channel --+-- members: uid -> ring of its memberships, and all in order
 *             +-- groups: frontend id -> its members, in order
 *                           +-- the list of their uids as it travels, kept
 *                               until somebody joins or leaves
 *
 * So a push to a group that has not changed refers to finished bytes and does
 * nothing for each member. How it then gets there is pomelo_push's. Members
 * that are being looked at (pm_channel_each) stay as objects until the look is
 * over, whatever happens to them meanwhile. Start at pm_channel_add and
 * pm_channel_push. */
#include "pomelo_channel_internal.h"
#include "pomelo_push_internal.h"

#define CHANNEL_TEXT_MAX 255 /* a name, a uid, a server's id */

struct pmi_channels {
    pm_app *app;
    const pmi_env *env; /* the loop's */
    pmi_map by_name;
    pmi_pushes pushes;
};

/* The members on one frontend. Goes with its last member object. */
typedef struct channel_group {
    pmi_link members;
    size_t count;   /* in the list */
    size_t objects; /* that refer to it: members, and those just looked at */
    pmi_uids *uids; /* theirs, in order; NULL: to be made */
    char frontend_id[];
} channel_group;

typedef struct channel_member {
    pmi_link in_channel, in_group;
    pmi_link same_uid; /* ring of one uid's memberships */
    channel_group *group;
    uint64_t number; /* in order of joining */
    uint32_t refs;   /* 1 as a member, 1 for each look at it */
    char uid[];
} channel_member;

/* One pm_channel_each that is under way. */
typedef struct channel_walk {
    pmi_link in_channel;
    pmi_link *next; /* its member's in_channel; NULL: the channel has gone */
    uint64_t last;  /* who joins later is not visited */
} channel_walk;

struct pm_channel {
    pmi_channels *owner;
    pmi_map members; /* uid -> first member of its ring */
    pmi_map groups;
    pmi_link all; /* members in order of joining */
    pmi_link walks;
    size_t count;
    uint64_t last_number;
    char name[];
};

/* ---- The module -------------------------------------------------------- */

static void channels_serve_push(pm_app *app, pm_call *call)
{
    pmi_push_serve(&pmi_app_channels(app)->pushes, call);
}

static void channels_serve_broadcast(pm_app *app, pm_call *call)
{
    pmi_push_serve_broadcast(&pmi_app_channels(app)->pushes, call);
}

pm_err pmi_channels_new(pm_app *app, pmi_channels **out)
{
    const pmi_env *env = pmi_loop_env(pm_app_loop(app));
    pmi_channels *channels = pmi_zalloc(env, sizeof *channels);
    pmi_rpc *rpc = pmi_app_rpc(app);
    if (!channels)
        return PM_ENOMEM;
    channels->app = app;
    channels->env = env;
    pmi_loop_map_init(pm_app_loop(app), &channels->by_name);
    pmi_pushes_init(&channels->pushes, app);
    pmi_rpc_serve(rpc, PMI_OP_PUSH, channels_serve_push);
    pmi_rpc_serve(rpc, PMI_OP_BROADCAST, channels_serve_broadcast);
    *out = channels;
    return PM_OK;
}

void pmi_channels_close(pmi_channels *channels)
{
    pmi_pushes_close(&channels->pushes);
}

void pmi_channels_free(pmi_channels *channels)
{
    if (!channels)
        return;
    pmi_channels_close(channels);
    pmi_map_walk walk = pmi_map_begin(&channels->by_name);
    while (pmi_map_next(&walk))
        pm_channel_destroy(walk.value);
    pmi_map_fini(&channels->by_name);
    pmi_free(channels->env, channels);
}

void pmi_channels_each(pmi_channels *channels,
                       bool (*each)(const pm_channel *channel, void *ctx),
                       void *ctx)
{
    pmi_map_walk walk = pmi_map_begin(&channels->by_name);
    while (pmi_map_next(&walk)) {
        if (!each(walk.value, ctx)) {
            pmi_map_end(&walk);
            return;
        }
    }
}

size_t pmi_channels_count(const pmi_channels *channels)
{
    return pmi_map_count(&channels->by_name);
}

const pmi_pushes *pmi_channels_pushes(const pmi_channels *channels)
{
    return &channels->pushes;
}

/* ---- Channels ---------------------------------------------------------- */

static bool channel_text_fits(const char *text)
{
    size_t len = text ? strlen(text) : 0;
    return len > 0 && len <= CHANNEL_TEXT_MAX;
}

static pm_channel *channel_new(pmi_channels *channels, const char *name)
{
    size_t len = strlen(name) + 1;
    pm_channel *channel = pmi_zalloc(channels->env, sizeof *channel + len);
    const pmi_map *key = &channels->by_name;
    if (!channel)
        return NULL;
    channel->owner = channels;
    pmi_map_init(&channel->members, channels->env, key->k0, key->k1);
    pmi_map_init(&channel->groups, channels->env, key->k0, key->k1);
    pmi_list_init(&channel->all);
    pmi_list_init(&channel->walks);
    memcpy(channel->name, name, len);
    if (pmi_map_put(&channels->by_name, pm_text(name), channel, NULL)) {
        pmi_free(channels->env, channel);
        return NULL;
    }
    return channel;
}

pm_channel *pm_channel_get(pm_app *app, const char *name, bool create)
{
    pmi_channels *channels = pmi_app_channels(app);
    pm_channel *channel;
    if (!channel_text_fits(name))
        return NULL;
    channel = pmi_map_get(&channels->by_name, pm_text(name));
    return channel || !create ? channel : channel_new(channels, name);
}

const char *pm_channel_name(const pm_channel *channel)
{
    return channel->name;
}

size_t pm_channel_count(const pm_channel *channel)
{
    return channel->count;
}

/* ---- Members ----------------------------------------------------------- */

static void channel_let_go(const pmi_env *env, channel_member *member)
{
    channel_group *group = member->group;
    if (--member->refs)
        return;
    pmi_free(env, member);
    if (--group->objects)
        return;
    pmi_uids_unref(group->uids);
    pmi_free(env, group);
}

/* The group's list is not true any more. Whoever is still pushing to it has
 * his own reference. */
static void channel_group_changed(channel_group *group)
{
    pmi_uids_unref(group->uids);
    group->uids = NULL;
}

static channel_member *channel_next_of(const channel_member *member)
{
    return PMI_OUTER(member->same_uid.next, channel_member, same_uid);
}

static channel_member *channel_find(const pm_channel *channel, const char *uid,
                                    const char *frontend_id)
{
    channel_member *first = pmi_map_get(&channel->members, pm_text(uid));
    channel_member *member = first;
    if (!first)
        return NULL;
    do {
        if (!strcmp(member->group->frontend_id, frontend_id))
            return member;
        member = channel_next_of(member);
    } while (member != first);
    return NULL;
}

bool pm_channel_has(const pm_channel *channel, const char *uid)
{
    return uid && pmi_map_get(&channel->members, pm_text(uid));
}

static channel_group *channel_group_new(pm_channel *channel,
                                        const char *frontend_id)
{
    const pmi_env *env = channel->owner->env;
    size_t len = strlen(frontend_id) + 1;
    channel_group *group = pmi_zalloc(env, sizeof *group + len);
    if (!group)
        return NULL;
    pmi_list_init(&group->members);
    memcpy(group->frontend_id, frontend_id, len);
    if (pmi_map_put(&channel->groups, pm_text(frontend_id), group, NULL)) {
        pmi_free(env, group);
        return NULL;
    }
    return group;
}

/* A group without members leaves the channel. */
static void channel_group_tidy(pm_channel *channel, channel_group *group)
{
    if (group->count)
        return;
    pmi_map_remove(&channel->groups, pm_text(group->frontend_id));
    if (!group->objects)
        pmi_free(channel->owner->env, group);
}

static channel_member *channel_member_new(pm_channel *channel,
                                          channel_group *group, const char *uid)
{
    const pmi_env *env = channel->owner->env;
    channel_member *first = pmi_map_get(&channel->members, pm_text(uid));
    size_t len = strlen(uid) + 1;
    channel_member *member = pmi_zalloc(env, sizeof *member + len);
    if (!member)
        return NULL;
    memcpy(member->uid, uid, len);
    member->refs = 1;
    member->group = group;
    pmi_list_init(&member->same_uid);
    if (first) {
        pmi_list_add(&first->same_uid, &member->same_uid);
    } else if (pmi_map_put(&channel->members, pm_text(uid), member, NULL)) {
        pmi_free(env, member);
        return NULL;
    }
    return member;
}

pm_err pm_channel_add(pm_channel *channel, const char *uid,
                      const char *frontend_id)
{
    channel_group *group;
    channel_member *member;
    if (!channel_text_fits(uid) || !channel_text_fits(frontend_id))
        return PM_EINVAL;
    if (channel_find(channel, uid, frontend_id))
        return PM_OK;
    group = pmi_map_get(&channel->groups, pm_text(frontend_id));
    if (!group)
        group = channel_group_new(channel, frontend_id);
    if (!group)
        return PM_ENOMEM;
    member = channel_member_new(channel, group, uid);
    if (!member) {
        channel_group_tidy(channel, group);
        return PM_ENOMEM;
    }
    pmi_list_add(&channel->all, &member->in_channel);
    pmi_list_add(&group->members, &member->in_group);
    member->number = ++channel->last_number;
    group->count++;
    group->objects++;
    channel->count++;
    channel_group_changed(group);
    return PM_OK;
}

/* The next membership of the same uid takes the map's place, if there is one.
 */
static void channel_leave_ring(pm_channel *channel, channel_member *member)
{
    pm_slice uid = pm_text(member->uid);
    channel_member *next = channel_next_of(member);
    bool first = pmi_map_get(&channel->members, uid) == member;
    pmi_list_remove(&member->same_uid);
    if (!first)
        return;
    if (next == member)
        pmi_map_remove(&channel->members, uid);
    else
        pmi_map_put(&channel->members, uid, next,
                    NULL); /* exists: no memory needed */
}

static void channel_remove(pm_channel *channel, channel_member *member)
{
    channel_group *group = member->group;
    for (pmi_link *n = channel->walks.next; n != &channel->walks; n = n->next) {
        channel_walk *walk = PMI_OUTER(n, channel_walk, in_channel);
        if (walk->next == &member->in_channel)
            walk->next = member->in_channel.next;
    }
    channel_leave_ring(channel, member);
    pmi_list_remove(&member->in_channel);
    pmi_list_remove(&member->in_group);
    channel->count--;
    group->count--;
    channel_group_changed(group);
    channel_group_tidy(channel, group);
    channel_let_go(channel->owner->env, member);
}

pm_err pm_channel_leave(pm_channel *channel, const char *uid,
                        const char *frontend_id)
{
    channel_member *member =
        uid && frontend_id ? channel_find(channel, uid, frontend_id) : NULL;
    if (!member)
        return PM_ENOTFOUND;
    channel_remove(channel, member);
    return PM_OK;
}

void pm_channel_destroy(pm_channel *channel)
{
    const pmi_env *env;
    pmi_link *node;
    if (!channel)
        return;
    env = channel->owner->env;
    while ((node = pmi_list_take(&channel->walks)))
        PMI_OUTER(node, channel_walk, in_channel)->next = NULL;
    while (!pmi_list_empty(&channel->all))
        channel_remove(
            channel, PMI_OUTER(channel->all.next, channel_member, in_channel));
    pmi_map_remove(&channel->owner->by_name, pm_text(channel->name));
    pmi_map_fini(&channel->members);
    pmi_map_fini(&channel->groups);
    pmi_free(env, channel);
}

/* The channel, and the app, may go while one is looked at. */
static size_t channel_walk_on(pm_channel *channel, channel_walk *walk,
                              pm_member_cb each, void *ctx)
{
    const pmi_env *env = channel->owner->env;
    const pm_app *app = channel->owner->app;
    pmi_app_state state = pmi_app_state_of(app);
    size_t visited = 0;
    bool go_on = true;
    while (go_on && walk->next && walk->next != &channel->all) {
        channel_member *member =
            PMI_OUTER(walk->next, channel_member, in_channel);
        pm_receiver seen = {member->uid, member->group->frontend_id};
        if (member->number > walk->last)
            break;
        walk->next = member->in_channel.next;
        member->refs++;
        visited++;
        go_on = each(&seen, ctx);
        channel_let_go(env, member);
        if (state != PMI_APP_FREED && pmi_app_state_of(app) == PMI_APP_FREED)
            break; /* nobody's ctx is touched any more */
    }
    return visited;
}

size_t pm_channel_each(pm_channel *channel, pm_member_cb each, void *ctx)
{
    pm_loop *loop = pm_app_loop(channel->owner->app);
    channel_walk walk = {.next = channel->all.next,
                         .last = channel->last_number};
    size_t visited;
    pmi_loop_enter(loop);
    pmi_list_add(&channel->walks, &walk.in_channel);
    visited = channel_walk_on(channel, &walk, each, ctx);
    pmi_list_remove(&walk.in_channel);
    pmi_loop_leave(loop);
    return visited;
}

/* ---- Pushing ----------------------------------------------------------- */

/* The uids of a group as they travel: kept until the group changes. */
static pmi_uids *channel_group_uids(pm_channel *channel, channel_group *group)
{
    pmi_uids *uids = group->uids;
    if (uids)
        return uids;
    uids = pmi_uids_new(channel->owner->env, group->frontend_id);
    if (!uids)
        return NULL;
    for (pmi_link *n = group->members.next; n != &group->members; n = n->next) {
        if (pmi_uids_add(uids, PMI_OUTER(n, channel_member, in_group)->uid)) {
            pmi_uids_unref(uids);
            return NULL;
        }
    }
    group->uids = uids;
    return uids;
}

static pm_err channel_push_groups(pm_channel *channel, pmi_push_job *job)
{
    pmi_map_walk walk = pmi_map_begin(&channel->groups);
    while (pmi_map_next(&walk)) {
        pmi_uids *uids = channel_group_uids(channel, walk.value);
        if (!uids || pmi_push_to_uids(job, uids)) {
            pmi_map_end(&walk);
            return PM_ENOMEM;
        }
    }
    return PM_OK;
}

/* Sends what has been put together, or gives it up. */
static pm_err channel_go(pmi_push_job *job, pm_err err, const char *route,
                         pm_body body)
{
    if (err == PM_OK)
        return pmi_push_go(job, route, body);
    pmi_push_drop(job);
    return err;
}

pm_err pm_channel_push(pm_channel *channel, const char *route, pm_body body,
                       pm_push_cb cb, void *ctx)
{
    pmi_push_job *job;
    pm_err err = pmi_push_open(&channel->owner->pushes, cb, ctx, &job);
    if (err)
        return err;
    return channel_go(job, channel_push_groups(channel, job), route, body);
}

/* ---- Pushing to whom the caller names ---------------------------------- */

/* The list of a frontend, made when there is none. NULL: no memory. */
static pmi_uids *channel_list_of(pmi_map *lists, const char *frontend_id)
{
    pmi_uids *uids = pmi_map_get(lists, pm_text(frontend_id));
    if (uids)
        return uids;
    uids = pmi_uids_new(lists->env, frontend_id);
    if (uids && pmi_map_put(lists, pm_text(frontend_id), uids, NULL)) {
        pmi_uids_unref(uids);
        return NULL;
    }
    return uids;
}

static pm_err channel_sort(pmi_map *lists, const pm_receiver *receivers,
                           size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const pm_receiver *r = &receivers[i];
        pmi_uids *uids;
        if (!channel_text_fits(r->uid) || !channel_text_fits(r->frontend_id))
            return PM_EINVAL;
        uids = channel_list_of(lists, r->frontend_id);
        if (!uids || pmi_uids_add(uids, r->uid))
            return PM_ENOMEM;
    }
    return PM_OK;
}

static pm_err channel_push_lists(pmi_map *lists, pmi_push_job *job)
{
    pmi_map_walk walk = pmi_map_begin(lists);
    pm_err err = PM_OK;
    while (pmi_map_next(&walk)) {
        if (err == PM_OK)
            err = pmi_push_to_uids(job, walk.value);
        pmi_uids_unref(walk.value); /* the job has its own references */
    }
    return err;
}

pm_err pm_push_uids(pm_app *app, const char *route, pm_body body,
                    const pm_receiver *receivers, size_t count, pm_push_cb cb,
                    void *ctx)
{
    pmi_channels *channels = pmi_app_channels(app);
    const pmi_map *key = &channels->by_name;
    pmi_map lists; /* frontend id -> pmi_uids */
    pmi_push_job *job;
    pm_err err, listed;
    if (count && !receivers)
        return PM_EINVAL;
    err = pmi_push_open(&channels->pushes, cb, ctx, &job);
    if (err)
        return err;
    pmi_map_init(&lists, channels->env, key->k0, key->k1);
    err = channel_sort(&lists, receivers, count);
    listed = channel_push_lists(&lists, job);
    pmi_map_fini(&lists);
    return channel_go(job, err ? err : listed, route, body);
}

pm_err pm_broadcast(pm_app *app, const char *frontend_type, const char *route,
                    pm_body body, bool bound_only, pm_push_cb cb, void *ctx)
{
    pmi_channels *channels = pmi_app_channels(app);
    const pmi_server_list *servers;
    pmi_push_job *job;
    pm_err err;
    if (!frontend_type)
        return PM_EINVAL;
    err = pmi_push_open(&channels->pushes, cb, ctx, &job);
    if (err)
        return err;
    servers = pmi_cluster_type(pmi_app_cluster(app), pm_text(frontend_type));
    for (size_t i = 0; !err && servers && i < servers->count; i++)
        err = pmi_push_to_server(job, servers->at[i]->pub.id, bound_only);
    return channel_go(job, err, route, body);
}
