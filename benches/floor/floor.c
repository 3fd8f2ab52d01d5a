// The floor: the minimum work of a chat server on Linux, as the lower bound for hubbub's costs. One
// thread, one epoll, no checks, and no state except the members of each room. All messages that
// arrived in one round are written to each member in one call. It never waits for a slow member: if
// a frame cannot be written completely, it exits, because its figures would be meaningless.
//
//   cc -O2 -o floor floor.c && ./floor 9000

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 256 * 1024, NAME_BYTES = 128 };

struct connection {
    bool upgraded;
    int room;
    uint32_t partial_bytes;
    char *partial; // the start of a frame that has not arrived completely
};

struct room {
    char name[NAME_BYTES + 1];
    int *members;
    int count, capacity;
    uint64_t seq;
    char *out; // the frames to send in this round
    size_t out_bytes, out_capacity;
    bool pending; // has frames to send in this round
};

static struct connection *connections; // by file descriptor
static int connection_capacity;
static struct room *rooms;
static int room_count, room_capacity;
static int *pending_rooms; // indexes of the rooms with `pending`
static int pending_count;
static char buffer[READ_BYTES];

static void die(const char *call) {
    perror(call);
    exit(1);
}

static void *resized(void *memory, size_t bytes) {
    memory = realloc(memory, bytes);
    if (!memory) die("memory");
    return memory;
}

static void send_bytes(int fd, const char *bytes, size_t len) {
    ssize_t written = send(fd, bytes, len, MSG_NOSIGNAL);
    if (written == (ssize_t)len || (written < 0 && (errno == EPIPE || errno == ECONNRESET))) return;
    fprintf(stderr, "floor: a member does not keep up\n");
    exit(1);
}

static size_t frame_head(char *at, size_t len) {
    at[0] = (char)0x81;
    if (len < 126) {
        at[1] = (char)len;
        return 2;
    }
    at[1] = 126;
    at[2] = (char)(len >> 8);
    at[3] = (char)len;
    return 4;
}

static void send_text(int fd, const char *text) {
    char frame[1024];
    size_t len = strlen(text), head = frame_head(frame, len);
    memcpy(frame + head, text, len);
    send_bytes(fd, frame, head + len);
}

static int room_named(const char *name, size_t len) {
    if (len > NAME_BYTES) len = NAME_BYTES;
    // Only joins search by name, from the newest room on; messages use the index that the join
    // stored.
    for (int index = room_count - 1; index >= 0; index--)
        if (strlen(rooms[index].name) == len && !memcmp(rooms[index].name, name, len)) return index;
    if (room_count == room_capacity) {
        room_capacity = room_capacity ? room_capacity * 2 : 64;
        rooms = resized(rooms, room_capacity * sizeof *rooms);
        pending_rooms = resized(pending_rooms, room_capacity * sizeof *pending_rooms);
    }
    struct room *room = &rooms[room_count];
    memset(room, 0, sizeof *room);
    memcpy(room->name, name, len);
    return room_count++;
}

// The text after `key` up to the closing quotation mark. Does not handle escapes, because the
// generator sends none.
static const char *field(const char *text, size_t text_len, const char *key, size_t *len) {
    const char *at = memmem(text, text_len, key, strlen(key));
    if (!at) return NULL;
    at += strlen(key);
    const char *end = memchr(at, '"', text + text_len - at);
    if (!end) return NULL;
    *len = end - at;
    return at;
}

static void join(int fd, const char *text, size_t len) {
    size_t name_len;
    const char *name = field(text, len, "\"room_id\":\"", &name_len);
    if (!name) return;
    int index = room_named(name, name_len);
    struct room *room = &rooms[index];
    if (room->count == room->capacity) {
        room->capacity = room->capacity ? room->capacity * 2 : 8;
        room->members = resized(room->members, room->capacity * sizeof *room->members);
    }
    room->members[room->count++] = fd;
    connections[fd].room = index;
    char ack[256];
    snprintf(ack, sizeof ack, "43%c[{\"ok\":true,\"seq\":%lu,\"epoch\":\"floor\"}]", text[2], (unsigned long)room->seq);
    send_text(fd, ack);
}

static void message(int fd, const char *text, size_t len) {
    size_t content_len;
    const char *content = field(text, len, "\"content\":\"", &content_len);
    int index = connections[fd].room;
    if (!content || index < 0) return;
    struct room *room = &rooms[index];
    if (room->out_bytes + content_len + 512 > room->out_capacity) {
        room->out_capacity = (room->out_capacity + content_len + 512) * 2;
        room->out = resized(room->out, room->out_capacity);
    }
    // The event has the same length as hubbub's.
    char *at = room->out + room->out_bytes;
    int body = snprintf(at + 4, 512 + content_len,
        "42[\"message\",{\"seq\":%lu,\"epoch\":\"1a2b3c4d5e6f\",\"timestamp\":\"2026-01-31T10:00:00.000Z\",\"id\":"
        "\"019a0000-0000-7000-8000-000000000000\",\"room_id\":\"%s\",\"user_id\":\"b\",\"username\":\"b\","
        "\"content\":\"%.*s\",\"type\":\"text\",\"attachment_urls\":[]}]",
        (unsigned long)++room->seq, room->name, (int)content_len, content);
    frame_head(at, body);
    room->out_bytes += 4 + body;
    if (!room->pending) {
        room->pending = true;
        pending_rooms[pending_count++] = index;
    }
}

static void text_frame(int fd, const char *text, size_t len) {
    if (len >= 12 && !memcmp(text, "42[\"message\"", 12)) message(fd, text, len);
    else if (len >= 10 && !memcmp(text + 3, "[\"join\"", 7)) join(fd, text, len);
    else if (len >= 2 && !memcmp(text, "40", 2)) send_text(fd, "40{\"sid\":\"floor\"}");
    else if (len >= 18 && !memcmp(text + 3, "[\"authenticate\"", 15)) {
        char ack[32];
        snprintf(ack, sizeof ack, "43%c[{\"ok\":true}]", text[2]);
        send_text(fd, ack);
    }
}

// Processes all complete frames in the bytes; returns their number of bytes.
static size_t process(int fd, char *bytes, size_t len) {
    size_t taken = 0;
    if (!connections[fd].upgraded) {
        char *end = memmem(bytes, len, "\r\n\r\n", 4);
        if (!end) return 0;
        taken = end + 4 - bytes;
        connections[fd].upgraded = true;
        static const char answer[] =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        send_bytes(fd, answer, sizeof answer - 1);
        send_text(fd, "0{\"sid\":\"floor\",\"upgrades\":[],\"pingInterval\":25000,\"pingTimeout\":20000}");
    }
    while (len - taken >= 6) {
        unsigned char *head = (unsigned char *)bytes + taken;
        size_t body = head[1] & 0x7f, start = 2;
        if (body == 126) {
            body = (size_t)head[2] << 8 | head[3];
            start = 4;
        }
        if (len - taken < start + 4 + body) break;
        unsigned char *mask = head + start;
        char *text = (char *)mask + 4;
        if (mask[0] | mask[1] | mask[2] | mask[3])
            for (size_t i = 0; i < body; i++) text[i] ^= mask[i % 4];
        if ((head[0] & 0x0f) == 1) text_frame(fd, text, body);
        taken += start + 4 + body;
    }
    return taken;
}

static void end(int fd) {
    struct connection *connection = &connections[fd];
    if (connection->room >= 0) {
        struct room *room = &rooms[connection->room];
        for (int i = 0; i < room->count; i++)
            if (room->members[i] == fd) room->members[i--] = room->members[--room->count];
    }
    free(connection->partial);
    connection->partial = NULL;
    close(fd);
}

static void readable(int fd) {
    struct connection *connection = &connections[fd];
    size_t held = connection->partial_bytes;
    memcpy(buffer, connection->partial, held);
    ssize_t got = recv(fd, buffer + held, sizeof buffer - held, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        end(fd);
        return;
    }
    size_t taken = process(fd, buffer, held + got), rest = held + got - taken;
    if (rest) {
        connection->partial = resized(connection->partial, rest);
        memcpy(connection->partial, buffer + taken, rest);
    } else {
        free(connection->partial);
        connection->partial = NULL;
    }
    connection->partial_bytes = rest;
}

static void deliver(void) {
    for (int i = 0; i < pending_count; i++) {
        struct room *room = &rooms[pending_rooms[i]];
        for (int member = 0; member < room->count; member++) send_bytes(room->members[member], room->out, room->out_bytes);
        room->out_bytes = 0;
        room->pending = false;
    }
    pending_count = 0;
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 9000;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) die("listen");
    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[1024];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    // Sends a heartbeat to all members every 25 s, like the other servers.
    time_t beat = time(NULL) + 25;
    for (;;) {
        int count = epoll_wait(poll, events, 1024, 1000);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                readable(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                if (fd >= connection_capacity) {
                    connection_capacity = fd * 2 + 64;
                    connections = resized(connections, connection_capacity * sizeof *connections);
                }
                connections[fd] = (struct connection){.room = -1};
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
            }
        }
        deliver();
        if (time(NULL) >= beat) {
            beat += 25;
            for (int r = 0; r < room_count; r++)
                for (int m = 0; m < rooms[r].count; m++) send_text(rooms[r].members[m], "2");
        }
    }
}
