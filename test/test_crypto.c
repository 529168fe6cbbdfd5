/* SPDX-License-Identifier: MIT */
/* test/test_crypto.c -- core/crypto: hashes by their standards' examples, the
 * RSA check by recordings of the real thing (test/data/rsa.json) and by
 * signatures that nobody honest would make.
 *
 * The recordings hold the private exponents of their keys, so the test can
 * sign whatever it likes: see sign_raw(). */
#include "test.h"

#include "core/crypto.h"

#include <math.h>
#include <mbedtls/bignum.h>

#define SHA256_INFO "3031300d060960864801650304020105000420"
#define SHA384_INFO "3041300d060960864801650304020205000430"
#define MD5_INFO "3020300c06082a864886f70d020505000410"

/* ---- Helpers ------------------------------------------------------------ */
static pm_slice text(const char *s)
{
    pm_slice out = {s, strlen(s)};
    return out;
}

static void assert_hex(const uint8_t *bytes, size_t len, const char *want)
{
    char hex[257];
    assert_true(len <= 128);
    pmi_hex(bytes, len, hex);
    assert_string_equal(hex, want);
}

/* A key from the recordings, and how to sign with it. */
typedef struct recorded_key {
    pmi_rsa *key;
    const char *n, *d; /* hex; borrowed from the tree */
} recorded_key;

typedef struct recordings {
    test_heap heap;
    pmi_env env;
    cJSON *tree;
    recorded_key keys[8];
    int count;
} recordings;

static const char *member(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static double number(const cJSON *object, const char *name)
{
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static int setup(void **state)
{
    recordings *r = calloc(1, sizeof *r);
    char *json = test_load("rsa.json", NULL);
    cJSON *item;
    assert_non_null(r);
    r->env = test_env(&r->heap);
    r->tree = cJSON_Parse(json);
    free(json);
    assert_non_null(r->tree);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(r->tree, "keys"))
    {
        recorded_key *key = &r->keys[r->count++];
        key->n = member(item, "rsa_n");
        key->d = member(item, "d");
        assert_ok(pmi_rsa_new(&r->env, text(key->n), number(item, "rsa_e"),
                              &key->key));
    }
    assert_int_equal(r->count, 4);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    recordings *r = *state;
    for (int i = 0; i < r->count; i++)
        pmi_rsa_free(r->keys[i].key);
    cJSON_Delete(r->tree);
    assert_heap_empty(&r->heap);
    free(r);
    return 0;
}

/* number^d mod n, as hex of exactly the modulus' digits. */
static void sign_raw(const recorded_key *key, const char *hex, char *out)
{
    mbedtls_mpi m, n, d;
    uint8_t bytes[512];
    size_t digits = strlen(key->n), len = (digits + 1) / 2;
    char even[1025];
    mbedtls_mpi_init(&m);
    mbedtls_mpi_init(&n);
    mbedtls_mpi_init(&d);
    assert_int_equal(mbedtls_mpi_read_string(&m, 16, hex), 0);
    assert_int_equal(mbedtls_mpi_read_string(&n, 16, key->n), 0);
    assert_int_equal(mbedtls_mpi_read_string(&d, 16, key->d), 0);
    assert_true(mbedtls_mpi_cmp_mpi(&m, &n) < 0);
    assert_int_equal(mbedtls_mpi_exp_mod(&m, &m, &d, &n, NULL), 0);
    assert_int_equal(mbedtls_mpi_write_binary(&m, bytes, len), 0);
    pmi_hex(bytes, len, even);
    memcpy(out, even + (2 * len - digits), digits + 1);
    mbedtls_mpi_free(&m);
    mbedtls_mpi_free(&n);
    mbedtls_mpi_free(&d);
}

/* A signature whose inside is head, `fs` times f, tail and the digest of
 * "hello" under the name `info`, then `rest`. */
static void sign_padded(const recorded_key *key, const char *head, int fs,
                        const char *tail, const char *info, const char *rest,
                        char *signature)
{
    char padding[201], hex[1025], digest_hex[65];
    uint8_t digest[32];
    assert_in_range(fs, 0, 200);
    memset(padding, 'f', 200);
    padding[fs] = 0;
    if (strcmp(info, MD5_INFO) == 0) {
        pmi_md5("hello", 5, digest);
        pmi_hex(digest, 16, digest_hex);
    } else {
        pmi_sha256("hello", 5, digest);
        pmi_hex(digest, 32, digest_hex);
    }
    (void)pmi_format(hex, sizeof hex, "%s%s%s%s%s%s", head, padding, tail, info,
                     digest_hex, rest);
    sign_raw(key, hex, signature);
}

/* Is it taken for a signature of "hello"? */
static bool accepts(recordings *r, int which, const char *head, int fs,
                    const char *tail, const char *info, const char *rest)
{
    char signature[1025];
    sign_padded(&r->keys[which], head, fs, tail, info, rest, signature);
    return pmi_rsa_verify(r->keys[which].key, text("hello"), text(signature));
}

/* ---- Hashes ------------------------------------------------------------- */
static void hashes_of_the_standards(void **state)
{
    uint8_t out[32];
    char many[1000];
    (void)state;
    pmi_sha1("abc", 3, out);
    assert_hex(out, 20, "a9993e364706816aba3e25717850c26c9cd0d89d");
    pmi_sha1(NULL, 0, out);
    assert_hex(out, 20, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    pmi_sha256("abc", 3, out);
    assert_hex(out, 32,
               "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f2001"
               "5ad");
    pmi_sha256(NULL, 0, out);
    assert_hex(out, 32,
               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b"
               "855");
    pmi_md5("abc", 3, out);
    assert_hex(out, 16, "900150983cd24fb0d6963f7d28e17f72");
    pmi_md5(NULL, 0, out);
    assert_hex(out, 16, "d41d8cd98f00b204e9800998ecf8427e");
    memset(many, 'a', sizeof many);
    pmi_sha1(many, sizeof many, out);
    assert_hex(out, 20, "291e9a6c66994949b57ba5e650361e98fc36b1ba");
}

static void hmac_of_rfc_4231(void **state)
{
    uint8_t key[131], out[32];
    pm_slice k = {key, 20}, data[3];
    (void)state;
    memset(key, 0x0b, 20);
    data[0] = text("Hi There");
    pmi_hmac_sha256(k, data, 1, out);
    assert_hex(out, 32,
               "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32c"
               "ff7");
    /* In parts it is the same, also with an empty one. */
    data[0] = text("what do ya ");
    data[1] = text("");
    data[2] = text("want for nothing?");
    pmi_hmac_sha256(text("Jefe"), data, 3, out);
    assert_hex(out, 32,
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3"
               "843");
    memset(key, 0xaa, sizeof key);
    k.len = sizeof key;
    data[0] = text("Test Using Larger Than Block-Size Key - Hash Key First");
    pmi_hmac_sha256(k, data, 1, out);
    assert_hex(out, 32,
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37"
               "f54");
    k.data = NULL;
    k.len = 0;
    pmi_hmac_sha256(k, NULL, 0, out);
    assert_hex(out, 32,
               "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c"
               "5ad");
}

static void secrets_are_compared_whole(void **state)
{
    uint8_t a[32], b[32];
    (void)state;
    memset(a, 7, sizeof a);
    memcpy(b, a, sizeof b);
    assert_true(pmi_same_secret(a, b, sizeof a));
    assert_true(pmi_same_secret(NULL, NULL, 0));
    for (size_t i = 0; i < sizeof a * 8; i++) {
        b[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_false(pmi_same_secret(a, b, sizeof a));
        b[i / 8] ^= (uint8_t)(1 << i % 8);
    }
}

/* ---- Text forms, random bytes ------------------------------------------- */
static void base64_of_rfc_4648(void **state)
{
    static const char *const want[] = {
        "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    const uint8_t high[3] = {0xfb, 0xff, 0xfe};
    char out[9];
    (void)state;
    for (size_t len = 0; len < PMI_COUNT(want); len++) {
        assert_int_equal(pmi_base64("foobar", len, out), strlen(want[len]));
        assert_string_equal(out, want[len]);
    }
    assert_int_equal(pmi_base64(high, 3, out), 4);
    assert_string_equal(out, "+//+");
}

static void hex_there_and_back(void **state)
{
    uint8_t bytes[256], back[256];
    char hex[513];
    pm_slice s = {hex, 512};
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    pmi_hex(bytes, sizeof bytes, hex);
    assert_int_equal(strlen(hex), 512);
    assert_true(pmi_unhex(s, back));
    assert_memory_equal(bytes, back, sizeof bytes);
    assert_true(pmi_unhex(text("aAbBfF09"), back));
    assert_hex(back, 4, "aabbff09");
    assert_true(pmi_unhex(text(""), back));
    assert_false(pmi_unhex(text("abc"), back));
    assert_false(pmi_unhex(text("ag"), back));
    assert_false(pmi_unhex(text("g0"), back));
    assert_false(pmi_unhex(text("0 "), back));
    assert_false(pmi_unhex(text("/:@G`\x80"), back));
}

static void random_bytes_differ(void **state)
{
    uint8_t a[600] = {0}, b[600] = {0};
    unsigned zeros = 0;
    (void)state;
    assert_true(pmi_random_system(a, sizeof a));
    assert_true(pmi_random_system(b, sizeof b));
    assert_memory_not_equal(a, b, sizeof a);
    /* Filled to the end: 20 zeros in a row are not a matter of luck. */
    for (size_t i = sizeof a - 20; i < sizeof a; i++)
        zeros += a[i] == 0;
    assert_true(zeros < 20);
    assert_true(pmi_random_system(NULL, 0));
}

/* ---- RSA: keys ---------------------------------------------------------- */
/* A modulus of `digits` hex digits: first, then zeros, then last. */
static pm_err try_key(size_t digits, char first, char last, double exponent)
{
    static const uint8_t nothing[1];
    pmi_env env;
    char hex[1100];
    pm_slice s = {hex, digits};
    pmi_rsa *key = (pmi_rsa *)(uintptr_t)nothing;
    pm_err err;
    pmi_env_init(&env, NULL);
    memset(hex, '0', sizeof hex);
    hex[0] = first;
    hex[digits - 1] = last;
    err = pmi_rsa_new(&env, s, exponent, &key);
    if (err)
        assert_ptr_equal(key, nothing); /* untouched */
    else
        pmi_rsa_free(key);
    return err;
}

static void keys_out_of_bounds_are_refused(void **state)
{
    (void)state;
    assert_ok(try_key(128, '8', '1', 65537));           /* 512 bits */
    assert_err(try_key(128, '7', '1', 65537), PM_EKEY); /* 511 */
    assert_err(try_key(127, 'f', '1', 65537), PM_EKEY); /* 508 */
    assert_ok(try_key(129, '1', '1', 65537));           /* 513 */
    assert_ok(try_key(1024, 'f', 'f', 65537));          /* 4096 */
    assert_err(try_key(1025, '1', '1', 65537), PM_EKEY);
    assert_err(try_key(1025, '0', '1', 65537), PM_EKEY); /* tiny */
    assert_err(try_key(256, '8', '0', 65537), PM_EKEY);  /* even */
    assert_err(try_key(256, '8', 'e', 65537), PM_EKEY);
    assert_err(try_key(256, 'g', '1', 65537), PM_EKEY);
    assert_err(try_key(256, '8', ' ', 65537), PM_EKEY);
    assert_err(try_key(256, '-', '1', 65537), PM_EKEY);
    assert_err(try_key(1, '1', '1', 65537), PM_EKEY);
    pmi_rsa_free(NULL);
}

static void exponents_out_of_bounds_are_refused(void **state)
{
    static const double bad[] = {0,          1,         2,      4,  65536,
                                 4294967296, 1e10,      1e300,  -3, -65537,
                                 65537.5,    3.0000001, 2.9999, 0.5};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        assert_err(try_key(256, '8', '1', bad[i]), PM_EKEY);
    assert_err(try_key(256, '8', '1', (double)NAN), PM_EKEY);
    assert_err(try_key(256, '8', '1', (double)INFINITY), PM_EKEY);
    assert_err(try_key(256, '8', '1', -(double)INFINITY), PM_EKEY);
    assert_ok(try_key(256, '8', '1', 3));
    assert_ok(try_key(256, '8', '1', 17));
    assert_ok(try_key(256, '8', '1', 4294967295.0));
}

/* Before any arithmetic: not even the key's own storage is asked for. */
static void refused_keys_cost_nothing(void **state)
{
    static const struct {
        size_t digits;
        char last;
        double exponent;
    } bad[] = {{16, '1', 65537},    /* 64 bits */
               {25000, '1', 65537}, /* 100,000 */
               {256, '2', 65537},   /* even */
               {256, '1', 0}};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(bad); i++) {
        char *hex = malloc(bad[i].digits);
        pmi_rsa *key = NULL;
        assert_non_null(hex);
        memset(hex, 'f', bad[i].digits);
        hex[bad[i].digits - 1] = bad[i].last;
        assert_err(pmi_rsa_new(&env, pm_bytes(hex, bad[i].digits),
                               bad[i].exponent, &key),
                   PM_EKEY);
        assert_null(key);
        assert_int_equal(heap.calls, 0);
        free(hex);
    }
}

static void empty_and_strange_moduli_are_refused(void **state)
{
    pmi_env env;
    pmi_rsa *key = NULL;
    pm_slice nothing = {NULL, 0};
    char hex[260];
    (void)state;
    pmi_env_init(&env, NULL);
    assert_err(pmi_rsa_new(&env, nothing, 3, &key), PM_EKEY);
    assert_err(pmi_rsa_new(&env, text("0000"), 3, &key), PM_EKEY);
    memset(hex, 'f', sizeof hex);
    hex[256] = 0;
    hex[100] = '\n'; /* not even in the middle */
    assert_err(pmi_rsa_new(&env, text(hex), 3, &key), PM_EKEY);
    assert_null(key);
}

static void a_key_without_memory_is_an_error(void **state)
{
    recordings *r = *state;
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        pmi_rsa *key = NULL;
        pm_err err = pmi_rsa_new(&env, text(r->keys[0].n), 65537, &key);
        assert_err(err, heap.failed ? PM_ENOMEM : PM_OK);
        assert_int_equal(!key, heap.failed);
        pmi_rsa_free(key);
    }
}

static void leading_zeros_and_case_do_not_matter(void **state)
{
    recordings *r = *state;
    char modulus[3000], signature[1025];
    pmi_rsa *key;
    (void)pmi_format(modulus, sizeof modulus, "%02000d%s", 0, r->keys[3].n);
    for (char *p = modulus; *p; p++)
        if (*p >= 'a')
            *p = (char)(*p - 32);
    assert_ok(pmi_rsa_new(&r->env, text(modulus), 65537, &key));
    /* The count of digits is that of the number, not of the text. */
    sign_padded(&r->keys[3], "1", 150, "00", SHA256_INFO, "", signature);
    assert_true(pmi_rsa_verify(key, text("hello"), text(signature)));
    assert_false(pmi_rsa_verify(key, text("hellp"), text(signature)));
    pmi_rsa_free(key);
}

/* ---- RSA: recordings ---------------------------------------------------- */
/* The signature of a recorded body, whatever it is there. */
static pm_slice recorded_signature(const cJSON *body)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, "__crypto__");
    if (cJSON_IsString(item))
        return text(item->valuestring);
    return text(cJSON_IsNumber(item) ? "12345" : "");
}

static bool plays_body(recordings *r, const cJSON *vector)
{
    const cJSON *result = cJSON_GetObjectItemCaseSensitive(vector, "result");
    const char *hashed = member(result, "hashedUtf8");
    cJSON *body = cJSON_Parse(member(vector, "bodyJson"));
    uint8_t bytes[4096];
    pm_slice said = {bytes, 0};
    bool good;
    assert_non_null(body);
    if (hashed) {
        said.len = strlen(hashed) / 2;
        assert_true(said.len <= sizeof bytes);
        assert_true(pmi_unhex(text(hashed), bytes));
    }
    good = pmi_rsa_verify(r->keys[(int)number(vector, "key")].key, said,
                          recorded_signature(body));
    cJSON_Delete(body);
    return good ==
           cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(result, "verified"));
}

static void recorded_bodies_are_judged_alike(void **state)
{
    recordings *r = *state;
    const cJSON *vector;
    int played = 0, verified = 0;
    cJSON_ArrayForEach(vector,
                       cJSON_GetObjectItemCaseSensitive(r->tree, "vectors"))
    {
        const cJSON *result =
            cJSON_GetObjectItemCaseSensitive(vector, "result");
        if (!result)
            continue;
        if (!plays_body(r, vector))
            fail_msg("judged otherwise: %s", member(vector, "name"));
        played++;
        verified +=
            cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(result, "verified"));
    }
    assert_int_equal(played, 65);
    assert_true(verified > 30 && verified < played);
}

static void recorded_texts_are_judged_alike(void **state)
{
    recordings *r = *state;
    const cJSON *vector;
    int played = 0;
    cJSON_ArrayForEach(vector,
                       cJSON_GetObjectItemCaseSensitive(r->tree, "vectors"))
    {
        const char *as_sent = member(vector, "clientText");
        const char *canonical = member(vector, "canonical");
        const char *of_sent =
            member(cJSON_GetObjectItemCaseSensitive(vector, "signedClientText"),
                   "sig");
        const char *of_canonical = member(
            cJSON_GetObjectItemCaseSensitive(vector, "signedCanonical"), "sig");
        pmi_rsa *key;
        if (!as_sent)
            continue;
        key = r->keys[(int)number(vector, "key")].key;
        assert_true(pmi_rsa_verify(key, text(canonical), text(of_canonical)));
        assert_true(pmi_rsa_verify(key, text(as_sent), text(of_sent)));
        assert_false(pmi_rsa_verify(key, text(canonical), text(of_sent)));
        played++;
    }
    assert_int_equal(played, 9);
}

/* ---- RSA: forgeries ----------------------------------------------------- */
static void padding_is_looked_at_closely(void **state)
{
    recordings *r = *state;
    /* 1024 bits: 256 digits, 3 of them zeros, 102 behind the padding. */
    assert_true(accepts(r, 1, "1", 150, "00", SHA256_INFO, ""));
    assert_true(accepts(r, 1, "1", 182, "00", MD5_INFO, ""));
    /* The reference does not count the padding. */
    assert_true(accepts(r, 1, "1", 1, "00", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "1", 0, "00", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "", 0, "", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "", 10, "00", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "2", 150, "00", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "1", 150, "0", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "1", 150, "", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "1", 148, "0000", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "1", 40, "e00", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "1", 150, "01", SHA256_INFO, ""));
    assert_false(accepts(r, 1, "1", 150, "10", SHA256_INFO, ""));
    /* Nothing may follow: Bleichenbacher's forgery of 2006. */
    assert_false(accepts(r, 1, "1", 16, "00", SHA256_INFO, "00"));
    assert_false(accepts(r, 1, "1", 16, "00", SHA256_INFO, "0"));
    assert_false(accepts(r, 2, "1", 16, "00", SHA256_INFO,
                         "000000000000000000000000000000000000000000000001"));
    /* A digest under the name of another, or of one that is not taken. */
    assert_false(accepts(r, 1, "1", 150, "00", SHA384_INFO, ""));
    assert_false(
        accepts(r, 1, "1", 150, "00", "3021300906052b0e03021a05000414", ""));
    assert_false(accepts(r, 1, "1", 188, "00", "", ""));
}

static void extreme_numbers_are_no_signatures(void **state)
{
    recordings *r = *state;
    char digits[257];
    pm_slice s = {digits, 256};
    pm_slice nothing = {NULL, 0};
    memset(digits, 'f', sizeof digits);
    assert_false(pmi_rsa_verify(r->keys[1].key, text("hello"), s));
    memset(digits, '0', sizeof digits);
    assert_false(pmi_rsa_verify(r->keys[1].key, text("hello"), s));
    digits[255] = '1';
    assert_false(pmi_rsa_verify(r->keys[1].key, text("hello"), s));
    memcpy(digits, r->keys[1].n, 256); /* the modulus itself */
    assert_false(pmi_rsa_verify(r->keys[1].key, text("hello"), s));
    assert_false(pmi_rsa_verify(r->keys[1].key, text("hello"), nothing));
    assert_false(pmi_rsa_verify(r->keys[1].key, nothing, nothing));
    memset(digits, 'x', sizeof digits); /* not one digit */
    assert_false(pmi_rsa_verify(r->keys[1].key, text("hello"), s));
}

/* The right number in the wrong count of digits. */
static void digits_are_counted(void **state)
{
    recordings *r = *state;
    char all[6000], *signature = all + 1;
    int fs = 1;
    /* Some padding gives a signature that begins with a zero. */
    do {
        assert_true(fs < 150);
        sign_padded(&r->keys[1], "1", fs++, "00", SHA256_INFO, "", signature);
    } while (signature[0] != '0');
    assert_true(pmi_rsa_verify(r->keys[1].key, text("hello"), text(signature)));
    assert_false(
        pmi_rsa_verify(r->keys[1].key, text("hello"), text(signature + 1)));
    all[0] = '0';
    assert_false(pmi_rsa_verify(r->keys[1].key, text("hello"), text(all)));
    all[0] = '-'; /* no digit: not counted */
    assert_true(pmi_rsa_verify(r->keys[1].key, text("hello"), text(all)));
    /* Far more than any key has. */
    memset(signature + 256, 'a', sizeof all - 258);
    all[sizeof all - 1] = 0;
    assert_false(pmi_rsa_verify(r->keys[1].key, text("hello"), text(all)));
}

/* A key of 4096 bits with exponent 3, made to measure: for a cube s^3 and the
 * padded digest m, the modulus s^3 - m gives s^3 mod n = m. */
static void the_largest_key_works(void **state)
{
    recordings *r = *state;
    mbedtls_mpi s, m, n;
    uint8_t digest[32], bytes[512];
    char hex[1025], signature[1025], digest_hex[65];
    pmi_rsa *key;
    mbedtls_mpi_init(&s);
    mbedtls_mpi_init(&m);
    mbedtls_mpi_init(&n);
    pmi_sha256("hello", 5, digest);
    pmi_hex(digest, 32, digest_hex);
    memset(hex, 'f', 917);
    hex[0] = '1';
    (void)pmi_format(hex + 917, sizeof hex - 917, "00%s%s", SHA256_INFO,
                     digest_hex);
    assert_int_equal(strlen(hex), 1021);
    assert_int_equal(mbedtls_mpi_read_string(&m, 16, hex), 0);
    /* 2^1365 and a little, even or odd so that the modulus is odd. */
    assert_int_equal(mbedtls_mpi_lset(&s, 1), 0);
    assert_int_equal(mbedtls_mpi_shift_l(&s, 1365), 0);
    assert_int_equal(mbedtls_mpi_set_bit(&s, 1360, 1), 0);
    assert_int_equal(mbedtls_mpi_set_bit(&s, 0, !mbedtls_mpi_get_bit(&m, 0)),
                     0);
    assert_int_equal(mbedtls_mpi_mul_mpi(&n, &s, &s), 0);
    assert_int_equal(mbedtls_mpi_mul_mpi(&n, &n, &s), 0);
    assert_int_equal(mbedtls_mpi_sub_mpi(&n, &n, &m), 0);
    assert_int_equal(mbedtls_mpi_bitlen(&n), 4096);
    assert_int_equal(mbedtls_mpi_write_binary(&n, bytes, 512), 0);
    pmi_hex(bytes, 512, hex);
    assert_int_equal(mbedtls_mpi_write_binary(&s, bytes, 512), 0);
    pmi_hex(bytes, 512, signature);
    assert_ok(pmi_rsa_new(&r->env, text(hex), 3, &key));
    assert_true(pmi_rsa_verify(key, text("hello"), text(signature)));
    assert_false(pmi_rsa_verify(key, text("Hello"), text(signature)));
    pmi_rsa_free(key);
    mbedtls_mpi_free(&s);
    mbedtls_mpi_free(&m);
    mbedtls_mpi_free(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_of_the_standards),
        cmocka_unit_test(hmac_of_rfc_4231),
        cmocka_unit_test(secrets_are_compared_whole),
        cmocka_unit_test(base64_of_rfc_4648),
        cmocka_unit_test(hex_there_and_back),
        cmocka_unit_test(random_bytes_differ),
        cmocka_unit_test(keys_out_of_bounds_are_refused),
        cmocka_unit_test(exponents_out_of_bounds_are_refused),
        cmocka_unit_test(empty_and_strange_moduli_are_refused),
        cmocka_unit_test(refused_keys_cost_nothing),
        cmocka_unit_test(a_key_without_memory_is_an_error),
        cmocka_unit_test(leading_zeros_and_case_do_not_matter),
        cmocka_unit_test(recorded_bodies_are_judged_alike),
        cmocka_unit_test(recorded_texts_are_judged_alike),
        cmocka_unit_test(padding_is_looked_at_closely),
        cmocka_unit_test(extreme_numbers_are_no_signatures),
        cmocka_unit_test(digits_are_counted),
        cmocka_unit_test(the_largest_key_works),
    };
    test_deadline(TEST_DEADLINE_S);
    return cmocka_run_group_tests(tests, setup, teardown);
}
