/* SPDX-License-Identifier: MIT */
/* core/json_print.c -- a tree to the text that JSON.stringify would give.
 *
 * Nothing is copied or measured first: pieces go into a pmi_buf, which
 * remembers a failure, so that only the end has to look. Strings go over in
 * runs between what must be escaped. A tree made by a host may hold anything:
 * wrong UTF-8 prints as U+FFFD, a NULL string as "", numbers that JSON can
 * not hold as null; nesting is bounded.
 * Start reading at pmi_json_print(), then json_put_value(). */
#include "json.h"

#include "json_keys.h"

#include <cjson/cJSON.h>

typedef struct json_writer {
    pmi_buf *out;
    uint32_t room; /* levels that may still be opened */
    bool doc;      /* C0 80 in a string is U+0000 */
    pm_err err;
} json_writer;

/* ---- Strings ----------------------------------------------------------- */
/* \uXXXX in lower case. */
static void json_put_unicode(pmi_buf *out, uint32_t unit)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = {'\\', 'u'};
    for (int i = 0; i < 4; i++)
        text[2 + i] = hex[unit >> (12 - 4 * i) & 0xF];
    pmi_buf_add(out, text, sizeof text);
}

/* A code point that can not stand in the text as it came. */
static void json_put_code(pmi_buf *out, uint32_t code)
{
    static const char names[] = "\"\\bfnrt", codes[] = "\"\\\b\f\n\r\t";
    const char *place = code && code < 0x80 ? strchr(codes, (int)code) : NULL;
    char text[2] = {'\\'};
    uint8_t bytes[4];
    if (place) {
        text[1] = names[place - codes];
        pmi_buf_add(out, text, sizeof text);
    } else if (code < 0x20 || (code >= 0xD800 && code <= 0xDFFF)) {
        json_put_unicode(out, code);
    } else {
        pmi_buf_add(out, bytes, pmi_utf8_put(code, bytes));
    }
}

/* Reads one code point that is not plain; *copy: it prints as its bytes. */
static size_t json_next_code(const uint8_t *at, const uint8_t *end, bool doc,
                             uint32_t *code, bool *copy)
{
    size_t n;
    if (doc && *at == 0xC0 && end - at > 1 && at[1] == 0x80) {
        *code = 0;
        *copy = false;
        return 2;
    }
    n = pmi_utf8_next_wide(at, end, code);
    /* A pair in six bytes prints in four. */
    *copy = *code >= 0x80 && *code < PMI_UTF8_BAD &&
            (*code < 0xD800 || *code > 0xDFFF) && n == pmi_utf8_size(*code);
    return n;
}

static void json_put_string(pmi_buf *out, pm_slice text, bool doc)
{
    const uint8_t *at = text.data, *end = at, *run = at;
    uint32_t code;
    size_t n;
    bool copy;
    if (text.len)
        end += text.len;
    pmi_buf_add_byte(out, '"');
    while (at < end) {
        at += pmi_json_plain(at, end);
        if (at == end)
            break;
        n = json_next_code(at, end, doc, &code, &copy);
        if (!copy) {
            if (at > run)
                pmi_buf_add(out, run, (size_t)(at - run));
            json_put_code(out, code);
            run = at + n;
        }
        at += n;
    }
    if (at > run)
        pmi_buf_add(out, run, (size_t)(at - run));
    pmi_buf_add_byte(out, '"');
}

void pmi_json_add_string(pmi_buf *out, pm_slice text)
{
    json_put_string(out, text, false);
}

/* ---- Values ------------------------------------------------------------ */
static void json_put_value(json_writer *w, const cJSON *node);

static void json_put_number(json_writer *w, double value)
{
    char text[32];
    /* NaN and the infinities are the only ones whose difference with
     * themselves is not 0. */
    if (value - value != 0)
        pmi_buf_add(w->out, "null", 4);
    else
        pmi_buf_add(w->out, text, pmi_json_number(value, text));
}

static void json_put_member(json_writer *w, const cJSON *node, bool first)
{
    if (!first)
        pmi_buf_add_byte(w->out, ',');
    json_put_string(w->out, pm_text(node->string), w->doc);
    pmi_buf_add_byte(w->out, ':');
    json_put_value(w, node);
}

static void json_put_sorted(json_writer *w, const cJSON *object)
{
    pmi_json_key *keys;
    size_t count;
    w->err = pmi_json_keys_sorted(w->out->env, object, &keys, &count);
    if (w->err)
        return;
    for (size_t i = 0; i < count && !w->err; i++)
        json_put_member(w, keys[i].node, i == 0);
    pmi_free(w->out->env, keys);
}

static void json_put_object(json_writer *w, const cJSON *object)
{
    const cJSON *node = object->child;
    pmi_buf_add_byte(w->out, '{');
    if (!pmi_json_keys_in_order(object))
        json_put_sorted(w, object);
    else
        for (; node && !w->err; node = node->next)
            json_put_member(w, node, node == object->child);
    pmi_buf_add_byte(w->out, '}');
}

static void json_put_array(json_writer *w, const cJSON *array)
{
    const cJSON *node = array->child;
    pmi_buf_add_byte(w->out, '[');
    for (; node && !w->err; node = node->next) {
        if (node != array->child)
            pmi_buf_add_byte(w->out, ',');
        json_put_value(w, node);
    }
    pmi_buf_add_byte(w->out, ']');
}

static void json_put_container(json_writer *w, const cJSON *node)
{
    if (!w->room) {
        w->err = PM_EDEPTH;
        return;
    }
    w->room--;
    if ((node->type & 0xFF) == cJSON_Object)
        json_put_object(w, node);
    else
        json_put_array(w, node);
    w->room++;
}

static void json_put_value(json_writer *w, const cJSON *node)
{
    switch (node->type & 0xFF) {
    case cJSON_Object:
    case cJSON_Array:
        json_put_container(w, node);
        break;
    case cJSON_String:
        json_put_string(w->out, pm_text(node->valuestring), w->doc);
        break;
    case cJSON_Number:
        json_put_number(w, node->valuedouble);
        break;
    case cJSON_True:
        pmi_buf_add(w->out, "true", 4);
        break;
    case cJSON_False:
        pmi_buf_add(w->out, "false", 5);
        break;
    case cJSON_Raw:
        if (node->valuestring) {
            pmi_buf_add_text(w->out, node->valuestring);
            break;
        }
        /* fall through */
    default:
        pmi_buf_add(w->out, "null", 4);
    }
    /* A full buffer ends the walk: a tree can be large. */
    if (w->out->failed && !w->err)
        w->err = PM_ENOMEM;
}

/* ---- Whole trees ------------------------------------------------------- */
static pm_err json_print(const cJSON *tree, uint32_t depth_max, bool doc,
                         pmi_buf *out)
{
    json_writer w = {out, depth_max, doc, PM_OK};
    size_t len = out->len;
    json_put_value(&w, tree);
    if (w.err)
        out->len = len;
    return w.err;
}

pm_err pmi_json_print(const cJSON *tree, uint32_t depth_max, pmi_buf *out)
{
    return json_print(tree, depth_max, false, out);
}

pm_err pmi_json_canonical(const pmi_env *env, pm_slice text, uint32_t depth_max,
                          pmi_buf *out)
{
    pmi_json_doc doc;
    pm_err err = pmi_json_doc_read(&doc, env, text, depth_max);
    if (!err)
        err = json_print(doc.root, depth_max, true, out);
    pmi_json_doc_fini(&doc);
    return err;
}

pm_err pm_json_text(const cJSON *tree, char **out)
{
    pmi_env env;
    pmi_buf buf;
    pm_err err;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&buf, &env, SIZE_MAX);
    err = pmi_json_print(tree, PMI_JSON_DEPTH_MAX, &buf);
    pmi_buf_add_byte(&buf, 0);
    if (!err && buf.failed)
        err = PM_ENOMEM;
    if (err) {
        pmi_buf_fini(&buf);
        return err;
    }
    *out = (char *)buf.data;
    return PM_OK;
}

void pm_text_free(char *text)
{
    pmi_env env;
    pmi_env_init(&env, NULL);
    pmi_free(&env, text);
}
