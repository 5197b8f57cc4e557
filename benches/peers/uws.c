/* The broadcaster of `uws` in C: uWebSockets without an interpreter around it. The argument is the port; after it come a
 * certificate and its key, for TLS.
 *
 * It needs socketify's library, which contains uWebSockets (`pip install socketify`), and libuv (Debian: libuv1):
 *
 *     so=$(python3 -c 'import socketify, pathlib; print(next(pathlib.Path(socketify.__file__).parent.glob("*linux_amd64.so")))')
 *     cc -O2 -o uws_c benches/peers/uws.c "$so" -Wl,-rpath,"$(dirname "$so")" -l:libuv.so.1
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* The part of uWebSockets' C interface that is used here, as in socketify's library. */
struct options { const char *key, *cert, *passphrase, *dh_params, *ca, *ciphers; int low_memory; };
typedef struct { int port; const char *host; int options; } listen_config;
typedef struct {
    int compression;
    unsigned int max_payload;
    unsigned short idle_timeout;
    unsigned int max_backpressure;
    bool close_on_backpressure, reset_idle_on_send, pings;
    unsigned short max_lifetime;
    void *upgrade;
    void (*open)(void *ws, void *data);
    void (*message)(void *ws, const char *message, size_t length, int opcode, void *data);
    void *drain, *ping, *pong, *close, *subscription;
} behavior;
void *uws_create_app(int ssl, struct options options);
void uws_ws(int ssl, void *app, const char *pattern, behavior behavior, void *data);
bool uws_ws_subscribe(int ssl, void *ws, const char *topic, size_t length);
int uws_ws_send(int ssl, void *ws, const char *message, size_t length, int opcode);
bool uws_publish(int ssl, void *app, const char *topic, size_t topic_length, const char *message, size_t length, int opcode, bool compress);
void uws_app_listen_with_config(int ssl, void *app, listen_config config, void (*handler)(void *, listen_config, void *), void *data);
void uws_app_run(int ssl, void *app);

static void *app;
static int ssl;

static void open_(void *ws, void *data) { uws_ws_subscribe(ssl, ws, "all", 3); }
static void say(void *ws, const char *message, size_t length, int opcode, void *data) {
    uws_publish(ssl, app, "all", 3, message, length, opcode, false);
}
static void echo(void *ws, const char *message, size_t length, int opcode, void *data) {
    uws_ws_send(ssl, ws, message, length, opcode);
}
static void listening(void *socket, listen_config config, void *data) { if (!socket) exit(1); }

int main(int count, char **arguments) {
    if (count != 2 && count != 4) return 2;
    ssl = count == 4;
    app = uws_create_app(ssl, ssl ? (struct options){ .cert = arguments[2], .key = arguments[3] } : (struct options){0});
    behavior all = { .max_payload = 1 << 20, .idle_timeout = 120, .max_backpressure = 16 << 20, .pings = true, .open = open_, .message = say };
    behavior own = { .max_payload = 1 << 20, .idle_timeout = 120, .max_backpressure = 16 << 20, .pings = true, .message = echo };
    uws_ws(ssl, app, "/", all, NULL);
    uws_ws(ssl, app, "/echo", own, NULL);
    uws_app_listen_with_config(ssl, app, (listen_config){ atoi(arguments[1]), "127.0.0.1", 0 }, listening, NULL);
    uws_app_run(ssl, app);
}
