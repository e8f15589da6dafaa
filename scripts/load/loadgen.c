/* A load tool of scripts/bench: compiled by it, never installed. scripts/load/__init__.py says what is measured. */
/* loadgen: MQTT publish->...->subscribe load generator and latency meter (C, raw sockets, one thread).
 * README: cc -O2 -o loadgen loadgen.c && ./loadgen --port 1883 --topic 'in/u~~~~~~' --sub 'out/#' --qos 1 --duration 5
 *         closed loop (--window outstanding messages) for the maximum rate, or open loop (--rate R) for latency; prints one JSON line.
 *
 * Publishes pre-encoded PUBLISH packets in large writes on --pubs connections and receives on one
 * subscriber connection; a message is matched by the digits after --key (default "seq", then any of space : ") in the
 * received payload, so whatever sits between (--topic -> --sub) must carry that field through.
 *   --host H --port P      broker (127.0.0.1 1883)
 *   --topic T              topic to publish on; --sub F  filter to receive on
 *   --template FILE        payload template, repeatable (message i takes one pseudo-randomly); default: built-in JSON of --size bytes
 *                          in topic and template: 10 x '#' -> sequence number, '~' run -> user number, '^' run -> endpoint number
 *   --users N --eps N      user numbers 0..N-1, endpoints per user (endpoint number = user*eps + k)
 *   --qos Q --subqos Q     publish / subscribe QoS (0, 1);  --v5 0|1 MQTT 5 (1), --recvmax N receive maximum of the subscriber (65535)
 *   --window W             most messages outstanding end to end (512); 0: none
 *   --rate R               open loop at R msg/s, latency from the *intended* send time; 0: closed loop (needs a window)
 *   --warmup S --duration S --drain S     seconds (1, 5, 3)
 *   --fanout F             expected receipts a message (1): latency is of each receipt, loss counts sent*F - received
 *   --cpu NAME=PID         report user+sys CPU of another process (and of its threads) over the measured span, repeatable
 *   --quickack 1           the subscriber sets TCP_QUICKACK after each read (0): hides the broker's Nagle delay on its leg
 *   --label TEXT           copied to the output
 */
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

static uint32_t hsh(uint32_t x) { x ^= x >> 16; x *= 0x7feb352d; x ^= x >> 15; x *= 0x846ca68b; x ^= x >> 16; return x; }
typedef struct { uint8_t *pkt; size_t len; int pidoff; struct { int off, len; char k; } f[32]; int nf; } tpl;
static void digits(uint8_t *p, int n, uint64_t v) { while (n--) { p[n] = '0' + v % 10; v /= 10; } }
static tpl mk(const char *topic, const char *pl, int qos, int v5) {
  tpl t = {0}; size_t tl = strlen(topic), pll = strlen(pl), n = 2 + tl + (qos ? 2 : 0) + (v5 ? 1 : 0) + pll; t.pkt = malloc(n + 5); uint8_t *p = t.pkt;
  *p++ = 0x30 | qos << 1; p += put_len(p, n); *p++ = tl >> 8; *p++ = tl; memcpy(p, topic, tl); p += tl; t.pidoff = p - t.pkt; if (qos) p += 2; if (v5) *p++ = 0; memcpy(p, pl, pll); p += pll; t.len = p - t.pkt;
  for (size_t i = 5; i < t.len;) { char k = t.pkt[i]; if ((k == '#' || k == '~' || k == '^') && !(qos && (i - t.pidoff) < 2)) { size_t j = i; while (j < t.len && t.pkt[j] == k) j++;
      if (k != '#' || j - i >= 10) { if (t.nf < 32) { t.f[t.nf].off = i; t.f[t.nf].len = j - i; t.f[t.nf].k = k; t.nf++; } } i = j; } else i++; }
  return t;
}
typedef struct { char name[32]; int pid; double c0, c1; } cpu_t;
static double cpu_of(int pid) {
  char b[1024], f[64]; snprintf(f, 64, "/proc/%d/stat", pid); FILE *h = fopen(f, "r"); if (!h) return 0; size_t n = fread(b, 1, 1023, h); b[n] = 0; fclose(h);
  char *p = strrchr(b, ')'); if (!p) return 0; p += 2; unsigned long u, s; int k = 0; while (k < 11) { p = strchr(p, ' ') + 1; k++; } sscanf(p, "%lu %lu", &u, &s); return (u + s) / (double)sysconf(_SC_CLK_TCK);
}
static double self_cpu(void) { struct rusage r; getrusage(RUSAGE_SELF, &r); return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6; }
static int cmpu(const void *a, const void *b) { uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b; return x < y ? -1 : x > y; }
#define RING (1u << 22)
int main(int ac, char **av) {
  char *host = "127.0.0.1", *port = "1883", *topic = "in/u~~~~~~", *sub = "out/#", *key = "\"seq\"", *label = ""; char *tf[16]; int nt = 0, qos = 0, subqos = -1, v5 = 1, recvmax = 65535, size = 200, pubs = 1, fanout = 1, quickack = 0;
  long users = 10000, eps = 1, window = 512; double rate = 0, warm = 1, dur = 5, drain = 3; cpu_t cp[16]; int ncp = 0;
  for (int i = 1; i < ac; i++) {
    char *o = av[i], *a = i + 1 < ac ? av[i + 1] : NULL; if (!a) { fprintf(stderr, "missing value for %s\n", o); return 2; } i++;
#define S(n, v) if (!strcmp(o, n)) { v = a; continue; }
#define I(n, v) if (!strcmp(o, n)) { v = atol(a); continue; }
#define D(n, v) if (!strcmp(o, n)) { v = atof(a); continue; }
    S("--host", host) S("--port", port) S("--topic", topic) S("--sub", sub) S("--key", key) S("--label", label) I("--qos", qos) I("--subqos", subqos) I("--v5", v5) I("--recvmax", recvmax) I("--size", size) I("--pubs", pubs) I("--fanout", fanout) I("--quickack", quickack)
    I("--users", users) I("--eps", eps) I("--window", window) D("--rate", rate) D("--warmup", warm) D("--duration", dur) D("--drain", drain)
    if (!strcmp(o, "--template")) { FILE *h = fopen(a, "r"); if (!h) die(a); char *b = calloc(1, 65536); size_t n = fread(b, 1, 65535, h); while (n && (b[n - 1] == '\n')) b[--n] = 0; fclose(h); if (nt < 16) tf[nt++] = b; continue; }
    if (!strcmp(o, "--cpu")) { char *e = strchr(a, '='); if (e && ncp < 16) { snprintf(cp[ncp].name, 32, "%.*s", (int)(e - a), a); cp[ncp++].pid = atoi(e + 1); } continue; }
    fprintf(stderr, "unknown option %s\n", o); return 2;
  }
  if (subqos < 0) subqos = qos;
  if (!nt) { char *b = calloc(1, size + 200); int n = sprintf(b, "{\"seq\":\"##########\",\"type\":\"presence\",\"user\":\"u~~~~~~\",\"status\":\"online\",\"pad\":\""); while (n < size - 2) b[n++] = 'x'; strcpy(b + n, "\"}"); tf[nt++] = b; }
  tpl T[16]; for (int i = 0; i < nt; i++) T[i] = mk(topic, tf[i], qos, v5);
  signal(SIGPIPE, SIG_IGN); prctl(PR_SET_TIMERSLACK, 1);
  char id[64]; conn sc, *pc = calloc(pubs, sizeof(conn)); snprintf(id, 64, "lg-sub-%d", getpid()); mq_connect(&sc, host, port, id, v5, recvmax); mq_subscribe(&sc, sub, subqos); mq_nonblock(&sc);
  for (int i = 0; i < pubs; i++) { snprintf(id, 64, "lg-pub-%d-%d", getpid(), i); mq_connect(&pc[i], host, port, id, v5, recvmax); mq_nonblock(&pc[i]); }
  uint64_t *ts = calloc(RING, 8); uint8_t *seen = calloc(RING, 1); size_t cap = 1 << 20, nl = 0; uint32_t *lat = malloc(cap * 4); size_t kl = strlen(key);
  uint64_t sent = 0, recvd = 0, m_recv = 0, m_sent = 0, dup = 0, ooo = 0, nokey = 0, lastseq = 0, qmax = 0; uint64_t t0 = now_ns(), tw = t0 + (uint64_t)(warm * 1e9), te = tw + (uint64_t)(dur * 1e9), tend = te + (uint64_t)(drain * 1e9); int meas = 0; double c0 = 0, c1 = 0; int rr = 0; uint64_t tm0 = 0, tm1 = 0; 
  struct pollfd *pf = calloc(pubs + 1, sizeof *pf);
  for (;;) {
    uint64_t t = now_ns();
    if (meas == 0 && t >= tw) { meas = 1; tm0 = t; c0 = self_cpu(); for (int i = 0; i < ncp; i++) cp[i].c0 = cpu_of(cp[i].pid); }
    if (meas == 1 && t >= te) { meas = 2; tm1 = t; c1 = self_cpu(); for (int i = 0; i < ncp; i++) cp[i].c1 = cpu_of(cp[i].pid); }
    if (meas == 2 && (recvd >= sent * fanout || t >= tend)) break;
    /* how many to send now */
    long n = 0; uint64_t due_ns = 0;
    if (meas < 2) {
      if (rate > 0) { uint64_t due = (uint64_t)((t - t0) * 1e-9 * rate); n = due > sent ? due - sent : 0; due_ns = t0 + (uint64_t)((sent + n + 1) / rate * 1e9); } else n = 4096;
      if (window > 0) { long o = (long)(sent - recvd / fanout); if (n > window - o) n = window - o; }
      if (n > 4096) n = 4096;
    }
    while (n > 0) {
      conn *c = &pc[rr]; rr = (rr + 1) % pubs; if (mq_pending(c) > (1 << 17)) { int any = 0; for (int i = 0; i < pubs; i++) if (mq_pending(&pc[i]) <= (1 << 17)) any = 1; if (!any) break; continue; }
      long chunk = n / pubs + 1; if (chunk > 64) chunk = 64; if (chunk > n) chunk = n; if (qos && c->inflight > 30000) break;
      for (long i = 0; i < chunk; i++) {
        uint32_t h = hsh(sent + 1); tpl *p = &T[nt > 1 ? (h >> 8) % nt : 0]; uint8_t *d = mq_room(c, p->len); memcpy(d, p->pkt, p->len); uint64_t u = h % users, e = u * eps + (eps > 1 ? (h >> 20) % eps : 0);
        for (int k = 0; k < p->nf; k++) digits(d + p->f[k].off, p->f[k].len, p->f[k].k == '#' ? sent : p->f[k].k == '~' ? u : e);
        if (qos) { uint16_t pid = mq_pid(c); d[p->pidoff] = pid >> 8; d[p->pidoff + 1] = pid; c->inflight++; }
        c->olen += p->len; ts[sent & (RING - 1)] = rate > 0 ? t0 + (uint64_t)((sent + 1) / rate * 1e9) : t; seen[sent & (RING - 1)] = 0; sent++; if (meas == 1) m_sent++;
      }
      n -= chunk;
    }
    for (int i = 0; i < pubs; i++) if (mq_pending(&pc[i])) mq_flush(&pc[i]);
    pf[0].fd = sc.fd; pf[0].events = POLLIN | (mq_pending(&sc) ? POLLOUT : 0);
    for (int i = 0; i < pubs; i++) { pf[i + 1].fd = pc[i].fd; pf[i + 1].events = POLLIN | (mq_pending(&pc[i]) ? POLLOUT : 0); }
    struct timespec w = {0, 5000000}; if (due_ns) { uint64_t x = now_ns(); uint64_t d = due_ns > x ? due_ns - x : 0; if (d < 100000) d = 100000; if (d < 5000000) w.tv_nsec = d; } 
    if (ppoll(pf, pubs + 1, &w, NULL) < 0 && errno != EINTR) die("poll");
    uint8_t h, *b; size_t l;
    for (int i = 0; i < pubs; i++) if (pf[i + 1].revents & (POLLIN | POLLHUP | POLLERR)) { mq_fill(&pc[i]); while (mq_next(&pc[i], &h, &b, &l)) if ((h >> 4) == 4) pc[i].inflight--; else if ((h >> 4) == 14) { fprintf(stderr, "disconnected by broker: %d\n", l ? b[0] : 0); exit(3); } }
    if (pf[0].revents & (POLLIN | POLLHUP | POLLERR)) {
      mq_fill(&sc); uint64_t r = now_ns(); if (quickack) { int one = 1; setsockopt(sc.fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one); }
      while (mq_next(&sc, &h, &b, &l)) {
        if ((h >> 4) == 14) { fprintf(stderr, "sub disconnected by broker\n"); exit(3); }
        if ((h >> 4) != 3) continue; pub_t p; mq_publish_decode(&sc, h, b, l, &p); if (p.qos) mq_puback(&sc, p.pid);
        uint8_t *k = memmem(p.pl, p.plen, key, kl); if (!k) { nokey++; continue; } k += kl; uint8_t *pe = p.pl + p.plen; while (k < pe && (*k == ' ' || *k == ':' || *k == '"')) k++; uint64_t q = 0; while (k < pe && *k >= '0' && *k <= '9') q = q * 10 + (*k++ - '0'); if (q >= sent) { nokey++; continue; }
        if (seen[q & (RING - 1)] >= fanout) { dup++; continue; } seen[q & (RING - 1)]++; recvd++; if (q < lastseq) ooo++; else lastseq = q;
        if (meas == 1) { m_recv++; if (nl == cap) { cap *= 2; lat = realloc(lat, cap * 4); } uint64_t x = ts[q & (RING - 1)]; x = r > x ? (r - x) / 1000 : 0; lat[nl++] = x > 0xffffffffu ? 0xffffffffu : x; }
      }
      if (mq_pending(&sc)) mq_flush(&sc);
    }
    if (sent - recvd / fanout > qmax) qmax = sent - recvd / fanout;
  }
  qsort(lat, nl, 4, cmpu); double el = (tm1 - tm0) / 1e9;
#define Q(p) (nl ? lat[(size_t)((nl - 1) * (p))] / 1000.0 : -1)
  printf("{\"label\":\"%s\",\"qos\":%d,\"window\":%ld,\"target_rate\":%.0f,\"rate\":%.0f,\"sent_rate\":%.0f,\"sent\":%lu,\"received\":%lu,\"lost\":%ld,\"dup\":%lu,\"out_of_order\":%lu,\"foreign\":%lu,\"max_outstanding\":%lu,\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,\"elapsed_s\":%.3f,\"cpu_s\":{\"loadgen\":%.3f", label, qos, window, rate, m_recv / el, m_sent / el, sent, recvd, (long)(sent * fanout - recvd), dup, ooo, nokey, qmax, Q(.5), Q(.9), Q(.99), Q(.999), Q(1), el, c1 - c0);
  for (int i = 0; i < ncp; i++) printf(",\"%s\":%.3f", cp[i].name, cp[i].c1 - cp[i].c0); printf("},\"cpu_us_per_msg\":{\"loadgen\":%.2f", m_recv ? (c1 - c0) * 1e6 / m_recv : 0);
  for (int i = 0; i < ncp; i++) printf(",\"%s\":%.2f", cp[i].name, m_recv ? (cp[i].c1 - cp[i].c0) * 1e6 / m_recv : 0); printf("}}\n");
  return 0;
}
