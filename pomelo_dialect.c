/* SPDX-License-Identifier: MIT */
/* pomelo_dialect.c -- Pomelo's protobuf schemas: JSON text to tables.
 *
 * The source is an object of routes and "message NAME"s; each is an object of
 *
 *     "OPTION TYPE FIELD": tag        and        "message NAME": { ... }
 *
 * Two things are made of it: the tables that pomelo_dialect_encode.c and
 * pomelo_dialect_decode.c work by, and the "parsed form", a JSON text that
 * goes to clients and is hashed into the version. The latter must be
 * JavaScript's to the byte, so it is first written as it comes, duplicates
 * included, and then made canonical by core/json.
 *
 * A type's name is looked up in the current message and at top level only,
 * not in what is around: so does the reference.
 *
 * Floor 1: bytes and trees only. Start reading at pmi_dialect_new(). */
#include "pomelo_dialect_internal.h"

#include "core/crypto.h"

#include <cjson/cJSON.h>

/* The parsed form nests "__messages" between a message and its own. */
#define DIALECT_TEXT_DEPTH (2 * PMI_JSON_DEPTH_MAX + 4)

/* What one message's compilation passes around. */
typedef struct dialect_build {
    pmi_dialect *dialect;
    pmi_dialect_message *message;
    pmi_buf *text;     /* the parsed form of everything, growing */
    pmi_buf tags_text; /* its "__tags", which come last */
    pmi_map tags;      /* tags in use, as JavaScript spells them */
} dialect_build;

/* One "OPTION TYPE FIELD": tag. */
typedef struct dialect_declaration {
    pmi_dialect_option option;
    pm_slice option_word, type, name;
    const cJSON *tag;
    pm_slice tag_text;
} dialect_declaration;

/* ---- Messages ---------------------------------------------------------- */
static pmi_dialect_message *dialect_message_new(pmi_dialect *dialect)
{
    pmi_dialect_message *m = pmi_zalloc(dialect->env, sizeof *m);
    if (m) {
        pmi_map_init(&m->by_tag, dialect->env, dialect->k0, dialect->k1);
        pmi_map_init(&m->by_name, dialect->env, dialect->k0, dialect->k1);
    }
    return m;
}

/* Frees a row of siblings and all inside them. Recursion is as deep as the
 * source was, which the parser has bounded. */
static void dialect_message_free(const pmi_env *env, pmi_dialect_message *m)
{
    while (m) {
        pmi_dialect_message *next = m->next;
        dialect_message_free(env, m->nested);
        for (uint32_t i = 0; i < m->count; i++)
            pmi_free(env, m->fields[i].name);
        pmi_free(env, m->fields);
        pmi_free(env, m->dense);
        pmi_map_fini(&m->by_tag);
        pmi_map_fini(&m->by_name);
        pmi_free(env, m->name);
        pmi_free(env, m);
        m = next;
    }
}

static const pmi_dialect_message *
dialect_message_find(const dialect_build *build, pm_slice type)
{
    for (pmi_dialect_message *m = build->message->nested; m; m = m->next)
        if (pmi_slice_eq(pm_text(m->name), type))
            return m;
    return pmi_map_get(&build->dialect->roots, type);
}

/* ---- Words of a declaration -------------------------------------------- */
/* Splits at single spaces, as JavaScript's split(' '); counts to at most 4. */
static size_t dialect_words(const char *text, pm_slice words[3])
{
    size_t count = 0;
    for (;;) {
        const char *space = strchr(text, ' ');
        size_t n = space ? (size_t)(space - text) : strlen(text);
        if (count < 3)
            words[count] = pm_bytes(text, n);
        if (++count > 3 || !space)
            return count;
        text = space + 1;
    }
}

static bool dialect_is(pm_slice word, const char *text)
{
    return pmi_slice_eq(word, pm_text(text));
}

static bool dialect_option_of(pm_slice word, pmi_dialect_option *out)
{
    if (dialect_is(word, "optional"))
        *out = PMI_DIALECT_OPTIONAL;
    else if (dialect_is(word, "required"))
        *out = PMI_DIALECT_REQUIRED;
    else if (dialect_is(word, "repeated"))
        *out = PMI_DIALECT_REPEATED;
    else
        return false;
    return true;
}

static pmi_dialect_type dialect_type_of(pm_slice word)
{
    static const struct {
        const char *name;
        pmi_dialect_type type;
    } known[] = {
        {"uInt32", PMI_DIALECT_UINT},   {"int32", PMI_DIALECT_SINT},
        {"sInt32", PMI_DIALECT_SINT},   {"float", PMI_DIALECT_FLOAT},
        {"double", PMI_DIALECT_DOUBLE}, {"string", PMI_DIALECT_STRING},
        {"uInt64", PMI_DIALECT_INT64},  {"sInt64", PMI_DIALECT_INT64},
    };
    for (size_t i = 0; i < PMI_COUNT(known); i++)
        if (dialect_is(word, known[i].name))
            return known[i].type;
    return PMI_DIALECT_NOTHING;
}

/* ---- Tags -------------------------------------------------------------- */
/* A tag as JavaScript would spell it as a member's name. Only numbers and
 * strings make sense; everything else keeps its JSON text. */
static pm_err dialect_tag_text(const cJSON *tag, pmi_buf *out)
{
    if (!cJSON_IsString(tag))
        return pmi_json_print(tag, PMI_JSON_DEPTH_MAX, out);
    pmi_buf_add_text(out, tag->valuestring);
    return out->failed ? PM_ENOMEM : PM_OK;
}

/* The tag that decoding finds: a whole number, spelt as JavaScript does, of at
 * most 28 bits. Other tags (false) are never met and can not be written. */
static bool dialect_tag_number(pm_slice text, uint32_t *out)
{
    const char *p = text.data;
    uint32_t value = 0;
    if (text.len == 0 || text.len > 9 || (p[0] == '0' && text.len > 1))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        value = value * 10 + (uint32_t)(p[i] - '0');
    }
    *out = value;
    return value < 1u << 28;
}

/* key = tag << 3 | wire type, as a varint. Tags past 28 bits come out
 * negative in JavaScript, which the reference can not write. */
static void dialect_make_key(pmi_dialect_field *field, uint32_t tag)
{
    static const uint8_t wires[] = {0, 0, 5, 1, 2, 2, 2, 2};
    uint32_t key = tag << 3 | wires[field->type];
    uint8_t n = 0;
    for (; key > 0x7f; key >>= 7)
        field->key[n++] = (uint8_t)(key | 0x80);
    field->key[n++] = (uint8_t)key;
    field->key_len = n;
}

static pm_err dialect_index_tag(pmi_dialect_message *m, uint32_t tag,
                                pmi_dialect_field *field)
{
    if (tag >= m->dense_count)
        return pmi_map_put_num(&m->by_tag, tag, field, NULL);
    m->dense[tag] = (uint16_t)(field - m->fields + 1);
    return PM_OK;
}

/* ---- Fields ------------------------------------------------------------ */
static void dialect_add_member(pmi_buf *out, const char *name, pm_slice value)
{
    pmi_json_add_string(out, pm_text(name));
    pmi_buf_add_byte(out, ':');
    pmi_json_add_string(out, value);
    pmi_buf_add_byte(out, ',');
}

static pm_err dialect_describe(dialect_build *build,
                               const dialect_declaration *d)
{
    pmi_buf *out = build->text, *tags = &build->tags_text;
    pmi_json_add_string(out, d->name);
    pmi_buf_add_text(out, ":{");
    dialect_add_member(out, "option", d->option_word);
    dialect_add_member(out, "type", d->type);
    pmi_buf_add_text(out, "\"tag\":");
    pm_err err = pmi_json_print(d->tag, PMI_JSON_DEPTH_MAX, out);
    pmi_buf_add_text(out, "},");
    if (tags->len)
        pmi_buf_add_byte(tags, ',');
    pmi_json_add_string(tags, d->tag_text);
    pmi_buf_add_byte(tags, ':');
    pmi_json_add_string(tags, d->name);
    return err;
}

/* The field of this name: the one that a later declaration replaces in place
 * (its old tag goes on meaning it), or the next free one. */
static pm_err dialect_field_of(dialect_build *build, pm_slice name,
                               pmi_dialect_field **out)
{
    pmi_dialect_message *m = build->message;
    pmi_dialect_field *field = pmi_map_get(&m->by_name, name);
    if (!field) {
        field = &m->fields[m->count];
        field->name = pmi_strndup(build->dialect->env, name.data, name.len);
        if (!field->name)
            return PM_ENOMEM;
        m->count++;
        pm_err err = pmi_map_put(&m->by_name, name, field, NULL);
        if (err != PM_OK)
            return err;
    }
    *out = field;
    return PM_OK;
}

static pm_err dialect_compile_field(dialect_build *build,
                                    const dialect_declaration *d)
{
    pmi_dialect_field *field;
    uint32_t tag;
    pm_err err = dialect_field_of(build, d->name, &field);
    if (err != PM_OK)
        return err;
    field->option = d->option;
    field->type = dialect_type_of(d->type);
    field->message = NULL;
    if (field->type == PMI_DIALECT_NOTHING) {
        field->message = dialect_message_find(build, d->type);
        if (field->message)
            field->type = PMI_DIALECT_MESSAGE;
    }
    field->key_len = 0;
    if (!dialect_tag_number(d->tag_text, &tag))
        return PM_OK;
    dialect_make_key(field, tag);
    return dialect_index_tag(build->message, tag, field);
}

/* What is no declaration, and a tag that is taken, are passed over. So is the
 * name "__proto__", which never becomes a member in JavaScript. */
static pm_err dialect_declare(dialect_build *build, const cJSON *item)
{
    pm_slice words[3];
    dialect_declaration d = {.tag = item};
    pmi_buf text;
    if (dialect_words(item->string, words) != 3 ||
        !dialect_option_of(words[0], &d.option) ||
        dialect_is(words[2], "__proto__"))
        return PM_OK;
    d.option_word = words[0];
    d.type = words[1];
    d.name = words[2];
    pmi_buf_init(&text, build->dialect->env, SIZE_MAX);
    pm_err err = dialect_tag_text(item, &text);
    d.tag_text = pmi_buf_slice(&text);
    if (err == PM_OK && !pmi_map_get(&build->tags, d.tag_text)) {
        err = pmi_map_put(&build->tags, d.tag_text, build, NULL);
        if (err == PM_OK)
            err = dialect_describe(build, &d);
        if (err == PM_OK)
            err = dialect_compile_field(build, &d);
    }
    pmi_buf_fini(&text);
    return err;
}

/* ---- One message ------------------------------------------------------- */
static pm_err dialect_compile(pmi_dialect *dialect, pmi_dialect_message *m,
                              const cJSON *source, pmi_buf *text);

/* The messages inside are made first, so that fields find them by name. */
static pm_err dialect_make_nested(dialect_build *build, const cJSON *source)
{
    pmi_dialect_message **end = &build->message->nested;
    const cJSON *item;
    cJSON_ArrayForEach(item, source)
    {
        pm_slice words[3];
        if (dialect_words(item->string, words) != 2 ||
            !dialect_is(words[0], "message"))
            continue;
        pmi_dialect_message *m = dialect_message_new(build->dialect);
        if (!m)
            return PM_ENOMEM;
        *end = m;
        end = &m->next;
        m->name = pmi_strndup(build->dialect->env, words[1].data, words[1].len);
        if (!m->name)
            return PM_ENOMEM;
    }
    return PM_OK;
}

static pm_err dialect_compile_nested(dialect_build *build, const cJSON *source)
{
    pmi_dialect_message *m = build->message->nested;
    pm_err err = PM_OK;
    const cJSON *item;
    pmi_buf_add_text(build->text, "\"__messages\":{");
    cJSON_ArrayForEach(item, source)
    {
        pm_slice words[3];
        if (dialect_words(item->string, words) != 2 ||
            !dialect_is(words[0], "message"))
            continue;
        if (m != build->message->nested)
            pmi_buf_add_byte(build->text, ',');
        pmi_json_add_string(build->text, words[1]);
        pmi_buf_add_byte(build->text, ':');
        err = dialect_compile(build->dialect, m, item, build->text);
        if (err != PM_OK)
            return err;
        m = m->next;
    }
    pmi_buf_add_text(build->text, "},\"__tags\":{");
    pmi_buf_add(build->text, build->tags_text.data, build->tags_text.len);
    pmi_buf_add_text(build->text, "}}");
    if (build->tags_text.failed || build->text->failed)
        return PM_ENOMEM;
    return PM_OK;
}

/* Room for every declaration there may be: fields never move, since the maps
 * point to them. */
static pm_err dialect_make_room(dialect_build *build, const cJSON *source)
{
    const pmi_env *env = build->dialect->env;
    pmi_dialect_message *m = build->message;
    uint32_t count = 0, dense = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, source)
    {
        count++;
        if (cJSON_IsNumber(item) && item->valuedouble >= dense &&
            item->valuedouble < PMI_DIALECT_DENSE_MAX)
            dense = (uint32_t)item->valuedouble + 1;
    }
    m->fields = pmi_resize_array(env, NULL, count, sizeof *m->fields);
    if (!m->fields)
        return PM_ENOMEM;
    memset(m->fields, 0, count * sizeof *m->fields);
    if (count >= UINT16_MAX || dense == 0)
        return PM_OK;
    m->dense = pmi_zalloc(env, dense * sizeof *m->dense);
    m->dense_count = m->dense ? dense : 0;
    return m->dense ? PM_OK : PM_ENOMEM;
}

static pm_err dialect_compile_members(dialect_build *build, const cJSON *source)
{
    pmi_dialect_message *m = build->message;
    const cJSON *item;
    pm_err err = dialect_make_room(build, source);
    if (err == PM_OK)
        err = dialect_make_nested(build, source);
    if (err != PM_OK)
        return err;
    pmi_buf_add_byte(build->text, '{');
    cJSON_ArrayForEach(item, source)
    {
        err = dialect_declare(build, item);
        if (err != PM_OK)
            return err;
    }
    for (uint32_t i = 0; i < m->count; i++)
        if (m->fields[i].option == PMI_DIALECT_REQUIRED)
            m->fields[i].required = m->required_count++;
    return dialect_compile_nested(build, source);
}

static pm_err dialect_compile(pmi_dialect *dialect, pmi_dialect_message *m,
                              const cJSON *source, pmi_buf *text)
{
    dialect_build build = {dialect, m, text, {0}, {0}};
    pmi_buf_init(&build.tags_text, dialect->env, SIZE_MAX);
    pmi_map_init(&build.tags, dialect->env, dialect->k0, dialect->k1);
    /* What is no object has no members, as in JavaScript. */
    pm_err err =
        dialect_compile_members(&build, cJSON_IsObject(source) ? source : NULL);
    pmi_buf_fini(&build.tags_text);
    pmi_map_fini(&build.tags);
    return err;
}

/* ---- The whole file ---------------------------------------------------- */
static pm_err dialect_register(pmi_dialect *dialect, const char *name)
{
    static const char prefix[] = "message ";
    pmi_dialect_message *m = dialect_message_new(dialect);
    if (!m)
        return PM_ENOMEM;
    pm_err err = pmi_map_put(&dialect->messages, pm_text(name), m, NULL);
    if (err != PM_OK)
        dialect_message_free(dialect->env, m);
    else if (!strncmp(name, prefix, sizeof prefix - 1))
        err = pmi_map_put(&dialect->roots, pm_text(name + sizeof prefix - 1), m,
                          NULL);
    return err;
}

static pm_err dialect_compile_all(pmi_dialect *dialect, const cJSON *source,
                                  pmi_buf *text)
{
    const cJSON *item;
    pm_err err;
    cJSON_ArrayForEach(item, source)
    {
        err = dialect_register(dialect, item->string);
        if (err != PM_OK)
            return err;
    }
    cJSON_ArrayForEach(item, source)
    {
        pm_slice name = pm_text(item->string);
        pmi_buf_add_byte(text, item == source->child ? '{' : ',');
        pmi_json_add_string(text, name);
        pmi_buf_add_byte(text, ':');
        err = dialect_compile(dialect, pmi_map_get(&dialect->messages, name),
                              item, text);
        if (err != PM_OK)
            return err;
    }
    pmi_buf_add_text(text, source->child ? "}" : "{}");
    if (text->failed)
        return PM_ENOMEM;
    return pmi_json_canonical(dialect->env, pmi_buf_slice(text),
                              DIALECT_TEXT_DEPTH, &dialect->text);
}

static pm_err dialect_read(pmi_dialect *dialect, pm_slice source)
{
    cJSON *tree = NULL;
    pmi_buf text;
    pm_err err =
        pmi_json_parse(dialect->env, source, PMI_JSON_DEPTH_MAX, &tree, NULL);
    if (err != PM_OK)
        return err == PM_ENUL ? PM_EJSON : err;
    pmi_buf_init(&text, dialect->env, SIZE_MAX);
    err = cJSON_IsObject(tree) ? dialect_compile_all(dialect, tree, &text)
                               : PM_EJSON;
    pmi_buf_fini(&text);
    cJSON_Delete(tree);
    return err;
}

pm_err pmi_dialect_new(const pmi_env *env, uint64_t k0, uint64_t k1,
                       pm_slice source, pmi_dialect **out)
{
    pmi_dialect *dialect = pmi_zalloc(env, sizeof *dialect);
    if (!dialect)
        return PM_ENOMEM;
    dialect->env = env;
    dialect->k0 = k0;
    dialect->k1 = k1;
    pmi_map_init(&dialect->messages, env, k0, k1);
    pmi_map_init(&dialect->roots, env, k0, k1);
    pmi_buf_init(&dialect->text, env, SIZE_MAX);
    pm_err err = dialect_read(dialect, source);
    if (err != PM_OK) {
        pmi_dialect_free(dialect);
        return err;
    }
    *out = dialect;
    return PM_OK;
}

void pmi_dialect_free(pmi_dialect *dialect)
{
    if (!dialect)
        return;
    for (pmi_map_walk w = pmi_map_begin(&dialect->messages); pmi_map_next(&w);)
        dialect_message_free(dialect->env, w.value);
    pmi_map_fini(&dialect->messages);
    pmi_map_fini(&dialect->roots);
    pmi_buf_fini(&dialect->text);
    pmi_free(dialect->env, dialect);
}

/* ---- Flaws ------------------------------------------------------------- */
static bool dialect_is_tag(const cJSON *item)
{
    double tag = cJSON_IsNumber(item) ? item->valuedouble : -1;
    return tag >= 0 && tag < 1u << 28 && tag == (double)(uint32_t)tag;
}

/* What is expected in the place of a member that is no message; NULL: it is
 * fine. */
static const char *dialect_expected(const cJSON *item)
{
    pm_slice words[3];
    pmi_dialect_option option;
    if (cJSON_IsString(item))
        return NULL;
    if (dialect_words(item->string, words) != 3 ||
        !dialect_option_of(words[0], &option))
        return "\"OPTION TYPE NAME\" with required, optional or repeated, or "
               "\"message NAME\"";
    return dialect_is_tag(item) ? NULL : "a number from 0 to 268435455";
}

/* Recursion is as deep as the source, which the parser has bounded. */
static bool dialect_has_flaw(const cJSON *message, pmi_dialect_flaw *out)
{
    const cJSON *item;
    out->expected = "an object of fields";
    if (!cJSON_IsObject(message))
        return true;
    out->expected = NULL;
    cJSON_ArrayForEach(item, message)
    {
        pm_slice words[3];
        out->member = item->string;
        if (dialect_words(item->string, words) == 2 &&
            dialect_is(words[0], "message"))
            dialect_has_flaw(item, out);
        else
            out->expected = dialect_expected(item);
        if (out->expected)
            break;
    }
    return out->expected != NULL;
}

bool pmi_dialect_find_flaw(const cJSON *tree, pmi_dialect_flaw *out)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, tree)
    {
        out->message = cJSON_IsObject(item) ? item->string : NULL;
        out->member = item->string;
        if (!cJSON_IsString(item) && dialect_has_flaw(item, out))
            return true;
    }
    return false;
}

/* ---- Asking ------------------------------------------------------------ */
pm_slice pmi_dialect_text(const pmi_dialect *dialect)
{
    return pmi_buf_slice(&dialect->text);
}

const pmi_dialect_message *pmi_dialect_find(const pmi_dialect *dialect,
                                            pm_slice route)
{
    return pmi_map_get(&dialect->messages, route);
}

/* The hash is over both texts joined, and core/crypto hashes one piece. */
pm_err pmi_dialect_version(const pmi_dialect *client, const pmi_dialect *server,
                           char out[25])
{
    const pmi_dialect *some = client ? client : server;
    uint8_t digest[16];
    pmi_buf joined;
    out[0] = 0;
    if (!some)
        return PM_OK;
    pm_slice a = client ? pmi_dialect_text(client) : pm_text("{}");
    pm_slice b = server ? pmi_dialect_text(server) : pm_text("{}");
    pmi_buf_init(&joined, some->env, SIZE_MAX);
    pmi_buf_add(&joined, a.data, a.len);
    pmi_buf_add(&joined, b.data, b.len);
    pm_err err = joined.failed ? PM_ENOMEM : PM_OK;
    if (err == PM_OK) {
        pmi_md5(joined.data, joined.len, digest);
        pmi_base64(digest, sizeof digest, out);
    }
    pmi_buf_fini(&joined);
    return err;
}
