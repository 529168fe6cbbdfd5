/* SPDX-License-Identifier: MIT */
/* core/json.h -- JSON as JavaScript reads and writes it, on cJSON's tree.
 *
 * The scanner is strict (RFC 8259, no BOM, nothing behind the value), turns
 * invalid UTF-8 into U+FFFD first (WHATWG), keeps the last of duplicate keys
 * at the place of the first, orders integer-like keys first as JavaScript does,
 * and bounds depth and size before it allocates. The printer gives
 * JSON.stringify's text to the byte: shortest round trip numbers, \ud800 for
 * lone surrogates, no locale. Lone surrogates live in a cJSON string as
 * their three-byte (generalised UTF-8) form.
 *
 * The tree is cJSON's: nodes come from cJSON_malloc, are changed with cJSON's
 * API and freed with cJSON_Delete. cJSON's parser and printer are not used
 * (they lose digits, accept `01`, and cut strings at U+0000). */
#ifndef PMI_JSON_H
#define PMI_JSON_H

#include "buf.h"
#include "json_number.h" /* pmi_json_number, pmi_json_to_double */
#include "utf8.h"        /* pmi_utf8_clean, _valid, _well_formed */

#define PMI_JSON_DEPTH_MAX 32 /* default limit of nested arrays and objects */

typedef struct pmi_json_error {
    size_t at;             /* byte offset of the first byte that can not be */
    uint32_t line, column; /* from 1; a column is a character */
    const char *what;      /* static text: what was expected */
} pmi_json_error;

/* Text to tree. *out owned by the caller, free with cJSON_Delete.
 *   err may be NULL.
 * PM_EJSON   not JSON.
 * PM_EDEPTH  nested deeper than depth_max.
 * PM_ENUL    a string holds U+0000, which a cJSON tree can not.
 * PM_ENOMEM */
pm_err pmi_json_parse(const pmi_env *env, pm_slice text, uint32_t depth_max,
                      struct cJSON **out, pmi_json_error *err);

/* Tree to text, appended to `out`. NaN and infinities print null, -0 prints 0.
 * A cJSON_Raw node is copied as it is. Members are printed in JavaScript's
 * order whatever their order in the tree; twins that a host made stay.
 * PM_EDEPTH nested deeper than depth_max; PM_ENOMEM (also out->max). On
 * failure `out` has its old length. */
pm_err pmi_json_print(const struct cJSON *tree, uint32_t depth_max,
                      pmi_buf *out);

/* Text to canonical text (JSON.stringify(JSON.parse(text))) without a cJSON
 * tree in between: strings with U+0000 pass. Errors as pmi_json_parse. */
pm_err pmi_json_canonical(const pmi_env *env, pm_slice text, uint32_t depth_max,
                          pmi_buf *out);

/* Is it JSON? No tree, no allocation; depth bounded. U+0000 passes. */
pm_err pmi_json_check(pm_slice text, uint32_t depth_max, pmi_json_error *err);

/* A string with its quotes, escaped as JSON.stringify does. U+0000 passes;
 * bytes that are no UTF-8 become U+FFFD. */
void pmi_json_add_string(pmi_buf *out, pm_slice text);

/* Find a member by its exact name, O(n); NULL when absent or not an object. */
const struct cJSON *pmi_json_get(const struct cJSON *object, const char *name);
/* JavaScript's truth: false, null, 0, NaN and "" are falsy; NULL is falsy. */
bool pmi_json_truthy(const struct cJSON *value);
/* Add at the end of an object / array. `item` is taken on success only.
 * The name is copied; for an array it is not looked at. PM_EINVAL, PM_ENOMEM */
pm_err pmi_json_add(struct cJSON *object, const char *name, struct cJSON *item);

/* ---- Between the files of this module ---- */
/* A tree for a moment: its nodes and strings lie in blocks that are freed at
 * once, and U+0000 is C0 80, which no clean text holds. Never to be handed to
 * cJSON or a handler. */
typedef struct pmi_json_doc {
    const pmi_env *env; /* borrowed */
    struct pmi_json_block *blocks;
    struct cJSON *root; /* in a block */
} pmi_json_doc;

/* Errors as pmi_json_parse; pmi_json_doc_fini is due in any case. */
pm_err pmi_json_doc_read(pmi_json_doc *doc, const pmi_env *env, pm_slice text,
                         uint32_t depth_max);
void pmi_json_doc_fini(pmi_json_doc *doc);
/* Length of the run of bytes that a JSON string holds as they are, ASCII only.
 */
size_t pmi_json_plain(const uint8_t *at, const uint8_t *end);

#endif
