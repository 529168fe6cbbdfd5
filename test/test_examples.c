/* SPDX-License-Identifier: MIT */
/* test_examples.c -- runs the examples that end by themselves: each has a
 * client of its own, and tells by its status whether it saw what it should.
 * PM_BUILD is the folder with the programs. */
#include "test.h"

#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static void run(const char *name)
{
    const char *build = getenv("PM_BUILD");
    char path[4096];
    char *argv[] = {path, NULL};
    int status = -1;
    pid_t child;
    snprintf(path, sizeof path, "%s/examples/%s", build ? build : "build",
             name);
    if (access(path, X_OK) != 0)
        fail_msg("%s is not built", path);
    assert_int_equal(posix_spawn(&child, path, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_embed_loop(void **state)
{
    (void)state;
    run("embed_loop");
}

static void test_filter(void **state)
{
    (void)state;
    run("filter");
}

static void test_game_tick(void **state)
{
    (void)state;
    run("game_tick");
}

static void test_rpc(void **state)
{
    (void)state;
    run("rpc");
}

static void test_tls(void **state)
{
    (void)state;
    run("tls");
}

static void test_typed(void **state)
{
    (void)state;
    run("typed");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_embed_loop), cmocka_unit_test(test_filter),
    cmocka_unit_test(test_game_tick),  cmocka_unit_test(test_rpc),
    cmocka_unit_test(test_tls),        cmocka_unit_test(test_typed)};

TEST_MAIN(tests)
