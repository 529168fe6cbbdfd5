/* SPDX-License-Identifier: MIT */
/* pomelo_table.c -- how answers are shown: aligned, in colour where somebody
 * looks, or as JSON for programs. */
#include "pomelo_cli.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CELL 256

bool cli_colour(FILE *to)
{
    const char *term = getenv("TERM");
    return isatty(fileno(to)) && !getenv("NO_COLOR") &&
           (!term || strcmp(term, "dumb") != 0);
}

static const cli_column server_columns[] = {
    {"serverId", "id", "31", false},
    {"serverType", "type", "34", false},
    {"pid", "pid", "32", true},
    {"rss", "memory MiB", "36", true},
    {"uptime", "up min", "35", true},
    {"connections", "connections", "33", true},
};

/* A member as text; what a server does not know is a dash. Strangers' texts
 * reach a terminal here: only what can be printed. */
static void cell(const cJSON *row, const char *key, char out[CELL])
{
    const cJSON *node = cJSON_GetObjectItemCaseSensitive(row, key);
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
        cell(*left, server_columns[i].key, one);
        cell(*right, server_columns[i].key, two);
        order = strcmp(one, two);
        if (order)
            return order;
    }
    return 0;
}

/* The objects of an array, by `order` if there is one; free the list. */
static const cJSON **list_of(const cJSON *rows, cli_order order, size_t *count)
{
    size_t n = rows ? (size_t)cJSON_GetArraySize(rows) : 0;
    const cJSON **list = calloc(n + 1, sizeof *list), *node;
    *count = 0;
    if (!list)
        return NULL;
    cJSON_ArrayForEach(node, rows)
    {
        if (*count < n && cJSON_IsObject(node))
            list[(*count)++] = node;
    }
    if (order)
        qsort(list, *count, sizeof *list, order);
    return list;
}

/* As wide as the widest cell. */
static int width_of(const cli_column *column, const cJSON *const *list,
                    size_t count)
{
    size_t width = strlen(column->title);
    char text[CELL];
    for (size_t i = 0; i < count; i++) {
        cell(list[i], column->key, text);
        if (strlen(text) > width)
            width = strlen(text);
    }
    return (int)width;
}

static void print_cell(FILE *to, const cli_column *column, int width, bool last,
                       const char *text)
{
    if (column->right)
        fprintf(to, "%*s", width, text);
    else
        fprintf(to, "%-*s", last ? 0 : width, text);
    fputs(last ? "\n" : "  ", to);
}

void cli_rows(const cli_column *columns, size_t columns_count,
              const cJSON *rows, cli_order order, FILE *to)
{
    bool colour = cli_colour(to);
    int widths[CLI_COLUMNS_MAX];
    size_t count, last = columns_count - 1;
    const cJSON **list = list_of(rows, order, &count);
    char text[CELL];
    for (size_t c = 0; list && c <= last; c++) {
        widths[c] = width_of(&columns[c], list, count);
        if (colour)
            fprintf(to, "\033[%sm", columns[c].colour);
        print_cell(to, &columns[c], widths[c], c == last, columns[c].title);
    }
    if (colour)
        fputs("\033[0m", to);
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c <= last; c++) {
            cell(list[i], columns[c].key, text);
            print_cell(to, &columns[c], widths[c], c == last, text);
        }
    free(list);
}

void cli_table(const cJSON *servers, FILE *to)
{
    cli_rows(server_columns, sizeof server_columns / sizeof *server_columns,
             servers, by_type_and_id, to);
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
    const cJSON **list = list_of(servers, by_type_and_id, &count);
    cJSON *tree = cJSON_CreateObject();
    cJSON *array = cJSON_AddArrayToObject(tree, "servers");
    for (size_t i = 0; list && i < count; i++)
        cJSON_AddItemToArray(array, cJSON_Duplicate(list[i], 1));
    free(list);
    return cli_print_json(tree);
}
