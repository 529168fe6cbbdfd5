/* SPDX-License-Identifier: MIT */
/* pomelo_channel_internal.h -- channels, push by uid, broadcast. */
#ifndef PMI_CHANNEL_INTERNAL_H
#define PMI_CHANNEL_INTERNAL_H

#include "pomelo_session_internal.h"

typedef struct pmi_channels pmi_channels;
/* Registers what it serves (PMI_OP_PUSH, PMI_OP_BROADCAST, PMI_OP_PRESENCE).
 */
pm_err pmi_channels_new(pm_app *app, pmi_channels **out);
/* Pushes that wait complete with PM_ECLOSED. */
void pmi_channels_close(pmi_channels *channels);
void pmi_channels_free(pmi_channels *channels);
size_t pmi_channels_count(const pmi_channels *channels);
/* In order of making; each returns false to stop, and changes nothing. */
void pmi_channels_each(pmi_channels *channels,
                       bool (*each)(const pm_channel *channel, void *ctx),
                       void *ctx);
/* What has been pushed so far. Borrowed until it is freed. */
const struct pmi_pushes *pmi_channels_pushes(const pmi_channels *channels);
const struct pmi_presence *pmi_channels_presence(const pmi_channels *channels);
uint64_t pmi_channels_store_failures(const pmi_channels *channels);

#endif
