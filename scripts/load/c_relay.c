/* A load tool of scripts/bench: the null relay that the bridge is measured against; compiled by it, never installed. */
/* relay: null relay in C: in/<x> -> out/<x>, same payload, no parsing. cc -O2 -o relay relay.c && ./relay PORT QOS [v5=1] [ack=late|early] [conns=1|2] [filter=in/#] [coalesce_us=0] */
/* Tiny raw-socket MQTT 3.1.1 / 5 client core, for load tools only. */
#ifndef MQ_H
#define MQ_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
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
#define INCAP (1 << 20)
typedef struct {
  int fd, v5;
  uint8_t *in; size_t ipos, ilen;           /* unread bytes: in[ipos..ilen) */
  uint8_t *out; size_t opos, olen, ocap;    /* unsent bytes: out[opos..olen) */
  uint16_t pid; long inflight;
} conn;
static void die(const char *m) { perror(m); exit(2); }
static uint64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec; }
static uint8_t *mq_room(conn *c, size_t n) {
  if (c->opos == c->olen) c->opos = c->olen = 0;
  if (c->olen + n > c->ocap) {
    if (c->opos) { memmove(c->out, c->out + c->opos, c->olen - c->opos); c->olen -= c->opos; c->opos = 0; }
    while (c->olen + n > c->ocap) { c->ocap = c->ocap ? c->ocap * 2 : (1 << 17); c->out = realloc(c->out, c->ocap); if (!c->out) die("realloc"); }
  }
  return c->out + c->olen;
}
static size_t mq_pending(conn *c) { return c->olen - c->opos; }
static int mq_flush(conn *c) {
  while (c->opos < c->olen) {
    ssize_t n = send(c->fd, c->out + c->opos, c->olen - c->opos, MSG_NOSIGNAL);
    if (n < 0) { if (errno == EAGAIN || errno == EWOULDBLOCK) return 0; if (errno == EINTR) continue; die("send"); }
    c->opos += n;
  }
  return 1;
}
static ssize_t mq_fill(conn *c) {
  if (c->ipos == c->ilen) c->ipos = c->ilen = 0;
  else if (c->ilen > INCAP / 2) { memmove(c->in, c->in + c->ipos, c->ilen - c->ipos); c->ilen -= c->ipos; c->ipos = 0; }
  ssize_t n = recv(c->fd, c->in + c->ilen, INCAP - c->ilen, 0);
  if (n == 0) { fprintf(stderr, "peer closed\n"); exit(3); }
  if (n < 0) { if (errno == EAGAIN || errno == EINTR) return 0; die("recv"); }
  c->ilen += n; return n;
}
static int mq_next(conn *c, uint8_t *hdr, uint8_t **body, size_t *len) {
  size_t p = c->ipos; if (c->ilen - p < 2) return 0;
  uint8_t h = c->in[p++]; size_t l = 0; int s = 0;
  for (;;) { if (p >= c->ilen) return 0; uint8_t b = c->in[p++]; l |= (size_t)(b & 127) << s; s += 7; if (!(b & 128)) break; }
  if (c->ilen - p < l) return 0;
  *hdr = h; *body = c->in + p; *len = l; c->ipos = p + l; return 1;
}
static int put_len(uint8_t *d, size_t l) { int n = 0; do { uint8_t b = l & 127; l >>= 7; if (l) b |= 128; d[n++] = b; } while (l); return n; }
static void mq_wait(conn *c, int type) {
  uint8_t h, *b; size_t l;
  for (;;) { if (mq_next(c, &h, &b, &l)) { if ((h >> 4) == type) { if (type == 2 && b[1]) { fprintf(stderr, "connack %d\n", b[1]); exit(2); } return; } continue; } mq_fill(c); }
}
static void mq_connect(conn *c, const char *host, const char *port, const char *id, int v5, int recvmax) {
  memset(c, 0, sizeof *c); c->v5 = v5; c->in = malloc(INCAP);
  struct addrinfo hi = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *ai;
  if (getaddrinfo(host, port, &hi, &ai)) die("getaddrinfo");
  c->fd = socket(ai->ai_family, SOCK_STREAM, 0); int one = 1;
  if (connect(c->fd, ai->ai_addr, ai->ai_addrlen)) die("connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  uint8_t v[256]; int n = 0; size_t il = strlen(id);
  memcpy(v, "\0\4MQTT", 6); n = 6; v[n++] = v5 ? 5 : 4; v[n++] = 2; v[n++] = 0; v[n++] = 0;
  if (v5) { v[n++] = 3; v[n++] = 0x21; v[n++] = recvmax >> 8; v[n++] = recvmax; }
  v[n++] = il >> 8; v[n++] = il; memcpy(v + n, id, il); n += il;
  uint8_t *d = mq_room(c, n + 5); d[0] = 0x10; int k = put_len(d + 1, n); memcpy(d + 1 + k, v, n); c->olen += 1 + k + n;
  mq_flush(c); mq_wait(c, 2);
}
static void mq_subscribe(conn *c, const char *filter, int qos) {
  size_t fl = strlen(filter), n = 2 + (c->v5 ? 1 : 0) + 2 + fl + 1; uint8_t *d = mq_room(c, n + 5), *p = d;
  *p++ = 0x82; p += put_len(p, n); *p++ = 0; *p++ = 1; if (c->v5) *p++ = 0; *p++ = fl >> 8; *p++ = fl; memcpy(p, filter, fl); p += fl; *p++ = qos; c->olen += p - d;
  mq_flush(c); mq_wait(c, 9);
}
static void mq_nonblock(conn *c) { fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK); }
static uint16_t mq_pid(conn *c) { if (!++c->pid) c->pid = 1; return c->pid; }
static void mq_puback(conn *c, uint16_t pid) { uint8_t *d = mq_room(c, 4); d[0] = 0x40; d[1] = 2; d[2] = pid >> 8; d[3] = pid; c->olen += 4; }
/* decode a PUBLISH body */
typedef struct { uint8_t *topic; size_t tlen; uint16_t pid; int qos; uint8_t *pl; size_t plen; } pub_t;
static void mq_publish_decode(conn *c, uint8_t h, uint8_t *b, size_t l, pub_t *o) {
  uint8_t *e = b + l; o->qos = (h >> 1) & 3; o->tlen = b[0] << 8 | b[1]; o->topic = b + 2; b += 2 + o->tlen; o->pid = 0;
  if (o->qos) { o->pid = b[0] << 8 | b[1]; b += 2; }
  if (c->v5) { size_t pl = 0; int s = 0; for (;;) { uint8_t x = *b++; pl |= (size_t)(x & 127) << s; s += 7; if (!(x & 128)) break; } b += pl; }
  o->pl = b; o->plen = e - b;
}
static void mq_publish(conn *c, const char *pre, size_t prel, const uint8_t *topic, size_t tl, int qos, uint16_t pid, const uint8_t *pl, size_t pll) {
  size_t n = 2 + prel + tl + (qos ? 2 : 0) + (c->v5 ? 1 : 0) + pll; uint8_t *d = mq_room(c, n + 5), *p = d;
  *p++ = 0x30 | qos << 1; p += put_len(p, n); size_t t = prel + tl; *p++ = t >> 8; *p++ = t; memcpy(p, pre, prel); p += prel; memcpy(p, topic, tl); p += tl;
  if (qos) { *p++ = pid >> 8; *p++ = pid; } if (c->v5) *p++ = 0; memcpy(p, pl, pll); p += pll; c->olen += p - d;
}
#endif

int main(int ac, char **av) {
  const char *port = ac > 1 ? av[1] : "1883"; int qos = ac > 2 ? atoi(av[2]) : 0, v5 = ac > 3 ? atoi(av[3]) : 1, late = ac > 4 ? !strcmp(av[4], "late") : 1, two = ac > 5 ? atoi(av[5]) == 2 : 0;
  const char *filter = ac > 6 ? av[6] : "in/#"; signal(SIGPIPE, SIG_IGN); int co = ac > 7 ? atoi(av[7]) : 0; prctl(PR_SET_TIMERSLACK, 1);
  conn a, b2, *o; char id[64]; snprintf(id, 64, "c-relay-%d", getpid()); mq_connect(&a, "127.0.0.1", port, id, v5, 65535); 
  if (two) { snprintf(id, 64, "c-relay-o-%d", getpid()); mq_connect(&b2, "127.0.0.1", port, id, v5, 65535); mq_nonblock(&b2); o = &b2; } else o = &a;
  mq_subscribe(&a, filter, qos); mq_nonblock(&a); static uint16_t map[65536]; fprintf(stderr, "ready\n");
  for (;;) {
    struct pollfd pf[2] = {{a.fd, POLLIN | (mq_pending(&a) ? POLLOUT : 0), 0}, {o->fd, POLLIN | (mq_pending(o) ? POLLOUT : 0), 0}};
    if (poll(pf, two ? 2 : 1, -1) < 0) continue; if (co) usleep(co); /* coalesce: bigger reads and writes are cheaper for the broker */
    uint8_t h, *b; size_t l;
    for (int i = 0; i < (two ? 2 : 1); i++) { conn *c = i ? o : &a; if (!(pf[i].revents & (POLLIN | POLLHUP | POLLERR))) continue; mq_fill(c);
      while (mq_next(c, &h, &b, &l)) {
        if ((h >> 4) == 3) { pub_t p; mq_publish_decode(c, h, b, l, &p); uint16_t pid = 0; if (qos) { pid = mq_pid(o); if (late) map[pid] = p.pid; }
          mq_publish(o, "out", 3, p.topic + 2, p.tlen - 2, qos, pid, p.pl, p.plen); if (p.qos && !late) mq_puback(&a, p.pid); }
        else if ((h >> 4) == 4 && late) { uint16_t pid = b[0] << 8 | b[1]; if (map[pid]) { mq_puback(&a, map[pid]); map[pid] = 0; } }
      } }
    if (mq_pending(&a)) mq_flush(&a); if (two && mq_pending(o)) mq_flush(o);
  }
}
