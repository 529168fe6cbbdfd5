/* SPDX-License-Identifier: MIT */
/* pomelo_channel.c -- named groups of players, and what is said to many.
 *
 *   channel --+-- members: uid -> ring of its memberships, and all in order
 *             +-- groups: frontend id -> its members, in order
 *                           +-- the list of their uids as it travels, kept
 *                               until somebody joins or leaves
 *
 * So a push to a group that has not changed refers to finished bytes and does
 * nothing for each member. How it then gets there is pomelo_push's; who tells
 * that a member's session has closed is pomelo_presence's. Members that are
 * being looked at (pm_channel_each) stay as objects until the look is over,
 * whatever happens to them meanwhile. Start at pm_channel_add and
 * pm_channel_push. */
#include "pomelo_channel_internal.h"
#include "pomelo_presence_internal.h"
#include "pomelo_push_internal.h"

#define CHANNEL_TEXT_MAX 255 /* a name, a uid, a server's id */

struct pmi_channels {
    pm_app *app;
    const pmi_env *env; /* the loop's */
    pmi_map by_name;
    pmi_pushes pushes;
    pmi_presence presence;
    pm_channel_store store; /* size 0: none */
    void *store_ctx;
    uint64_t store_failures;
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
    struct channel_stake *stake; /* owned; NULL: it stays until it leaves */
    uint64_t number;             /* in order of joining */
    uint32_t refs;               /* 1 as a member, 1 for each look at it */
    char uid[];
} channel_member;

/* A member that leaves when its session closes. */
typedef struct channel_stake {
    pmi_stake base;
    pm_channel *channel;
    channel_member *member;
} channel_stake;

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
    bool leave_on_close;
    pm_left_cb left;
    void *left_ctx;
    char name[];
};

static void channel_free(pm_channel *channel);
static void channel_remove(pm_channel *channel, channel_member *member);
static pm_err channel_stake_new(pm_channel *channel, channel_member *member);
static void channel_stake_free(pm_channel *channel, channel_member *member);

/* ---- The module -------------------------------------------------------- */

static void channels_serve_push(pm_app *app, pm_call *call)
{
    pmi_push_serve(&pmi_app_channels(app)->pushes, call);
}

static void channels_serve_broadcast(pm_app *app, pm_call *call)
{
    pmi_push_serve_broadcast(&pmi_app_channels(app)->pushes, call);
}

static void channels_serve_presence(pm_app *app, pm_call *call)
{
    pmi_presence_serve(&pmi_app_channels(app)->presence, call);
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
    pmi_rpc_serve(rpc, PMI_OP_PRESENCE, channels_serve_presence);
    *out = channels;
    return pmi_presence_init(&channels->presence, app);
}

void pmi_channels_close(pmi_channels *channels)
{
    pmi_pushes_close(&channels->pushes);
    pmi_presence_close(&channels->presence);
}

void pmi_channels_free(pmi_channels *channels)
{
    if (!channels)
        return;
    pmi_channels_close(channels);
    pmi_map_walk walk = pmi_map_begin(&channels->by_name);
    while (pmi_map_next(&walk))
        channel_free(walk.value);
    pmi_presence_fini(&channels->presence);
    pmi_pushes_fini(&channels->pushes);
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

const pmi_presence *pmi_channels_presence(const pmi_channels *channels)
{
    return &channels->presence;
}

uint64_t pmi_channels_store_failures(const pmi_channels *channels)
{
    return channels->store_failures;
}

/* ---- The store --------------------------------------------------------- */

typedef enum store_change {
    STORE_ADD,
    STORE_REMOVE,
    STORE_REMOVE_ALL
} store_change;

static pm_err store_call(const pmi_channels *channels, store_change what,
                         const char *name, const pm_receiver *member)
{
    const pm_channel_store *store = &channels->store;
    pm_app *app = channels->app;
    void *ctx = channels->store_ctx;
    if (what == STORE_ADD)
        return store->add ? store->add(app, name, member, ctx) : PM_OK;
    if (what == STORE_REMOVE)
        return store->remove ? store->remove(app, name, member, ctx) : PM_OK;
    return store->remove_all ? store->remove_all(app, name, ctx) : PM_OK;
}

/* It may do anything in there, free the app included: whoever calls this
 * touches nothing afterwards, or stands inside the loop himself. */
static void store_tell(pmi_channels *channels, store_change what,
                       const char *channel, const pm_receiver *member)
{
    pm_loop *loop = pm_app_loop(channels->app);
    char name[CHANNEL_TEXT_MAX + 1]; /* the channel may go */
    pm_err err;
    if (!channels->store.size ||
        pmi_app_state_of(channels->app) == PMI_APP_FREED)
        return;
    pmi_format(name, sizeof name, "%s", channel);
    pmi_loop_enter(loop);
    err = store_call(channels, what, name, member);
    if (err) {
        channels->store_failures++;
        PMI_LOG(pmi_app_env(channels->app), PM_LOG_ERROR, "channel",
                "the store failed for channel \"%s\": %s", name,
                pm_strerror(err));
    }
    pmi_loop_leave(loop);
}

static pm_err store_load(pm_app *app, void *ctx)
{
    pmi_channels *channels = pmi_app_channels(app);
    pm_err err;
    (void)ctx;
    if (!channels->store.load)
        return PM_OK;
    err = channels->store.load(app, channels->store_ctx);
    if (err)
        channels->store_failures++;
    return err;
}

pm_err pm_app_channel_store(pm_app *app, const pm_channel_store *store,
                            void *ctx)
{
    const pm_component part = {.name = "channel store", .start = store_load};
    pmi_channels *channels = pmi_app_channels(app);
    pm_err err;
    if (!store || store->size != sizeof *store)
        return PM_EINVAL;
    err = pm_app_component(app, &part, NULL);
    if (err)
        return err;
    channels->store = *store;
    channels->store_ctx = ctx;
    return PM_OK;
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

static pm_channel *channel_called(const pmi_channels *channels,
                                  const char *name)
{
    return pmi_map_get(&channels->by_name, pm_text(name));
}

/* The store is told of a new one, and may take it away again. */
static pm_channel *channel_make(pmi_channels *channels, const char *name)
{
    pm_app *app = channels->app;
    pm_loop *loop = pm_app_loop(app);
    pm_channel *channel = channel_new(channels, name);
    if (!channel || !channels->store.size)
        return channel;
    pmi_loop_enter(loop);
    store_tell(channels, STORE_ADD, channel->name, NULL);
    channel = pmi_app_state_of(app) == PMI_APP_FREED
                  ? NULL
                  : channel_called(channels, name);
    pmi_loop_leave(loop);
    return channel;
}

pm_channel *pm_channel_get(pm_app *app, const char *name, bool create)
{
    pmi_channels *channels = pmi_app_channels(app);
    pm_channel *channel;
    if (!channel_text_fits(name))
        return NULL;
    channel = channel_called(channels, name);
    return channel || !create ? channel : channel_make(channels, name);
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

/* One who is not in yet. */
static pm_err channel_join(pm_channel *channel, const char *uid,
                           const char *frontend_id)
{
    channel_group *group;
    channel_member *member;
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
    if (channel->leave_on_close && channel_stake_new(channel, member)) {
        channel_remove(channel, member);
        return PM_ENOMEM;
    }
    return PM_OK;
}

/* *joined: there was no such member before. */
static pm_err channel_add(pm_channel *channel, const char *uid,
                          const char *frontend_id, bool *joined)
{
    channel_member *member;
    pm_err err;
    *joined = false;
    if (!channel_text_fits(uid) || !channel_text_fits(frontend_id))
        return PM_EINVAL;
    member = channel_find(channel, uid, frontend_id);
    if (member) { /* word that the session has closed may be on its way */
        if (member->stake)
            pmi_presence_ask_anew(&channel->owner->presence,
                                  &member->stake->base);
        return PM_OK;
    }
    err = channel_join(channel, uid, frontend_id);
    *joined = err == PM_OK;
    return err;
}

pm_err pm_channel_add(pm_channel *channel, const char *uid,
                      const char *frontend_id)
{
    pm_receiver member = {uid, frontend_id};
    bool joined;
    pm_err err = channel_add(channel, uid, frontend_id, &joined);
    if (joined)
        store_tell(channel->owner, STORE_ADD, channel->name, &member);
    return err;
}

pm_err pm_channel_restore(pm_app *app, const char *channel, const char *uid,
                          const char *frontend_id)
{
    pmi_channels *channels = pmi_app_channels(app);
    pm_channel *found;
    bool joined;
    if (!channel_text_fits(channel))
        return PM_EINVAL;
    found = channel_called(channels, channel);
    if (!found)
        found = channel_new(channels, channel);
    if (!found)
        return PM_ENOMEM;
    return uid ? channel_add(found, uid, frontend_id, &joined) : PM_OK;
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
    channel_stake_free(channel, member);
    channel_leave_ring(channel, member);
    pmi_list_remove(&member->in_channel);
    pmi_list_remove(&member->in_group);
    channel->count--;
    group->count--;
    channel_group_changed(group);
    channel_group_tidy(channel, group);
    channel_let_go(channel->owner->env, member);
}

/* Out, and the store is told: its names last as long as that takes. */
static void channel_drop(pm_channel *channel, channel_member *member)
{
    pmi_channels *channels = channel->owner;
    const pmi_env *env = channels->env;
    pm_loop *loop = pm_app_loop(channels->app);
    pm_receiver was = {member->uid, member->group->frontend_id};
    pmi_loop_enter(loop);
    member->refs++;
    channel_remove(channel, member);
    store_tell(channels, STORE_REMOVE, channel->name, &was);
    channel_let_go(env, member);
    pmi_loop_leave(loop);
}

pm_err pm_channel_leave(pm_channel *channel, const char *uid,
                        const char *frontend_id)
{
    channel_member *member =
        uid && frontend_id ? channel_find(channel, uid, frontend_id) : NULL;
    if (!member)
        return PM_ENOTFOUND;
    channel_drop(channel, member);
    return PM_OK;
}

static void channel_free(pm_channel *channel)
{
    const pmi_env *env = channel->owner->env;
    pmi_link *node;
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

void pm_channel_destroy(pm_channel *channel)
{
    char name[CHANNEL_TEXT_MAX + 1];
    pmi_channels *channels;
    if (!channel)
        return;
    channels = channel->owner;
    pmi_format(name, sizeof name, "%s", channel->name);
    channel_free(channel);
    store_tell(channels, STORE_REMOVE_ALL, name, NULL);
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

/* ---- Leaving when the session closes ----------------------------------- */

static void channel_stake_free(pm_channel *channel, channel_member *member)
{
    if (!member->stake)
        return;
    pmi_presence_drop(&channel->owner->presence, &member->stake->base);
    pmi_free(channel->owner->env, member->stake);
    member->stake = NULL;
}

/* The member is out before anybody is told; then the channel, and the app, may
 * go. */
static void channel_member_gone(pmi_stake *base)
{
    channel_stake *stake = PMI_OUTER(base, channel_stake, base);
    pm_channel *channel = stake->channel;
    channel_member *member = stake->member;
    pmi_channels *channels = channel->owner;
    pm_receiver was = {member->uid, member->group->frontend_id};
    char name[CHANNEL_TEXT_MAX + 1];
    pmi_format(name, sizeof name, "%s", channel->name);
    member->refs++;
    channel_drop(channel, member);
    /* The store may have had ideas of its own. */
    if (pmi_app_state_of(channels->app) != PMI_APP_FREED &&
        channel_called(channels, name) == channel && channel->left)
        channel->left(channel, &was, channel->left_ctx);
    channel_let_go(channels->env, member);
}

static pm_err channel_stake_new(pm_channel *channel, channel_member *member)
{
    pmi_channels *channels = channel->owner;
    channel_stake *stake = pmi_zalloc(channels->env, sizeof *stake);
    if (!stake)
        return PM_ENOMEM;
    stake->base.gone = channel_member_gone;
    stake->channel = channel;
    stake->member = member;
    if (pmi_presence_stake(&channels->presence, &stake->base,
                           member->group->frontend_id, member->uid)) {
        pmi_free(channels->env, stake);
        return PM_ENOMEM;
    }
    member->stake = stake;
    return PM_OK;
}

static channel_member *channel_member_at(const pmi_link *node)
{
    return PMI_OUTER(node, channel_member, in_channel);
}

static void channel_stop_watching(pm_channel *channel)
{
    for (pmi_link *n = channel->all.next; n != &channel->all; n = n->next)
        channel_stake_free(channel, channel_member_at(n));
}

static pm_err channel_start_watching(pm_channel *channel)
{
    for (pmi_link *n = channel->all.next; n != &channel->all; n = n->next) {
        if (channel_stake_new(channel, channel_member_at(n))) {
            channel_stop_watching(channel);
            return PM_ENOMEM;
        }
    }
    return PM_OK;
}

pm_err pm_channel_leave_on_close(pm_channel *channel, bool on, pm_left_cb left,
                                 void *ctx)
{
    pm_err err = PM_OK;
    if (pmi_app_state_of(channel->owner->app) == PMI_APP_FREED)
        return PM_ECLOSED;
    if (on && !channel->leave_on_close)
        err = channel_start_watching(channel);
    if (!on)
        channel_stop_watching(channel);
    if (err)
        return err;
    channel->leave_on_close = on;
    channel->left = left;
    channel->left_ctx = ctx;
    return PM_OK;
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

static const pmi_manner channel_manner = {PM_PUSH_DEFAULT, {NULL, 0}};

static pm_err channel_push(pm_channel *channel, const char *route, pm_body body,
                           const pmi_manner *manner, pm_push_cb cb, void *ctx)
{
    pmi_push_job *job;
    pm_err err = pmi_push_open(&channel->owner->pushes, cb, ctx, &job);
    if (err)
        return err;
    pmi_push_in_manner(job, manner);
    return channel_go(job, channel_push_groups(channel, job), route, body);
}

pm_err pm_channel_push(pm_channel *channel, const char *route, pm_body body,
                       pm_push_cb cb, void *ctx)
{
    return channel_push(channel, route, body, &channel_manner, cb, ctx);
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

static pm_err channel_push_named(pm_app *app, const char *route, pm_body body,
                                 const pm_receiver *receivers, size_t count,
                                 const pmi_manner *manner, pm_push_cb cb,
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
    pmi_push_in_manner(job, manner);
    pmi_map_init(&lists, channels->env, key->k0, key->k1);
    err = channel_sort(&lists, receivers, count);
    listed = channel_push_lists(&lists, job);
    pmi_map_fini(&lists);
    return channel_go(job, err ? err : listed, route, body);
}

pm_err pm_push_uids(pm_app *app, const char *route, pm_body body,
                    const pm_receiver *receivers, size_t count, pm_push_cb cb,
                    void *ctx)
{
    return channel_push_named(app, route, body, receivers, count,
                              &channel_manner, cb, ctx);
}

static pm_err channel_push_one(const pm_push_opts *opts,
                               const pmi_manner *manner, pm_push_cb cb)
{
    if (cb || opts->channel || opts->receivers_count)
        return PM_EINVAL;
    return pmi_session_push(opts->session, opts->route, opts->body, manner);
}

pm_err pm_push(pm_app *app, const pm_push_opts *opts, pm_push_cb cb, void *ctx)
{
    pmi_manner manner;
    pm_err err;
    if (!opts || opts->size != sizeof *opts)
        return PM_EINVAL;
    err = pmi_manner_make(opts->policy, opts->key, &manner);
    if (err)
        return err;
    if (opts->session)
        return channel_push_one(opts, &manner, cb);
    if (!opts->channel)
        return channel_push_named(app, opts->route, opts->body, opts->receivers,
                                  opts->receivers_count, &manner, cb, ctx);
    if (opts->receivers_count)
        return PM_EINVAL;
    return channel_push(opts->channel, opts->route, opts->body, &manner, cb,
                        ctx);
}

static pm_err channel_broadcast(pmi_channels *channels,
                                const pm_broadcast_opts *opts,
                                const pmi_manner *manner, pm_push_cb cb,
                                void *ctx)
{
    const pmi_audience audience = {opts->bound_only, opts->filter_param};
    const pmi_server_list *servers = pmi_cluster_type(
        pmi_app_cluster(channels->app), pm_text(opts->frontend_type));
    pmi_push_job *job;
    pm_err err = pmi_push_open(&channels->pushes, cb, ctx, &job);
    if (err)
        return err;
    pmi_push_in_manner(job, manner);
    err = pmi_push_to_all(job, &audience);
    for (size_t i = 0; !err && servers && i < servers->count; i++)
        err = pmi_push_to_server(job, servers->at[i]->pub.id);
    return channel_go(job, err, opts->route, opts->body);
}

pm_err pm_broadcast(pm_app *app, const pm_broadcast_opts *opts, pm_push_cb cb,
                    void *ctx)
{
    pm_loop *loop = pm_app_loop(app);
    pmi_manner manner;
    pm_err err;
    if (!opts || opts->size != sizeof *opts || !opts->frontend_type ||
        pm_text(opts->filter_param).len > PMI_FILTER_PARAM_MAX)
        return PM_EINVAL;
    err = pmi_manner_make(opts->policy, opts->key, &manner);
    if (err)
        return err;
    pmi_loop_enter(loop); /* a filter of ours may free the app */
    err = channel_broadcast(pmi_app_channels(app), opts, &manner, cb, ctx);
    pmi_loop_leave(loop);
    return err;
}

void pm_app_broadcast_filter(pm_app *app, pm_broadcast_filter_cb cb, void *ctx)
{
    pmi_pushes *pushes = &pmi_app_channels(app)->pushes;
    pushes->filter = cb;
    pushes->filter_ctx = ctx;
}
