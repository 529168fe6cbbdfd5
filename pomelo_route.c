/* SPDX-License-Identifier: MIT */
/* pomelo_route.c -- choosing a server from a list.
 *
 * Pomelo spreads users over servers by a CRC that its clients, gates and
 * forwarding all must agree on to the bit, oddities included: JavaScript's
 * strings are UTF-16, and only the low byte of each unit is hashed.
 *
 * The ways with a key give the same server on every machine that holds the
 * same table (`def`: in the same order); those without one spread the load.
 *
 *     def         list[abs(crc(key)) mod n]: the oldest, and what gates use.
 *                 A change of n moves almost everybody.
 *     ch          Pomelo's ring: 100 points a server at md5("<id>:<i>"); a key
 *                 belongs to the last point that is not above it.
 *     rendezvous  every server draws a number for the key, the highest wins:
 *                 one that comes or goes moves its own share and no other.
 *     rr, wrr     in turn; wrr is Pomelo's, weights and order included.
 *     la          fewest in flight now. Pomelo's counts all calls ever made,
 *                 and gives everything to a server that was added later.
 *
 * Choosing is O(1) for def and rr, O(log n) for ch, O(n) for the others, n the
 * servers of one type; what ch and rendezvous hash is made once a table
 * version.
 *
 * Floor 1: knows no server, only text and numbers.
 * Start reading at pmi_route_pick(). */
#include "pomelo_route_internal.h"

#include "core/crypto.h"

/* CRC-32, reflected polynomial 0xEDB88320, half a byte at a time: sixteen
 * words stay in the cache, and uids are short. */
static const uint32_t route_crc_table[16] = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
    0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
    0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};

static inline uint32_t route_crc_byte(uint32_t crc, uint32_t byte)
{
    crc ^= byte & 0xff;
    crc = crc >> 4 ^ route_crc_table[crc & 15];
    return crc >> 4 ^ route_crc_table[crc & 15];
}

/* The next code point and its length; what is not UTF-8 counts as one
 * U+FFFD a byte. Lone surrogates in three bytes pass as themselves. */
static size_t route_code_point(const uint8_t *p, size_t left, uint32_t *out)
{
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc0 ? 2 : 1;
    uint32_t code = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    bool bad = (p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || n > left;
    for (size_t i = 1; i < n && !bad; i++) {
        bad = (p[i] & 0xc0) != 0x80;
        code = code << 6 | (p[i] & 0x3f);
    }
    *out = bad ? 0xfffd : code;
    return bad ? 1 : n;
}

int32_t pmi_route_crc_text(pm_slice utf8)
{
    const uint8_t *p = utf8.data;
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < utf8.len;) {
        uint32_t code;
        i += route_code_point(p + i, utf8.len - i, &code);
        if (code >= 0x10000) {
            crc = route_crc_byte(crc, (code - 0x10000) >> 10);
            code = (code - 0x10000) & 0x3ff;
        }
        crc = route_crc_byte(crc, code);
    }
    crc = ~crc;
    return crc > INT32_MAX ? (int32_t)(crc - INT32_MAX - 1) + INT32_MIN
                           : (int32_t)crc;
}

int32_t pmi_route_crc(const char *utf8)
{
    return pmi_route_crc_text(pm_text(utf8));
}

size_t pm_dispatch(const char *uid, size_t n)
{
    int64_t crc = pmi_route_crc(uid);
    if (n == 0)
        return 0;
    return (size_t)((uint64_t)(crc < 0 ? -crc : crc) % n);
}

/* ---- Ways without a key ------------------------------------------------ */

static bool route_is_down(const pmi_route_list *list, size_t index)
{
    return list->in_flight(list->of, index) == UINT32_MAX;
}

static pm_err route_rr(pmi_route *route, const pmi_route_list *list,
                       size_t *out)
{
    for (size_t i = 0; i < list->count; i++) {
        *out = (size_t)((route->turn + i) % list->count);
        if (!route_is_down(list, *out)) {
            route->turn += i + 1;
            return PM_OK;
        }
    }
    *out = (size_t)(route->turn++ % list->count);
    return PM_OK;
}

/* Its weight, or 0 for one that is passed over. */
static uint32_t route_weight(const pmi_route_list *list, size_t index, bool all)
{
    return all || !route_is_down(list, index) ? list->weight(list->of, index)
                                              : 0;
}

static uint32_t route_weight_max(const pmi_route_list *list, bool all)
{
    uint32_t max = 0;
    for (size_t i = 0; i < list->count; i++) {
        uint32_t weight = route_weight(list, i, all);
        max = weight > max ? weight : max;
    }
    return max;
}

/* Round after round, each on a level that is one lower than the one before; who
 * weighs at least the level has a turn. Levels end at 1 and begin again at the
 * heaviest weight, so a round always finds somebody. */
static pm_err route_wrr(pmi_route *route, const pmi_route_list *list,
                        size_t *out)
{
    bool all = false;
    uint32_t max = route_weight_max(list, all);
    if (max == 0) {
        all = true;
        max = route_weight_max(list, all);
    }
    if (max == 0)
        return PM_ENOSERVER;
    for (;;) {
        size_t at = route->wrr_at < list->count ? route->wrr_at : 0;
        if (at == 0)
            route->wrr_level = route->wrr_level ? route->wrr_level - 1 : 0;
        if (route->wrr_level == 0 || route->wrr_level > max)
            route->wrr_level = max;
        route->wrr_at = at + 1;
        if (route_weight(list, at, all) >= route->wrr_level) {
            *out = at;
            return PM_OK;
        }
    }
}

static pm_err route_la(const pmi_route_list *list, size_t *out)
{
    uint32_t fewest = list->in_flight(list->of, 0);
    *out = 0;
    for (size_t i = 1; i < list->count; i++) {
        uint32_t in_flight = list->in_flight(list->of, i);
        if (in_flight < fewest) {
            fewest = in_flight;
            *out = i;
        }
    }
    return PM_OK;
}

/* ---- Ways with a key --------------------------------------------------- */

static pm_err route_def(const pmi_route_list *list, pm_slice key, size_t *out)
{
    int64_t crc = pmi_route_crc_text(key);
    *out = (size_t)((uint64_t)(crc < 0 ? -crc : crc) % list->count);
    return PM_OK;
}

enum { ROUTE_REPLICAS = 100 };

/* Pomelo compares hex text; the bytes compare alike. */
typedef struct route_point {
    uint8_t hash[16];
    uint32_t index;
} route_point;

static bool route_point_less(const route_point *a, const route_point *b)
{
    return memcmp(a->hash, b->hash, sizeof a->hash) < 0;
}

static void route_sift(route_point *heap, size_t at, size_t count)
{
    route_point moving = heap[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count &&
            route_point_less(&heap[child], &heap[child + 1]))
            child++;
        if (!route_point_less(&moving, &heap[child]))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

/* Heap sort: in place, and no order of ids makes it slow. */
static void route_sort(route_point *points, size_t count)
{
    for (size_t i = count / 2; i-- > 0;)
        route_sift(points, i, count);
    for (size_t end = count; end-- > 1;) {
        route_point greatest = points[0];
        points[0] = points[end];
        points[end] = greatest;
        route_sift(points, 0, end);
    }
}

static void route_add_points(route_point *points, const char *id, size_t index)
{
    char text[256 + 16];
    for (size_t i = 0; i < ROUTE_REPLICAS; i++) {
        size_t len = pmi_format(text, sizeof text, "%s:%zu", id, i);
        pmi_md5(text, len, points[i].hash);
        points[i].index = (uint32_t)index;
    }
}

static pm_err route_make_ring(pmi_route *route, const pmi_route_list *list)
{
    route_point *ring;
    if (route->ring_version == list->version)
        return PM_OK;
    if (list->count > UINT32_MAX / ROUTE_REPLICAS)
        return PM_ENOMEM;
    ring = pmi_resize_array(route->env, route->ring,
                            list->count * ROUTE_REPLICAS, sizeof *ring);
    if (!ring)
        return PM_ENOMEM;
    route->ring = ring;
    for (size_t i = 0; i < list->count; i++)
        route_add_points(ring + i * ROUTE_REPLICAS, list->id(list->of, i), i);
    route_sort(ring, list->count * ROUTE_REPLICAS);
    route->ring_version = list->version;
    return PM_OK;
}

static pm_err route_ch(pmi_route *route, const pmi_route_list *list,
                       pm_slice key, size_t *out)
{
    size_t low = 0, high = list->count * ROUTE_REPLICAS;
    route_point wanted;
    pm_err err = route_make_ring(route, list);
    if (err)
        return err;
    pmi_md5(key.data, key.len, wanted.hash);
    while (low < high) { /* how many points are not above the key */
        size_t middle = low + (high - low) / 2;
        if (route_point_less(&wanted, &route->ring[middle]))
            high = middle;
        else
            low = middle + 1;
    }
    if (low == 0)
        low = list->count * ROUTE_REPLICAS;
    *out = route->ring[low - 1].index;
    return PM_OK;
}

static uint64_t route_hash(pm_slice text)
{
    uint8_t md5[16];
    pmi_md5(text.data, text.len, md5);
    return (uint64_t)pmi_get_be32(md5) << 32 | pmi_get_be32(md5 + 4);
}

/* SplitMix64's last step: each bit of the result hangs on each bit of x. */
static uint64_t route_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static pm_err route_make_hashes(pmi_route *route, const pmi_route_list *list)
{
    uint64_t *hashes;
    if (route->hashes_version == list->version)
        return PM_OK;
    hashes = pmi_resize_array(route->env, route->hashes, list->count,
                              sizeof *hashes);
    if (!hashes)
        return PM_ENOMEM;
    route->hashes = hashes;
    for (size_t i = 0; i < list->count; i++)
        hashes[i] = route_hash(pm_text(list->id(list->of, i)));
    route->hashes_version = list->version;
    return PM_OK;
}

/* The table's order does not matter: of two that draw the same, the smaller id
 * wins. */
static pm_err route_rendezvous(pmi_route *route, const pmi_route_list *list,
                               pm_slice key, size_t *out)
{
    uint64_t hash = route_hash(key), highest = 0;
    pm_err err = route_make_hashes(route, list);
    if (err)
        return err;
    *out = 0;
    for (size_t i = 0; i < list->count; i++) {
        uint64_t drawn = route_mix(hash ^ route->hashes[i]);
        if (drawn > highest ||
            (drawn == highest &&
             strcmp(list->id(list->of, i), list->id(list->of, *out)) < 0)) {
            highest = drawn;
            *out = i;
        }
    }
    return PM_OK;
}

/* ---- All of them ------------------------------------------------------- */

bool pmi_route_way_of(const char *name, pmi_route_way *out)
{
    static const char *const names[] = {"def", "rr", "wrr",
                                        "la",  "ch", "rendezvous"};
    for (size_t i = 0; i < PMI_COUNT(names); i++)
        if (!strcmp(names[i], name)) {
            *out = (pmi_route_way)i;
            return true;
        }
    return false;
}

void pmi_route_init(pmi_route *route, const pmi_env *env)
{
    memset(route, 0, sizeof *route);
    route->env = env;
}

void pmi_route_fini(pmi_route *route)
{
    pmi_free(route->env, route->ring);
    pmi_free(route->env, route->hashes);
}

pm_err pmi_route_pick(pmi_route *route, pmi_route_way way,
                      const pmi_route_list *list, pm_slice key, size_t *out)
{
    if (list->count == 0)
        return PM_ENOSERVER;
    switch (way) {
    case PMI_ROUTE_RR:
        return route_rr(route, list, out);
    case PMI_ROUTE_WRR:
        return route_wrr(route, list, out);
    case PMI_ROUTE_LA:
        return route_la(list, out);
    case PMI_ROUTE_CH:
        return route_ch(route, list, key, out);
    case PMI_ROUTE_RENDEZVOUS:
        return route_rendezvous(route, list, key, out);
    case PMI_ROUTE_DEF:
        break;
    }
    return route_def(list, key, out);
}
