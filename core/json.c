/* SPDX-License-Identifier: MIT */
/* core/json.c -- JSON text to a tree, strictly, and what trees are asked.
 *
 * One reader serves three wishes:
 *
 *   check   walks only, touches no memory
 *   tree    nodes and strings from cJSON_malloc, one by one, as cJSON_Delete
 *           wants them; U+0000 is refused, for a char * can not hold it
 *   doc     the same nodes from blocks of our own, freed at once, U+0000 as
 *           C0 80: only for text that is printed again (pmi_json_canonical)
 *
 * A string is read twice: the first walk judges it and counts its bytes, the
 * second one fills memory of just that size. Bytes that are no UTF-8 become
 * U+FFFD on the way; outside of strings they are errors anyway, so that this
 * equals cleaning the whole text first.
 *
 * An error is at the first byte that no JSON text could have there, or at
 * the end when the text is cut. Recursion is bounded by depth_max.
 * Start reading at pmi_json_parse(), then json_read_value(). */
#include "json.h"

#include "json_keys.h"

#include <cjson/cJSON.h>
#include <limits.h>

/* ---- Blocks of a doc --------------------------------------------------- */
#define JSON_ALIGN sizeof(max_align_t)
#define JSON_BLOCK_MIN 4096
#define JSON_BLOCK_MAX (64 * 1024)

struct pmi_json_block {
    struct pmi_json_block *next;
    size_t used, cap;
    max_align_t data[];
};

/* A new block, larger than the last one so that there are few. */
static struct pmi_json_block *json_block_new(pmi_json_doc *doc, size_t size)
{
    struct pmi_json_block *block;
    size_t cap = doc->blocks ? doc->blocks->cap : JSON_BLOCK_MIN / 2;
    cap = pmi_max(pmi_min(cap * 2, JSON_BLOCK_MAX), size);
    if (cap > SIZE_MAX - sizeof *block)
        return NULL;
    block = pmi_alloc(doc->env, sizeof *block + cap);
    if (!block)
        return NULL;
    block->next = doc->blocks;
    block->used = 0;
    block->cap = cap;
    doc->blocks = block;
    return block;
}

static void *json_doc_take(pmi_json_doc *doc, size_t size)
{
    struct pmi_json_block *block = doc->blocks;
    void *out;
    if (size > SIZE_MAX - JSON_ALIGN)
        return NULL;
    size = (size + JSON_ALIGN - 1) / JSON_ALIGN * JSON_ALIGN;
    if (!block || block->cap - block->used < size)
        block = json_block_new(doc, size);
    if (!block)
        return NULL;
    out = (char *)block->data + block->used;
    block->used += size;
    return out;
}

void pmi_json_doc_fini(pmi_json_doc *doc)
{
    struct pmi_json_block *block = doc->blocks, *next;
    for (; block; block = next) {
        next = block->next;
        pmi_free(doc->env, block);
    }
    doc->blocks = NULL;
    doc->root = NULL;
}

/* ---- The reader -------------------------------------------------------- */
typedef enum json_wish { JSON_CHECK, JSON_TREE, JSON_DOC } json_wish;

typedef struct json_reader {
    const uint8_t *start, *at, *end;
    const pmi_env *env; /* NULL when nothing is allocated */
    pmi_json_doc *doc;
    json_wish wish;
    uint32_t room; /* levels that may still be opened */
    pm_err err;
    const uint8_t *fault;
    const char *what;
} json_reader;

static bool json_fail(json_reader *r, const uint8_t *at, pm_err err,
                      const char *what)
{
    r->fault = at;
    r->err = err;
    r->what = what;
    return false;
}

static void *json_take(json_reader *r, size_t size)
{
    void *out =
        r->wish == JSON_TREE ? cJSON_malloc(size) : json_doc_take(r->doc, size);
    if (!out)
        json_fail(r, r->at, PM_ENOMEM, "memory");
    return out;
}

/* An empty node behind the others of `parent`, NULL without memory. */
static cJSON *json_take_child(json_reader *r, cJSON *parent)
{
    cJSON *node = json_take(r, sizeof *node), *first = parent->child;
    if (!node)
        return NULL;
    memset(node, 0, sizeof *node);
    node->prev = node;
    if (!first) {
        parent->child = node;
        return node;
    }
    node->prev = first->prev;
    first->prev->next = node;
    first->prev = node;
    return node;
}

static void json_skip_space(json_reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' ||
                              *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

static bool json_is_digit(const json_reader *r)
{
    return r->at < r->end && *r->at >= '0' && *r->at <= '9';
}

/* ---- Strings ----------------------------------------------------------- */
/* What the first walk over a string has found. */
typedef struct json_string {
    const uint8_t *raw; /* behind the quote */
    size_t raw_len;
    size_t len; /* decoded */
    bool plain; /* decoded is the same as raw */
} json_string;

size_t pmi_json_plain(const uint8_t *at, const uint8_t *end)
{
    const uint64_t ones = 0x0101010101010101u, tops = ones * 0x80;
    const uint8_t *from = at;
    uint64_t word, quote, slash, control;
    while ((size_t)(end - at) >= sizeof word) {
        memcpy(&word, at, sizeof word);
        /* A zero byte in `quote` or `slash` borrows into its top bit. False
         * alarms only send us to the loop below. */
        quote = (word ^ ones * '"') - ones;
        slash = (word ^ ones * '\\') - ones;
        control = word - ones * 0x20;
        if ((word | quote | slash | control) & tops)
            break;
        at += sizeof word;
    }
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return (size_t)(at - from);
}

/* Four hex digits; *at ends behind them or at the wrong one. */
static bool json_read_hex(const uint8_t **at, const uint8_t *end, uint32_t *out)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++, (*at)++) {
        uint8_t c = *at < end ? **at : 0, low = c | 0x20;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            value = value << 4 | (uint32_t)(low - 'a' + 10);
        else
            return false;
    }
    *out = value;
    return true;
}

/* Behind "\u": one unit, or two that make a pair. */
static bool json_read_unicode(const uint8_t **at, const uint8_t *end,
                              uint32_t *code)
{
    const uint8_t *next;
    uint32_t low;
    if (!json_read_hex(at, end, code))
        return false;
    next = *at;
    if (*code < 0xD800 || *code > 0xDBFF || end - next < 6 || next[0] != '\\' ||
        next[1] != 'u')
        return true;
    next += 2;
    if (!json_read_hex(&next, end, &low) || low < 0xDC00 || low > 0xDFFF)
        return true;
    *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
    *at = next;
    return true;
}

/* At a backslash. On failure *at is the first wrong byte. */
static bool json_read_escape(const uint8_t **at, const uint8_t *end,
                             uint32_t *code)
{
    static const char names[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
    const char *name;
    ++*at;
    if (*at == end || !**at)
        return false;
    if (**at == 'u') {
        ++*at;
        return json_read_unicode(at, end, code);
    }
    name = strchr(names, **at);
    if (!name)
        return false;
    *code = (uint32_t)codes[name - names];
    ++*at;
    return true;
}

/* The first walk; ends behind the closing quote. */
static bool json_scan_string(json_reader *r, json_string *s)
{
    const uint8_t *at = r->at + 1, *from;
    uint32_t code;
    size_t run;
    s->raw = at;
    s->len = 0;
    s->plain = true;
    for (;;) {
        run = pmi_json_plain(at, r->end);
        at += run;
        s->len += run;
        if (at == r->end)
            return json_fail(r, at, PM_EJSON, "the string's closing quote");
        if (*at == '"')
            break;
        if (*at < 0x20)
            return json_fail(r, at, PM_EJSON, "no bare control character");
        from = at;
        if (*at == '\\') {
            s->plain = false;
            if (!json_read_escape(&at, r->end, &code))
                return json_fail(r, at, PM_EJSON, "a valid escape");
        } else {
            at += pmi_utf8_next(at, r->end, &code);
            if (code == PMI_UTF8_BAD)
                s->plain = false;
        }
        if (!code && r->wish == JSON_TREE)
            return json_fail(r, from, PM_ENUL, "no U+0000 in a string");
        s->len += code ? pmi_utf8_size(code) : 2;
    }
    s->raw_len = (size_t)(at - s->raw);
    r->at = at + 1;
    return true;
}

/* The second walk, over what the first has found good. */
static void json_decode(const json_string *s, uint8_t *out)
{
    const uint8_t *at = s->raw, *end = at + s->raw_len;
    uint32_t code;
    size_t run;
    for (;;) {
        run = pmi_json_plain(at, end);
        memcpy(out, at, run);
        at += run;
        out += run;
        if (at == end)
            return;
        if (*at == '\\')
            json_read_escape(&at, end, &code);
        else
            at += pmi_utf8_next(at, end, &code);
        if (code) {
            out += pmi_utf8_put(code, out);
        } else {
            *out++ = 0xC0;
            *out++ = 0x80;
        }
    }
}

/* Both walks. *out is NULL when we only check. */
static bool json_read_text(json_reader *r, char **out)
{
    json_string s;
    char *text;
    *out = NULL;
    if (!json_scan_string(r, &s))
        return false;
    if (r->wish == JSON_CHECK)
        return true;
    text = s.len < SIZE_MAX ? json_take(r, s.len + 1) : NULL;
    if (!text)
        return false;
    if (s.plain)
        memcpy(text, s.raw, s.len);
    else
        json_decode(&s, (uint8_t *)text);
    text[s.len] = 0;
    *out = text;
    return true;
}

/* ---- Numbers and words ------------------------------------------------- */
static bool json_skip_digits(json_reader *r)
{
    if (!json_is_digit(r))
        return json_fail(r, r->at, PM_EJSON, "a digit");
    while (json_is_digit(r))
        r->at++;
    return true;
}

/* The grammar alone. */
static bool json_scan_number(json_reader *r)
{
    if (*r->at == '-')
        r->at++;
    if (r->at < r->end && *r->at == '0')
        r->at++; /* a digit behind it is one too many, as the caller finds */
    else if (!json_skip_digits(r))
        return false;
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        if (!json_skip_digits(r))
            return false;
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
            r->at++;
        return json_skip_digits(r);
    }
    return true;
}

/* cJSON's rule for the integer beside the double. */
static int json_saturate(double value)
{
    if (value >= INT_MAX)
        return INT_MAX;
    if (value <= (double)INT_MIN)
        return INT_MIN;
    return (int)value;
}

static bool json_read_number(json_reader *r, cJSON *node)
{
    const uint8_t *from = r->at;
    if (!json_scan_number(r))
        return false;
    if (!node)
        return true;
    node->type = cJSON_Number;
    node->valuedouble =
        pmi_json_to_double(pm_bytes(from, (size_t)(r->at - from)));
    node->valueint = json_saturate(node->valuedouble);
    return true;
}

static bool json_read_word(json_reader *r, const char *word, int type,
                           cJSON *node)
{
    for (; *word; word++, r->at++)
        if (r->at == r->end || *r->at != (uint8_t)*word)
            return json_fail(r, r->at, PM_EJSON, "true, false or null");
    if (node) {
        node->type = type;
        node->valueint = type == cJSON_True;
    }
    return true;
}

/* ---- Values ------------------------------------------------------------ */
static bool json_read_value(json_reader *r, cJSON *node);

/* A key and its colon. */
static bool json_read_key(json_reader *r, cJSON *node)
{
    char *name;
    if (r->at == r->end || *r->at != '"')
        return json_fail(r, r->at, PM_EJSON, "a key in double quotes");
    if (!json_read_text(r, &name))
        return false;
    if (node)
        node->string = name;
    json_skip_space(r);
    if (r->at == r->end || *r->at != ':')
        return json_fail(r, r->at, PM_EJSON, "a colon");
    r->at++;
    json_skip_space(r);
    return true;
}

static bool json_read_child(json_reader *r, cJSON *parent, bool object)
{
    cJSON *node = NULL;
    if (parent) {
        node = json_take_child(r, parent);
        if (!node)
            return false;
    }
    if (object && !json_read_key(r, node))
        return false;
    return json_read_value(r, node);
}

/* Members or elements from behind the bracket to the closing one. */
static bool json_read_children(json_reader *r, cJSON *node, bool object,
                               size_t *count)
{
    uint8_t close = object ? '}' : ']';
    *count = 0;
    json_skip_space(r);
    if (r->at < r->end && *r->at == close) {
        r->at++;
        return true;
    }
    for (;;) {
        if (!json_read_child(r, node, object))
            return false;
        ++*count;
        json_skip_space(r);
        if (r->at < r->end && *r->at == close) {
            r->at++;
            return true;
        }
        if (r->at == r->end || *r->at != ',')
            return json_fail(r, r->at, PM_EJSON,
                             object ? "a comma or }" : "a comma or ]");
        r->at++;
        json_skip_space(r);
    }
}

static bool json_read_container(json_reader *r, cJSON *node, bool object)
{
    size_t count;
    pm_err err;
    if (!r->room)
        return json_fail(r, r->at, PM_EDEPTH, "fewer levels");
    r->room--;
    r->at++;
    if (node)
        node->type = object ? cJSON_Object : cJSON_Array;
    if (!json_read_children(r, node, object, &count))
        return false;
    r->room++;
    if (!node || !object)
        return true;
    err = pmi_json_keys_settle(r->env, node, count, r->wish == JSON_TREE);
    return !err || json_fail(r, r->at, err, "memory");
}

static bool json_read_value(json_reader *r, cJSON *node)
{
    char *text;
    if (r->at == r->end)
        return json_fail(r, r->at, PM_EJSON, "a value");
    switch (*r->at) {
    case '{':
        return json_read_container(r, node, true);
    case '[':
        return json_read_container(r, node, false);
    case '"':
        if (!json_read_text(r, &text))
            return false;
        if (node) {
            node->type = cJSON_String;
            node->valuestring = text;
        }
        return true;
    case 't':
        return json_read_word(r, "true", cJSON_True, node);
    case 'f':
        return json_read_word(r, "false", cJSON_False, node);
    case 'n':
        return json_read_word(r, "null", cJSON_NULL, node);
    default:
        if (*r->at != '-' && !json_is_digit(r))
            return json_fail(r, r->at, PM_EJSON, "a value");
        return json_read_number(r, node);
    }
}

/* ---- Whole texts ------------------------------------------------------- */
static void json_reader_init(json_reader *r, json_wish wish, pm_slice text,
                             uint32_t depth_max)
{
    /* An empty slice may have no pointer at all. */
    const void *data = text.len ? text.data : "";
    memset(r, 0, sizeof *r);
    r->start = r->at = data;
    r->end = r->start + text.len;
    r->wish = wish;
    r->room = depth_max;
}

static pm_err json_read_all(json_reader *r, cJSON *root)
{
    json_skip_space(r);
    if (!json_read_value(r, root))
        return r->err;
    json_skip_space(r);
    if (r->at < r->end)
        json_fail(r, r->at, PM_EJSON, "the end of the text");
    return r->err;
}

/* Where and why, in lines and characters. */
static void json_explain(const json_reader *r, pmi_json_error *err)
{
    const uint8_t *at;
    if (!err || !r->err)
        return;
    err->at = (size_t)(r->fault - r->start);
    err->what = r->what;
    err->line = err->column = 1;
    for (at = r->start; at < r->fault; at++) {
        if (*at == '\n') {
            err->line++;
            err->column = 1;
        } else if ((*at & 0xC0) != 0x80) {
            err->column++;
        }
    }
}

pm_err pmi_json_parse(const pmi_env *env, pm_slice text, uint32_t depth_max,
                      cJSON **out, pmi_json_error *err)
{
    json_reader r;
    cJSON *root;
    json_reader_init(&r, JSON_TREE, text, depth_max);
    r.env = env;
    root = json_take(&r, sizeof *root);
    if (root) {
        memset(root, 0, sizeof *root);
        json_read_all(&r, root);
    }
    json_explain(&r, err);
    if (r.err) {
        cJSON_Delete(root);
        return r.err;
    }
    *out = root;
    return PM_OK;
}

pm_err pmi_json_doc_read(pmi_json_doc *doc, const pmi_env *env, pm_slice text,
                         uint32_t depth_max)
{
    json_reader r;
    memset(doc, 0, sizeof *doc);
    doc->env = env;
    json_reader_init(&r, JSON_DOC, text, depth_max);
    r.env = env;
    r.doc = doc;
    doc->root = json_take(&r, sizeof *doc->root);
    if (!doc->root)
        return PM_ENOMEM;
    memset(doc->root, 0, sizeof *doc->root);
    return json_read_all(&r, doc->root);
}

pm_err pmi_json_check(pm_slice text, uint32_t depth_max, pmi_json_error *err)
{
    json_reader r;
    json_reader_init(&r, JSON_CHECK, text, depth_max);
    json_read_all(&r, NULL);
    json_explain(&r, err);
    return r.err;
}

pm_err pm_json_tree(pm_slice text, cJSON **out)
{
    pmi_env env;
    pmi_env_init(&env, NULL);
    return pmi_json_parse(&env, text, PMI_JSON_DEPTH_MAX, out, NULL);
}

/* ---- What trees are asked ---------------------------------------------- */
const cJSON *pmi_json_get(const cJSON *object, const char *name)
{
    const cJSON *node;
    if (!cJSON_IsObject(object))
        return NULL;
    for (node = object->child; node; node = node->next)
        if (node->string && !strcmp(node->string, name))
            return node;
    return NULL;
}

bool pmi_json_truthy(const cJSON *value)
{
    if (!value)
        return false;
    switch (value->type & 0xFF) {
    case cJSON_Number:
        return value->valuedouble < 0 || value->valuedouble > 0;
    case cJSON_String:
        return value->valuestring && value->valuestring[0];
    case cJSON_Invalid:
    case cJSON_False:
    case cJSON_NULL:
        return false;
    default:
        return true;
    }
}

pm_err pmi_json_add(cJSON *object, const char *name, cJSON *item)
{
    if (!item || item == object)
        return PM_EINVAL;
    if (cJSON_IsArray(object))
        return cJSON_AddItemToArray(object, item) ? PM_OK : PM_ENOMEM;
    if (!cJSON_IsObject(object) || !name)
        return PM_EINVAL;
    return cJSON_AddItemToObject(object, name, item) ? PM_OK : PM_ENOMEM;
}
