/* SPDX-License-Identifier: MIT */
/* pomelo_table.c -- how answers are shown: aligned, in colour where somebody
 * looks, or as JSON for programs. */
#include "pomelo_cli.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CELL 64

bool cli_colour(FILE *to)
{
    const char *term = getenv("TERM");
    return isatty(fileno(to)) && !getenv("NO_COLOR") &&
           (!term || strcmp(term, "dumb") != 0);
}

static const struct column {
    const char *key; /* of the server's object */
    const char *title;
    bool right;
} columns[] = {
    {"serverId", "id", false},  {"serverType", "type", false},
    {"pid", "pid", true},       {"rss", "memory MiB", true},
    {"uptime", "up min", true}, {"connections", "connections", true},
};
#define COLUMNS (sizeof columns / sizeof *columns)

/* The colour of a column's head, as in Pomelo's own table. */
static const char *const colours[COLUMNS] = {"31", "34", "32",
                                             "36", "35", "33"};

/* A member as text; what a server does not know is a dash. Strangers' texts
 * reach a terminal here: only what can be printed. */
static void cell(const cJSON *server, const char *key, char out[CELL])
{
    const cJSON *node = cJSON_GetObjectItemCaseSensitive(server, key);
    if (cJSON_IsString(node))
        snprintf(out, CELL, "%s", node->valuestring);
    else if (cJSON_IsNumber(node))
        snprintf(out, CELL, "%.0f", node->valuedouble);
    else
        snprintf(out, CELL, "-");
    for (char *at = out; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
}

static int by_type_and_id(const void *a, const void *b)
{
    const cJSON *const *left = a, *const *right = b;
    char one[CELL], two[CELL];
    for (int i = 1; i >= 0; i--) {
        int order;
        cell(*left, columns[i].key, one);
        cell(*right, columns[i].key, two);
        order = strcmp(one, two);
        if (order)
            return order;
    }
    return 0;
}

/* The servers of an answer, sorted; free the list. */
static const cJSON **sorted(const cJSON *servers, size_t *count)
{
    size_t n = servers ? (size_t)cJSON_GetArraySize(servers) : 0;
    const cJSON **list = calloc(n + 1, sizeof *list), *node;
    *count = 0;
    if (!list)
        return NULL;
    cJSON_ArrayForEach(node, servers)
    {
        if (*count < n && cJSON_IsObject(node))
            list[(*count)++] = node;
    }
    qsort(list, *count, sizeof *list, by_type_and_id);
    return list;
}

static void measure(const cJSON **list, size_t count, int widths[COLUMNS])
{
    char text[CELL];
    for (size_t c = 0; c < COLUMNS; c++) {
        widths[c] = (int)strlen(columns[c].title);
        for (size_t i = 0; i < count; i++) {
            cell(list[i], columns[c].key, text);
            if ((int)strlen(text) > widths[c])
                widths[c] = (int)strlen(text);
        }
    }
}

static void print_cell(FILE *to, size_t c, int width, const char *text)
{
    bool last = c + 1 == COLUMNS;
    if (columns[c].right)
        fprintf(to, "%*s", width, text);
    else
        fprintf(to, "%-*s", width, text);
    fputs(last ? "\n" : "  ", to);
}

void cli_table(const cJSON *servers, FILE *to)
{
    bool colour = cli_colour(to);
    int widths[COLUMNS];
    size_t count;
    const cJSON **list = sorted(servers, &count);
    char text[CELL];
    if (!list)
        return;
    measure(list, count, widths);
    for (size_t c = 0; c < COLUMNS; c++) {
        if (colour)
            fprintf(to, "\033[%sm", colours[c]);
        print_cell(to, c, widths[c], columns[c].title);
    }
    if (colour)
        fputs("\033[0m", to);
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < COLUMNS; c++) {
            cell(list[i], columns[c].key, text);
            print_cell(to, c, widths[c], text);
        }
    free(list);
}

int cli_print_json(cJSON *tree)
{
    char *text = NULL;
    pm_err err = tree ? pm_json_text(tree, &text) : PM_ENOMEM;
    cJSON_Delete(tree);
    if (err)
        return cli_fail(CLI_FAILED, "%s", pm_strerror(err));
    puts(text);
    pm_text_free(text);
    return CLI_OK;
}

int cli_table_json(const cJSON *servers)
{
    size_t count;
    const cJSON **list = sorted(servers, &count);
    cJSON *tree = cJSON_CreateObject();
    cJSON *array = cJSON_AddArrayToObject(tree, "servers");
    for (size_t i = 0; list && i < count; i++)
        cJSON_AddItemToArray(array, cJSON_Duplicate(list[i], 1));
    free(list);
    return cli_print_json(tree);
}
