/* SPDX-License-Identifier: MIT */
/* test/test_sim.c -- the simulator's seeds, as a test: 1,000 of them, 200 where
 * the sanitizers look on, 100,000 with PM_PROOF=1. And the simulator itself: a
 * seed is the same run in every process and from every compiler, and a lost
 * completion does not stay hidden. */
#include "test.h"

#include <glob.h>
#include <sys/stat.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_SANITIZED
#endif
#endif
#if defined(SIM_SANITIZED) || defined(__SANITIZE_ADDRESS__)
enum { SEEDS = 200 };
#else
enum { SEEDS = 1000 };
#endif
enum { PROOF_SEEDS = 100000, SAME_SEEDS = 60, PARTS = 2 };

static const char *sim_build(void)
{
    const char *build = getenv("PM_BUILD");
    return build ? build : "build";
}

static FILE *sim_start(const char *build, const char *args)
{
    char line[1200];
    FILE *run;
    snprintf(line, sizeof line, "exec %s/test/sim/sim %s 2>&1", build, args);
    fflush(NULL);
    run = popen(line, "r");
    assert_non_null(run);
    return run;
}

/* Its status; `last` gets what it said last: the hash, or what has failed and
 * how to replay it. */
static int sim_end(FILE *run, char *last, size_t size)
{
    char line[1024];
    last[0] = 0;
    while (fgets(line, sizeof line, run)) {
        size_t at = strncmp(line, "replay:", 7) ? 0 : strlen(last);
        snprintf(last + at, size - at, "%s", line);
    }
    return pclose(run);
}

static void test_seeds(void **state)
{
    unsigned long count = getenv("PM_PROOF") ? PROOF_SEEDS : SEEDS;
    FILE *runs[PARTS];
    bool good = true;
    (void)state;
    for (unsigned i = 0; i < PARTS; i++) {
        char args[64];
        snprintf(args, sizeof args, "--seeds %lu-%lu", 1 + i * (count / PARTS),
                 (i + 1) * (count / PARTS));
        runs[i] = sim_start(sim_build(), args);
    }
    for (unsigned i = 0; i < PARTS; i++) {
        char last[2048];
        if (sim_end(runs[i], last, sizeof last) == 0)
            continue;
        print_error("%s", last);
        good = false;
    }
    assert_true(good);
}

static void sim_hash(const char *build, char *out, size_t size)
{
    char args[64];
    snprintf(args, sizeof args, "--seeds 1-%d", SAME_SEEDS);
    if (sim_end(sim_start(build, args), out, size))
        fail_msg("%s/test/sim/sim: %s", build, out);
}

/* Every process has its addresses elsewhere. */
static void test_same_in_every_process(void **state)
{
    char first[2048], again[2048];
    (void)state;
    sim_hash(sim_build(), first, sizeof first);
    sim_hash(sim_build(), again, sizeof again);
    assert_non_null(strstr(first, "hash"));
    assert_string_equal(first, again);
}

/* Is that program younger than all it was made of? */
static bool sim_is_fresh(const char *build)
{
    static const char *const made_of[] = {"*.[ch]", "core/*.[ch]",
                                          "test/sim/*.[ch]", "test/test.h"};
    char path[1100];
    struct stat program, source;
    glob_t all = {0};
    bool fresh = true;
    snprintf(path, sizeof path, "%s/test/sim/sim", build);
    if (stat(path, &program))
        return false;
    for (size_t i = 0; i < sizeof made_of / sizeof *made_of; i++)
        glob(made_of[i], i ? GLOB_APPEND : 0, NULL, &all);
    for (size_t i = 0; i < all.gl_pathc; i++)
        if (stat(all.gl_pathv[i], &source) ||
            source.st_mtime > program.st_mtime)
            fresh = false;
    globfree(&all);
    return fresh;
}

/* Other flavours, and the other compiler's, lie in the folders around ours. */
static void test_same_in_every_build(void **state)
{
    char ours[2048], theirs[2048], build[1024];
    int compared = 0;
    (void)state;
    sim_hash(sim_build(), ours, sizeof ours);
    for (int up = 1; up <= 2; up++) {
        snprintf(build, sizeof build, "%s%s", sim_build(),
                 up == 1 ? "/.." : "/../..");
        if (!sim_is_fresh(build))
            continue;
        sim_hash(build, theirs, sizeof theirs);
        assert_string_equal(theirs, ours);
        compared++;
    }
    if (!compared)
        skip();
}

static void test_lost_completion_is_found(void **state)
{
    char last[2048];
    int status =
        sim_end(sim_start(sim_build(), "--seeds 1-1000 --bug drop-completion"),
                last, sizeof last);
    (void)state;
    assert_int_not_equal(status, 0);
    assert_non_null(strstr(last, "replay: sim --seed "));
    assert_non_null(strstr(last, "--bug drop-completion"));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_same_in_every_process),
    cmocka_unit_test(test_same_in_every_build),
    cmocka_unit_test(test_lost_completion_is_found),
    cmocka_unit_test(test_seeds),
};

int main(void)
{
    test_deadline(getenv("PM_PROOF") ? 4 * 3600 : 110);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
