/* SPDX-License-Identifier: MIT */
/* core/json_number.c -- the shortest text of a double, the nearest double of
 * a text.
 *
 * Both ways need a power of ten that no double can hold. Both are done twice:
 *
 *   quick   with the first 128 bits of the power, cut off, so that the true
 *           result lies in a known tiny interval above what we compute. If
 *           everything in that interval rounds to one side, this is the
 *           answer.
 *   exact   with big integers, for the rare rest (true ties, mostly).
 *
 * So the quick way needs no proof beyond its error bound, and a mistake in the
 * bound can only be one of being too small: NUMBER_SLACK is several times
 * what the comments derive. Powers are made of two tables: 10^(55 i), cut at
 * 128 bits, and 5^j, which is exact.
 *
 * Rounding is to nearest and even. No floating-point arithmetic takes part,
 * but for the short decimals at the top of pmi_json_to_double().
 * Start reading at pmi_json_number() and pmi_json_to_double(). */
#include "json_number.h"

#include <float.h>

#define NUMBER_SLACK 16u  /* bound of the quick way's error, in last units */
#define NUMBER_DIGITS 800 /* digits that matter: 767 decide any tie */
#define NUMBER_LIMBS 96   /* of 32 bits; the largest product has 85 */

/* ---- 128 bits ---------------------------------------------------------- */
typedef struct number_wide {
    uint64_t hi, lo;
} number_wide;

/* top is in [2^127, 2^128); the power lies in [top, top + 3) * 2^exp. */
typedef struct number_power {
    number_wide top;
    int32_t exp;
} number_power;

/* 10^(55 i) from i = -7, cut to 128 bits. */
#define NUMBER_COARSE_STEP 55
#define NUMBER_COARSE_FIRST (-385)
static const number_power number_coarse[] = {
    {{0x8538B653C0E26D12, 0xD3E2E66644B8673E}, -1406},
    {{0xD953E8624B85DD78, 0xD71D6DAD34A2AF0D}, -1224},
    {{0xB1442798F49FFB4A, 0x99CD11CFDF41779C}, -1041},
    {{0x9096EA6F3848984F, 0x3FF0D2C85DEF7621}, -858},
    {{0xEBDF661791D60F56, 0x111B495B3464AD21}, -676},
    {{0xC06481FB9BCF8D39, 0xE45EC2862F71E1D6}, -493},
    {{0x9CED737BB6C4183D, 0x55464DD69685606B}, -310},
    {{0x8000000000000000, 0x0000000000000000}, -127},
    {{0xD0CF4B50CFE20765, 0xFFF4B4E3F741CF6D}, 55},
    {{0xAA51823E34A7EEDE, 0xBD4B46F0599FD415}, 238},
    {{0x8AEC23D680043BEE, 0x25DE7BB9480D5854}, 421},
    {{0xE2A0B5DC971F303A, 0x2E44AE64840FD61D}, 603},
    {{0xB8DA1662E7B00A17, 0x3D6A751F3B936243}, 786},
    {{0x96C6E0EAB509E64D, 0x5ECA783430DC19F5}, 969},
};

/* 5^j; 5^27 is the last one below 2^64. */
#define NUMBER_FIVES 28
static const uint64_t number_fives[NUMBER_FIVES] = {
    1u,
    5u,
    25u,
    125u,
    625u,
    3125u,
    15625u,
    78125u,
    390625u,
    1953125u,
    9765625u,
    48828125u,
    244140625u,
    1220703125u,
    6103515625u,
    30517578125u,
    152587890625u,
    762939453125u,
    3814697265625u,
    19073486328125u,
    95367431640625u,
    476837158203125u,
    2384185791015625u,
    11920928955078125u,
    59604644775390625u,
    298023223876953125u,
    1490116119384765625u,
    7450580596923828125u,
};

/* Bits up to and with the highest one. */
static int32_t number_width(uint64_t value)
{
    int32_t width = 0, step;
    for (step = 32; step > 0; step /= 2)
        if (value >> step) {
            value >>= step;
            width += step;
        }
    return width + (value ? 1 : 0);
}

/* In 32-bit halves: not every compiler has a 128-bit type. */
static number_wide number_mul(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t low = a0 * b0, cross = a1 * b0 + (low >> 32);
    uint64_t other = a0 * b1 + (uint32_t)cross;
    number_wide out = {a1 * b1 + (cross >> 32) + (other >> 32),
                       other << 32 | (uint32_t)low};
    return out;
}

/* 10^j for j in 0..54: 5^j in 128 bits, exact, times 2^j. */
static number_power number_fine(int32_t j)
{
    number_power out = {{0, 0}, j};
    int32_t shift;
    if (j < NUMBER_FIVES)
        out.top.lo = number_fives[j];
    else
        out.top = number_mul(number_fives[NUMBER_FIVES - 1],
                             number_fives[j - (NUMBER_FIVES - 1)]);
    if (!out.top.hi) {
        out.top.hi = out.top.lo;
        out.top.lo = 0;
        out.exp -= 64;
    }
    shift = 64 - number_width(out.top.hi);
    if (shift) {
        out.top.hi = out.top.hi << shift | out.top.lo >> (64 - shift);
        out.top.lo <<= shift;
    }
    out.exp -= shift;
    return out;
}

/* 10^power for power in -385..384. The coarse factor is short of the truth by
 * less than a unit, which makes less than one here; cutting the product makes
 * another; a shift by one doubles the first: below 3. */
static number_power number_power10(int32_t power)
{
    int32_t from = power - NUMBER_COARSE_FIRST;
    number_power a = number_coarse[from / NUMBER_COARSE_STEP];
    number_power b = number_fine(from % NUMBER_COARSE_STEP);
    number_wide ll = number_mul(a.top.lo, b.top.lo);
    number_wide lh = number_mul(a.top.lo, b.top.hi);
    number_wide hl = number_mul(a.top.hi, b.top.lo);
    number_wide hh = number_mul(a.top.hi, b.top.hi);
    uint64_t mid = ll.hi + lh.lo, carry = mid < lh.lo, sum;
    number_power out;
    mid += hl.lo;
    carry += mid < hl.lo;
    sum = hh.lo + carry;
    out.top.hi = hh.hi + (sum < carry);
    out.top.lo = sum + lh.hi;
    out.top.hi += out.top.lo < lh.hi;
    out.top.lo += hl.hi;
    out.top.hi += out.top.lo < hl.hi;
    out.exp = a.exp + b.exp + 128;
    if (!(out.top.hi >> 63)) {
        out.top.hi = out.top.hi << 1 | out.top.lo >> 63;
        out.top.lo = out.top.lo << 1 | mid >> 63;
        out.exp--;
    }
    return out;
}

/* floor(m * top / 2^shift) for shift in 0..127, where the result is known to
 * fit. */
static number_wide number_scale(uint64_t m, const number_power *p,
                                int32_t shift)
{
    number_wide low = number_mul(m, p->top.lo);
    number_wide high = number_mul(m, p->top.hi), out;
    uint64_t p0 = low.lo, p1 = high.lo + low.hi, p2;
    p2 = high.hi + (p1 < low.hi);
    if (shift >= 64) {
        p0 = p1;
        p1 = p2;
        p2 = 0;
        shift -= 64;
    }
    out.hi = shift ? p2 << (64 - shift) | p1 >> shift : p1;
    out.lo = shift ? p1 << (64 - shift) | p0 >> shift : p0;
    return out;
}

/* ---- Big integers ------------------------------------------------------ */
typedef struct number_big {
    uint32_t n; /* limbs used; the highest is not 0 */
    uint32_t limb[NUMBER_LIMBS];
} number_big;

/* big = big * by + plus */
static void number_big_mul(number_big *big, uint32_t by, uint32_t plus)
{
    uint64_t carry = plus;
    for (uint32_t i = 0; i < big->n; i++) {
        carry += (uint64_t)big->limb[i] * by;
        big->limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry) {
        PMI_ASSERT(big->n < NUMBER_LIMBS);
        big->limb[big->n++] = (uint32_t)carry;
    }
}

static void number_big_set(number_big *big, uint64_t value)
{
    big->n = 0;
    for (; value; value >>= 32)
        big->limb[big->n++] = (uint32_t)value;
}

static void number_big_mul_pow5(number_big *big, int32_t power)
{
    for (; power >= 13; power -= 13)
        number_big_mul(big, 1220703125u, 0);
    if (power > 0)
        number_big_mul(big, (uint32_t)number_fives[power], 0);
}

static void number_big_shift(number_big *big, int32_t bits)
{
    uint32_t limbs = (uint32_t)bits / 32, i;
    if (!big->n)
        return;
    number_big_mul(big, (uint32_t)1 << (bits % 32), 0);
    if (!limbs)
        return;
    PMI_ASSERT(big->n + limbs <= NUMBER_LIMBS);
    for (i = big->n; i > 0; i--)
        big->limb[i - 1 + limbs] = big->limb[i - 1];
    memset(big->limb, 0, limbs * sizeof big->limb[0]);
    big->n += limbs;
}

static int number_big_compare(const number_big *a, const number_big *b)
{
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    for (uint32_t i = a->n; i > 0; i--)
        if (a->limb[i - 1] != b->limb[i - 1])
            return a->limb[i - 1] < b->limb[i - 1] ? -1 : 1;
    return 0;
}

/* a + b against c, without changing any. */
static int number_big_compare_sum(const number_big *a, const number_big *b,
                                  const number_big *c)
{
    number_big sum = *a;
    uint64_t carry = 0;
    for (uint32_t i = 0; i < sum.n || i < b->n || carry; i++) {
        PMI_ASSERT(i < NUMBER_LIMBS);
        if (i >= sum.n)
            sum.limb[sum.n++] = 0;
        carry += (uint64_t)sum.limb[i] + (i < b->n ? b->limb[i] : 0);
        sum.limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return number_big_compare(&sum, c);
}

/* a -= b, where a >= b. */
static void number_big_sub(number_big *a, const number_big *b)
{
    uint64_t borrow = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        uint64_t take = (i < b->n ? b->limb[i] : 0) + borrow;
        borrow = a->limb[i] < take;
        a->limb[i] = (uint32_t)(a->limb[i] - take);
    }
    while (a->n && !a->limb[a->n - 1])
        a->n--;
}

/* ---- To text ----------------------------------------------------------- */
/* A positive double: m * 2^q. */
typedef struct number_binary {
    uint64_t m;
    int32_t q;
    bool edge; /* a power of two: its lower neighbour is half as far */
} number_binary;

/* Its shortest form: digits * 10^exp, not ending in 0. */
typedef struct number_decimal {
    uint64_t digits;
    int32_t exp;
} number_decimal;

static number_binary number_split(double value)
{
    number_binary out;
    uint64_t bits;
    int32_t exp;
    memcpy(&bits, &value, sizeof bits);
    out.m = bits & 0xFFFFFFFFFFFFFu;
    exp = (int32_t)(bits >> 52 & 0x7FF);
    out.edge = out.m == 0 && exp > 1;
    if (exp)
        out.m |= (uint64_t)1 << 52;
    out.q = (exp ? exp : 1) - 1075;
    return out;
}

/* floor(log10(2^x)) for x in -1100..1100, where the error of the fraction is
 * too small to reach a whole number. */
static int32_t number_log10(int32_t x)
{
    return (int32_t)(((int64_t)x * 1292913986 + ((int64_t)2048 << 32)) >> 32) -
           2048;
}

/* Of the whole numbers in [first, last] take one with the most zeros at its
 * end, and of those the one next to `mid`. False when `mid` is too near to the
 * middle of two. */
static bool number_pick(uint64_t first, uint64_t last, number_wide mid,
                        number_decimal *out)
{
    uint64_t unit = 1, down, rest, half;
    bool up;
    int32_t zeros = 0;
    while (last / (unit * 10) * (unit * 10) >= first) {
        unit *= 10;
        zeros++;
    }
    down = mid.hi / unit * unit;
    rest = mid.hi - down;
    half = (uint64_t)1 << 63; /* of the fraction, when the unit is 1 */
    if (down < first)
        up = true;
    else if (down + unit > last)
        up = false;
    else if (unit == 1 && mid.lo <= half && mid.lo + NUMBER_SLACK >= half)
        return false;
    else if (unit > 1 && rest == unit / 2 && mid.lo == 0)
        return false;
    else
        up = unit == 1 ? mid.lo > half : rest >= unit / 2;
    out->digits = down / unit + (up ? 1 : 0);
    out->exp += zeros;
    return true;
}

/* Scales the double and the borders of what rounds to it so that there are 17
 * or 18 digits before the point, with 64 bits behind it. There the borders are
 * more than 1 apart, so a whole number lies between them. The power's error
 * is divided by more than 2^4 on the way: results are short by less than 2. */
static bool number_shortest_quick(const number_binary *v, number_decimal *out)
{
    int32_t scale = 16 - number_log10(number_width(v->m) - 1 + v->q);
    number_power p = number_power10(scale);
    int32_t shift = -(v->q - 2 + p.exp + 64);
    number_wide low = number_scale(4 * v->m - (v->edge ? 1 : 2), &p, shift);
    number_wide mid = number_scale(4 * v->m, &p, shift);
    number_wide high = number_scale(4 * v->m + 2, &p, shift);
    uint64_t sure = UINT64_MAX - NUMBER_SLACK;
    /* A border that is a whole number, or may be one: exact decides. */
    if (low.lo == 0 || low.lo > sure || high.lo == 0 || high.lo > sure ||
        mid.lo > sure || low.hi >= high.hi)
        return false;
    out->exp = -scale;
    return number_pick(low.hi + 1, high.hi, mid, out);
}

/* v = r / s, its borders are v - below / s and v + above / s; all times a
 * power of ten so that the first digit stands before the point. */
typedef struct number_ratio {
    number_big r, s, above, below;
    bool even; /* the borders round to v */
} number_ratio;

static void number_ratio_tens(number_ratio *x)
{
    number_big_mul(&x->r, 10, 0);
    number_big_mul(&x->above, 10, 0);
    number_big_mul(&x->below, 10, 0);
}

/* Returns the power of ten of the first digit. */
static int32_t number_ratio_init(number_ratio *x, const number_binary *v)
{
    int32_t power = number_log10(number_width(v->m) - 1 + v->q), tens;
    int32_t up = v->q > 0 ? v->q : 0, down = v->q < 0 ? -v->q : 0;
    int order;
    number_big_set(&x->r, 4 * v->m);
    number_big_set(&x->s, 4);
    number_big_set(&x->above, 2);
    number_big_set(&x->below, v->edge ? 1 : 2);
    x->even = v->m % 2 == 0;
    tens = power < 0 ? -power : 0;
    number_big_mul_pow5(&x->r, tens);
    number_big_mul_pow5(&x->above, tens);
    number_big_mul_pow5(&x->below, tens);
    number_big_shift(&x->r, up + tens);
    number_big_shift(&x->above, up + tens);
    number_big_shift(&x->below, up + tens);
    tens = power > 0 ? power : 0;
    number_big_mul_pow5(&x->s, tens);
    number_big_shift(&x->s, down + tens);
    number_big_mul(&x->s, 10, 0);
    order = number_big_compare_sum(&x->r, &x->above, &x->s);
    if (order > 0 || (order == 0 && x->even))
        return power + 1;
    number_ratio_tens(x);
    return power;
}

/* Digit by digit until what is left lies within a border. */
static void number_shortest_exact(const number_binary *v, number_decimal *out)
{
    number_ratio x;
    int32_t power = number_ratio_init(&x, v);
    uint64_t digits = 0;
    for (;; power--, number_ratio_tens(&x)) {
        uint32_t digit = 0;
        int low, high, middle;
        while (number_big_compare(&x.r, &x.s) >= 0) {
            number_big_sub(&x.r, &x.s);
            digit++;
        }
        digits = digits * 10 + digit;
        low = number_big_compare(&x.r, &x.below);
        high = number_big_compare_sum(&x.r, &x.above, &x.s);
        low = low < 0 || (low == 0 && x.even);
        high = high > 0 || (high == 0 && x.even);
        if (!low && !high)
            continue;
        middle = number_big_compare_sum(&x.r, &x.r, &x.s);
        if (high && (!low || middle > 0 || (middle == 0 && digit % 2)))
            digits++;
        break;
    }
    out->digits = digits;
    out->exp = power;
}

static size_t number_put_uint(uint64_t value, char *out)
{
    char digits[20];
    size_t n = 0, i;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    for (i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    return n;
}

/* d.ddde+x */
static size_t number_put_scientific(char *out, size_t n, int32_t exp)
{
    size_t len = n;
    if (n > 1) {
        memmove(out + 2, out + 1, n - 1);
        out[1] = '.';
        len++;
    }
    out[len++] = 'e';
    out[len++] = exp < 0 ? '-' : '+';
    return len + number_put_uint((uint64_t)(exp < 0 ? -exp : exp), out + len);
}

/* Number::toString of ECMA-262: the point stands `point` digits from the
 * left; scientific from 10^21 on and below 10^-6. */
static size_t number_layout(const number_decimal *d, char *out)
{
    size_t n = number_put_uint(d->digits, out), zeros;
    int32_t point = (int32_t)n + d->exp;
    if (point > 21 || point <= -6)
        return number_put_scientific(out, n, point - 1);
    if (d->exp >= 0) {
        memset(out + n, '0', (size_t)d->exp);
        return (size_t)point;
    }
    if (point > 0) {
        memmove(out + point + 1, out + point, n - (size_t)point);
        out[point] = '.';
        return n + 1;
    }
    zeros = (size_t)(2 - point);
    memmove(out + zeros, out, n);
    memset(out, '0', zeros);
    out[1] = '.';
    return n + zeros;
}

static size_t number_put_text(const char *text, char *out)
{
    size_t n = strlen(text);
    memcpy(out, text, n + 1);
    return n;
}

size_t pmi_json_number(double value, char out[32])
{
    size_t len = 0;
    number_binary v;
    number_decimal d;
    if (value != value)
        return number_put_text("NaN", out);
    if (value < 0) {
        out[len++] = '-';
        value = -value;
    }
    if (value > DBL_MAX)
        return len + number_put_text("Infinity", out + len);
    /* Whole numbers below 2^53 are their own shortest text. */
    if (value < 9007199254740992.0 && value == (double)(int64_t)value) {
        len += number_put_uint((uint64_t)value, out + len);
    } else {
        v = number_split(value);
        if (!number_shortest_quick(&v, &d))
            number_shortest_exact(&v, &d);
        len += number_layout(&d, out + len);
    }
    out[len] = 0;
    return len;
}

/* ---- From text --------------------------------------------------------- */
/* |value| = digits * 10^exp, or a bit more when digits are left over. */
typedef struct number_text {
    pm_slice digits; /* mantissa from its first digit that is not 0 */
    uint64_t head;   /* its first 19 digits at most */
    int64_t exp;     /* of head */
    bool more;       /* a digit behind head is not 0 */
    bool negative;
} number_text;

/* Reads the exponent behind the e; saturates far beyond any text's length. */
static int64_t number_read_exp(const char *at, const char *end)
{
    int64_t exp = 0;
    bool negative = *at == '-';
    if (*at == '-' || *at == '+')
        at++;
    for (; at < end; at++)
        if (exp < INT64_MAX / 100)
            exp = exp * 10 + (*at - '0');
    return negative ? -exp : exp;
}

static number_text number_read(pm_slice text)
{
    const char *at = text.data, *end = at + text.len;
    number_text out = {{NULL, 0}, 0, 0, false, *at == '-'};
    uint32_t taken = 0;
    bool fraction = false;
    if (out.negative)
        at++;
    for (; at < end && *at != 'e' && *at != 'E'; at++) {
        if (*at == '.') {
            fraction = true;
            continue;
        }
        if (!out.digits.data && *at != '0')
            out.digits.data = at;
        if (taken < 19) {
            out.head = out.head * 10 + (uint64_t)(*at - '0');
            taken += out.head ? 1 : 0;
            out.exp -= fraction ? 1 : 0;
        } else {
            out.more = out.more || *at != '0';
            out.exp += fraction ? 0 : 1;
        }
    }
    if (out.digits.data)
        out.digits.len = (size_t)(at - (const char *)out.digits.data);
    if (at < end)
        out.exp += number_read_exp(at + 1, end);
    return out;
}

/* All digits as a big integer times a power of ten. Digits behind the first
 * NUMBER_DIGITS can not decide but by being there: one 1 stands for them. */
static void number_read_big(const number_text *x, number_big *big, int64_t *exp)
{
    const char *at = x->digits.data, *end = at + x->digits.len;
    int64_t seen = 0, used;
    uint32_t part = 0, scale = 1; /* nine digits in one multiplication */
    bool rest = false;
    big->n = 0;
    for (; at < end; at++) {
        if (*at == '.')
            continue;
        if (++seen > NUMBER_DIGITS) {
            rest = rest || *at != '0';
            continue;
        }
        part = part * 10 + (uint32_t)(*at - '0');
        scale *= 10;
        if (scale == 1000000000) {
            number_big_mul(big, scale, part);
            part = 0;
            scale = 1;
        }
    }
    number_big_mul(big, scale, part);
    used = seen < NUMBER_DIGITS ? seen : NUMBER_DIGITS;
    if (rest) {
        number_big_mul(big, 10, 1);
        used++;
    }
    *exp = x->exp + (seen < 19 ? seen : 19) - used;
}

/* Is the text above the middle between m * 2^q and (m + 1) * 2^q? The tie
 * goes to the even one. */
static bool number_rounds_up(const number_text *x, uint64_t m, int32_t q)
{
    number_big text, middle;
    int64_t exp;
    int32_t shift, tens;
    int order;
    number_read_big(x, &text, &exp);
    number_big_set(&middle, 2 * m + 1);
    tens = (int32_t)exp;
    if (tens > 0)
        number_big_mul_pow5(&text, tens);
    else
        number_big_mul_pow5(&middle, -tens);
    shift = q - 1 - tens;
    number_big_shift(shift > 0 ? &middle : &text, shift > 0 ? shift : -shift);
    order = number_big_compare(&text, &middle);
    return order > 0 || (order == 0 && m % 2);
}

/* Rounds `top` * 2^exp (top bit set, true value up to `slack` above) to 53
 * bits, fewer below 2^-1022. */
static uint64_t number_round(const number_text *x, number_wide top, int32_t exp,
                             number_wide slack)
{
    int32_t order = exp + 127, keep = 53, drop;
    uint64_t m, rest, half;
    bool sure;
    if (order < -1022)
        keep = order + 1022 + 53;
    if (keep < 0)
        return keep == -1 && number_rounds_up(x, 0, -1074) ? 1 : 0;
    drop = 64 - keep; /* of the higher word: 11 to 64 */
    m = drop < 64 ? top.hi >> drop : 0;
    rest = drop < 64 ? top.hi & (((uint64_t)1 << drop) - 1) : top.hi;
    half = (uint64_t)1 << (drop - 1);
    /* Certain: so far below that the slack does not reach half, or above. */
    sure = rest > half || (rest == half && top.lo > 0) ||
           rest + slack.hi + 1 < half ||
           (rest + slack.hi < half && top.lo <= UINT64_MAX - slack.lo);
    if (sure)
        m += rest >= half ? 1 : 0;
    else
        m += number_rounds_up(x, m, exp + 64 + drop) ? 1 : 0;
    if (order < -1022)
        return m;
    /* The bit that m has and a double has not adds one to the exponent. */
    return ((uint64_t)(order + 1022) << 52) + m;
}

static uint64_t number_nearest(const number_text *x)
{
    uint64_t infinity = (uint64_t)0x7FF << 52, bits;
    number_wide top, slack = {0, NUMBER_SLACK};
    number_power p;
    int32_t shift;
    if (!x->head || x->exp < -345)
        return 0;
    if (x->exp > 309)
        return infinity;
    p = number_power10((int32_t)x->exp);
    shift = 64 - number_width(x->head);
    top = number_scale(x->head << shift, &p, 64);
    p.exp += 64 - shift;
    if (!(top.hi >> 63)) {
        top.hi = top.hi << 1 | top.lo >> 63;
        top.lo <<= 1;
        p.exp--;
    }
    /* Digits left over: less than one more in a head of 60 bits or more. */
    if (x->more)
        slack.hi = 64;
    if (p.exp + 127 > 1023)
        return infinity;
    bits = number_round(x, top, p.exp, slack);
    return bits < infinity ? bits : infinity;
}

/* Powers of ten that a double holds exactly: one operation, one rounding. */
static bool number_easy(const number_text *x, double *out)
{
    static const double tens[] = {
        1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (FLT_EVAL_METHOD != 0 || x->more || x->head > 9007199254740992u ||
        x->exp < -22 || x->exp > 22)
        return false;
    *out = x->exp < 0 ? (double)x->head / tens[-x->exp]
                      : (double)x->head * tens[x->exp];
    return true;
}

double pmi_json_to_double(pm_slice text)
{
    number_text x = number_read(text);
    double out;
    uint64_t bits;
    if (!number_easy(&x, &out)) {
        bits = number_nearest(&x);
        memcpy(&out, &bits, sizeof out);
    }
    return x.negative ? -out : out;
}
