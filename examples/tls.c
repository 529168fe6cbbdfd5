/* SPDX-License-Identifier: MIT */
/* tls.c -- a server whose clients come by wss and by TLS, and clients who look
 * whom they talk to.
 *
 * What it shows: pm_connector_opts.tls, pm_client_opts.tls, and what happens to
 *                those who believe somebody else.
 * How to run:    build/examples/tls; it ends by itself.
 * What you see:  an answer by wss, one by TLS over TCP; then a client who was
 *                told to expect another name, and turns away. */
#include "pomelo.h"

#include <stdio.h>

/* For this example only: everybody can read the key. Paths would do as well. */
static const char authority[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBRTCB66ADAgECAggBiCOIe5inrDAMBggqhkjOPQQDAgUAMBwxGjAYBgNVBAMM\n"
    "EUV4YW1wbGUgYXV0aG9yaXR5MCAXDTIwMDEwMTAwMDAwMFoYDzIwOTkxMjMxMjM1\n"
    "OTU5WjAcMRowGAYDVQQDDBFFeGFtcGxlIGF1dGhvcml0eTBZMBMGByqGSM49AgEG\n"
    "CCqGSM49AwEHA0IABJoEA/qzU70f4TvReZX4bYDbwxrNiLfvsSH3XUhVrADsgniL\n"
    "uFubAYZ6tfEeiG0LlZzfVfZSgdOVE1+XYYhA8HCjEzARMA8GA1UdEwEB/wQFMAMB\n"
    "Af8wDAYIKoZIzj0EAwIFAANHADBEAiBmC9qKFaVx8wnQ3QZipBvyUf7YGpCz3Kgr\n"
    "qDC3d3o3JAIgOPBjbqWosIU/kiYq1lvlrKxZMdX4/xpV5MkkTrge6Kw=\n"
    "-----END CERTIFICATE-----\n";
static const char cert[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBWDCB/KADAgECAggBhWKNVcqvwjAMBggqhkjOPQQDAgUAMBwxGjAYBgNVBAMM\n"
    "EUV4YW1wbGUgYXV0aG9yaXR5MCAXDTIwMDEwMTAwMDAwMFoYDzIwOTkxMjMxMjM1\n"
    "OTU5WjAXMRUwEwYDVQQDDAxnYW1lLmV4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjO\n"
    "PQMBBwNCAAQ1mGZM9ddgs2EEUHp+UFc5Rmf7ViZXD8w6Y0VbVItNMtP3EpHBGADx\n"
    "dozJe1CIZ5fPQG+4x9mp9ythB0COofg+oykwJzAJBgNVHRMEAjAAMBoGA1UdEQQT\n"
    "MBGCCWxvY2FsaG9zdIcEfwAAATAMBggqhkjOPQQDAgUAA0kAMEYCIQD9b+YE07AX\n"
    "K42JyBCJ50hUHYD5luu7M5kaigHIjYWTMAIhAMxVilDhdVHcXZ7EG35W7DZUdiO6\n"
    "z363WgMkwfbziZUo\n"
    "-----END CERTIFICATE-----\n";
static const char key[] =
    "-----BEGIN EC PRIVATE KEY-----\n"
    "MHcCAQEEIE4hdIlEqYKZflGvi51sxFyUHtDWiWRwlpkzrddJtG1QoAoGCCqGSM49\n"
    "AwEHoUQDQgAENZhmTPXXYLNhBFB6flBXOUZn+1YmVw/MOmNFW1SLTTLT9xKRwRgA\n"
    "8XaMyXtQiGeXz0BvuMfZqfcrYQdAjqH4Pg==\n"
    "-----END EC PRIVATE KEY-----\n";

typedef struct stage {
    pm_loop *loop;
    int right; /* clients who saw what they should */
} stage;

static void serve_hello(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "{\"msg\":\"nobody else reads this\"}");
}

/* ---- Clients ------------------------------------------------------------ */

static void client_heard(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    stage *self = ctx;
    if (err == PM_OK) {
        printf("heard %.*s\n", (int)body.data.len,
               (const char *)body.data.data);
        self->right++;
    }
    pm_client_disconnect(client);
}

static void client_connected(pm_client *client, const struct cJSON *user,
                             void *ctx)
{
    (void)user;
    printf("connected, and it is localhost\n");
    pm_client_request(client, "game.entry.hello", pm_body_none(), client_heard,
                      ctx);
}

static void client_lost(pm_client *client, pm_close_reason reason, int code,
                        void *ctx)
{
    stage *self = ctx;
    (void)client;
    (void)code;
    printf("disconnected: %s\n", pm_close_text(reason));
    self->right += reason == PM_CLOSE_TLS ? 10 : 0;
    pm_loop_break(self->loop);
}

/* One client from beginning to end, who expects this name. */
static pm_err visit(stage *self, uint16_t port, pm_transport transport,
                    const char *name)
{
    pm_client_opts opts = pm_client_opts_default();
    pm_client *client = NULL;
    opts.loop = self->loop;
    opts.transport = transport;
    opts.port = port;
    opts.tls.on = true;
    opts.tls.ca = authority; /* left out: whom this system believes */
    opts.tls.name = name;
    opts.events.connected = client_connected;
    opts.events.disconnected = client_lost;
    opts.ctx = self;
    printf("-- by %s, to %s\n", transport == PM_TRANSPORT_WS ? "wss" : "TLS",
           name);
    pm_err err = pm_client_new(&client, &opts);
    if (err == PM_OK)
        err = pm_loop_run(self->loop);
    pm_client_free(client);
    return err;
}

/* ---- The server --------------------------------------------------------- */

static pm_err serve(stage *self, pm_app **app)
{
    pm_server server = {.id = "game-1", .type = "game", .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    opts.loop = self->loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    opts.connector.tls.cert = cert;
    opts.connector.tls.key = key;
    pm_err err = pm_app_new(app, &opts);
    if (err == PM_OK)
        err = pm_app_handler(*app, "game.entry.hello", serve_hello, NULL);
    return err ? err : pm_app_start(*app);
}

int main(void)
{
    stage self = {0};
    pm_app *app = NULL;
    pm_err err = pm_loop_new(&self.loop, NULL);
    if (err == PM_OK)
        err = serve(&self, &app);
    if (err == PM_OK) {
        uint16_t port = pm_app_client_port(app);
        err = visit(&self, port, PM_TRANSPORT_WS, "localhost");
        if (err == PM_OK)
            err = visit(&self, port, PM_TRANSPORT_TCP, "localhost");
        if (err == PM_OK)
            err = visit(&self, port, PM_TRANSPORT_WS, "bank.example");
    }
    pm_app_free(app);
    pm_loop_free(self.loop);
    if (err)
        printf("failed: %s\n", pm_strerror(err));
    return err == PM_OK && self.right == 12 ? 0 : 1;
}
