/* SPDX-License-Identifier: MIT */
/* pomelo_meter_internal.h -- what one session may send, and what is refused:
 * rates, idle time, signatures, overload.
 *
 * Everything here is off by default, and then costs one bit that is looked at.
 * A session that has a meter pays for it with an object of its own. */
#ifndef PMI_METER_INTERNAL_H
#define PMI_METER_INTERNAL_H

#include "core/rate.h"
#include "pomelo_downlink_internal.h"

/* What the sessions of a frontend share. */
typedef struct pmi_meters {
    void (*late)(pmi_timer *timer); /* of pmi_downlink.timer */
    pmi_rate_limit messages, bytes, signatures;
    uint64_t idle_us, lag_us; /* 0: off */
    uint64_t hot_until_us;    /* somebody was refused for the lag */
    /* Whose messages are being read in this round, and since when. */
    const pmi_downlink *speaker;
    uint64_t spoke_us;
} pmi_meters;
void pmi_meters_init(pmi_meters *meters, pm_app *app,
                     void (*late)(pmi_timer *timer));

typedef struct pmi_meter {
    pmi_meters *meters; /* borrowed: the connector's */
    pmi_downlink *down;
    pmi_rsa *key; /* owned; NULL: none, or unusable */
    pmi_rate messages, bytes, signatures;
    uint64_t heard_us; /* the last DATA */
    pmi_timer idle;
} pmi_meter;
/* Gives the client its meter. PM_ENOMEM */
pm_err pmi_meter_open(pmi_meters *meters, pmi_downlink *down);
/* The session begins. PM_ENOMEM */
pm_err pmi_meter_start(pmi_meters *meters, pmi_downlink *down);
void pmi_meter_close(pmi_downlink *down);

/* A package of a session has come in. False: it must not be looked at, since it
 * was refused or the connection is closed. True with down->delayed: it may, but
 * nothing behind it is read until the client's timer fires. */
bool pmi_meter_package(pmi_meters *meters, pmi_downlink *down,
                       const pmi_package *package);
/* A signature is about to be checked. False: too many, and closed for it. */
bool pmi_meter_signature(pmi_downlink *down);

#endif
