/* MQTT 5 over a raw socket, just enough for the load tools of scripts/bench: one connection with its two buffers. */
#ifndef MQ_H
#define MQ_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_BYTES (1 << 20)

enum { CONNACK = 2, PUBLISH = 3, PUBACK = 4, SUBACK = 9, DISCONNECT = 14 };

typedef struct {
  int fd;
  uint8_t *in;
  size_t in_at, in_end; /* unread: in[in_at .. in_end) */
  uint8_t *out;
  size_t out_at, out_end, out_room; /* unsent: out[out_at .. out_end) */
  uint16_t packet_id;
  long in_flight;
} conn;

/* A PUBLISH packet's parts, within the connection's buffer. */
typedef struct {
  uint8_t *topic;
  size_t topic_bytes;
  uint16_t packet_id;
  int qos;
  uint8_t *payload;
  size_t payload_bytes;
} publish;

static void die(const char *what) {
  perror(what);
  exit(2);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Where the next n bytes to send may be written; the caller adds to out_end what it wrote. */
static uint8_t *mq_room(conn *c, size_t n) {
  if (c->out_at == c->out_end) c->out_at = c->out_end = 0;
  if (c->out_end + n > c->out_room) {
    if (c->out_at) {
      memmove(c->out, c->out + c->out_at, c->out_end - c->out_at);
      c->out_end -= c->out_at;
      c->out_at = 0;
    }
    while (c->out_end + n > c->out_room) {
      c->out_room = c->out_room ? c->out_room * 2 : (1 << 17);
      c->out = realloc(c->out, c->out_room);
      if (!c->out) die("realloc");
    }
  }
  return c->out + c->out_end;
}

static size_t mq_pending(conn *c) { return c->out_end - c->out_at; }

static void mq_flush(conn *c) {
  while (c->out_at < c->out_end) {
    ssize_t n = send(c->fd, c->out + c->out_at, c->out_end - c->out_at, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      if (errno == EINTR) continue;
      die("send");
    }
    c->out_at += n;
  }
}

/* One read; ends the process where the server has hung up. */
static void mq_fill(conn *c) {
  if (c->in_at == c->in_end) {
    c->in_at = c->in_end = 0;
  } else if (c->in_end > IN_BYTES / 2) {
    memmove(c->in, c->in + c->in_at, c->in_end - c->in_at);
    c->in_end -= c->in_at;
    c->in_at = 0;
  }
  ssize_t n = recv(c->fd, c->in + c->in_end, IN_BYTES - c->in_end, 0);
  if (n == 0) {
    fprintf(stderr, "the server closed the connection\n");
    exit(3);
  }
  if (n < 0) {
    if (errno == EAGAIN || errno == EINTR) return;
    die("recv");
  }
  c->in_end += n;
}

/* The next whole packet: 1, its first byte and its body; or 0. */
static int mq_next(conn *c, uint8_t *header, uint8_t **body, size_t *bytes) {
  size_t at = c->in_at, length = 0;
  if (c->in_end - at < 2) return 0;
  uint8_t first = c->in[at++];
  for (int shift = 0;; shift += 7) {
    if (at >= c->in_end) return 0;
    uint8_t b = c->in[at++];
    length |= (size_t)(b & 127) << shift;
    if (!(b & 128)) break;
  }
  if (c->in_end - at < length) return 0;
  *header = first;
  *body = c->in + at;
  *bytes = length;
  c->in_at = at + length;
  return 1;
}

static int put_length(uint8_t *to, size_t length) {
  int n = 0;
  do {
    uint8_t b = length & 127;
    length >>= 7;
    if (length) b |= 128;
    to[n++] = b;
  } while (length);
  return n;
}

static uint8_t *put_text(uint8_t *to, const char *text, size_t bytes) {
  *to++ = bytes >> 8;
  *to++ = bytes;
  memcpy(to, text, bytes);
  return to + bytes;
}

static void mq_wait(conn *c, int type) {
  uint8_t header, *body;
  size_t bytes;
  for (;;) {
    if (!mq_next(c, &header, &body, &bytes)) {
      mq_fill(c);
    } else if (header >> 4 == type) {
      if (type == CONNACK && body[1]) {
        fprintf(stderr, "the broker refuses the connection: %d\n", body[1]);
        exit(2);
      }
      return;
    }
  }
}

/* Connects to the loopback. */
static void tcp_connect(conn *c, int port) {
  memset(c, 0, sizeof *c);
  c->in = malloc(IN_BYTES);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(c->fd, (struct sockaddr *)&at, sizeof at)) die("connect");
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Connects to the loopback with a clean session and waits for CONNACK. */
static void mq_connect(conn *c, int port, const char *id, int receive_maximum) {
  tcp_connect(c, port);
  size_t id_bytes = strlen(id), length = 16 + id_bytes;
  uint8_t *to = mq_room(c, length + 5), *p = to;
  *p++ = 0x10;
  p += put_length(p, length);
  p = put_text(p, "MQTT", 4);
  memcpy(p, "\5\2\0\0\3\x21", 6); /* version 5, clean start, no keep-alive, one property: Receive Maximum */
  p += 6;
  *p++ = receive_maximum >> 8;
  *p++ = receive_maximum;
  p = put_text(p, id, id_bytes);
  c->out_end += p - to;
  mq_flush(c);
  mq_wait(c, CONNACK);
}

static void mq_subscribe(conn *c, const char *filter, int qos) {
  size_t bytes = strlen(filter);
  uint8_t *to = mq_room(c, bytes + 11), *p = to;
  *p++ = 0x82;
  p += put_length(p, bytes + 6);
  memcpy(p, "\0\1\0", 3); /* packet id 1, no properties */
  p = put_text(p + 3, filter, bytes);
  *p++ = qos;
  c->out_end += p - to;
  mq_flush(c);
  mq_wait(c, SUBACK);
}

static void mq_nonblock(conn *c) { fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK); }

static uint16_t mq_packet_id(conn *c) {
  if (!++c->packet_id) c->packet_id = 1;
  return c->packet_id;
}

static void mq_puback(conn *c, uint16_t packet_id) {
  uint8_t *to = mq_room(c, 4);
  to[0] = 0x40;
  to[1] = 2;
  to[2] = packet_id >> 8;
  to[3] = packet_id;
  c->out_end += 4;
}

static publish mq_read_publish(uint8_t header, uint8_t *body, size_t bytes) {
  publish p = {.qos = header >> 1 & 3, .topic = body + 2, .topic_bytes = body[0] << 8 | body[1]};
  uint8_t *at = body + 2 + p.topic_bytes;
  if (p.qos) {
    p.packet_id = at[0] << 8 | at[1];
    at += 2;
  }
  size_t properties = 0;
  for (int shift = 0;; shift += 7) {
    uint8_t b = *at++;
    properties |= (size_t)(b & 127) << shift;
    if (!(b & 128)) break;
  }
  p.payload = at + properties;
  p.payload_bytes = body + bytes - p.payload;
  return p;
}
#endif
