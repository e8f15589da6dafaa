/* The load generator of scripts/bench http: calls over HTTP/1.1 on connections that are kept, one call at a time on
 * each, as clients do; measures the answers and prints one JSON line. One thread.
 *
 * Closed loop (--rate 0): a connection calls again as soon as it was answered, for the maximum. Open loop: calls are due
 * at --rate, go to whichever connection is free, and their latency counts from when they were due. Any answer but
 * --status ends the run: what a server refuses is no figure. With --sub each call must be one delivery there.
 *
 *   --port P                server, on the loopback
 *   --template FILE         a whole request, its head's lines with CR and LF. In it ten # become the call's number, a run
 *                           of % the user's number, of users pseudo-randomly
 *   --status S              of a call that succeeded (200)
 *   --users N               (10000)
 *   --connections N         (64)
 *   --rate R                calls/s; 0: closed loop (0)
 *   --mqtt-port P --sub F   a broker, and the filter on which each call's event is delivered; empty: none is
 *   --warmup S --duration S --drain S     seconds (1, 5, 3)
 *   --cpu NAME=PID          also measure the CPU time of that process; repeatable
 *
 * Output: rate (answers/s), sent, received, lost (calls without answer, or without delivery), p50_ms p99_ms max_ms,
 * seconds, cpu_us (per answer).
 */
#include "measure.h"

#define MOST_CONNECTIONS 256

static struct {
  int port, mqtt_port, status, connections;
  long users;
  double rate, warmup, duration, drain;
  char *request, *sub;
} given = {
    .status = 200, .connections = 64, .users = 10000, .warmup = 1, .duration = 5, .drain = 3, .request = "", .sub = ""};

static enum { WARMING, MEASURING, DRAINING } phase;
static fields numbers;
static size_t request_bytes;
static uint64_t begun_ns, sent, received, delivered, measured;
static uint64_t since_ns[MOST_CONNECTIONS]; /* of the call that a connection waits for; 0: it waits for none */

static void read_given(int count, char **arguments) {
  option options[] = {
      {"--port", INT, &given.port},
      {"--mqtt-port", INT, &given.mqtt_port},
      {"--status", INT, &given.status},
      {"--connections", INT, &given.connections},
      {"--users", LONG, &given.users},
      {"--rate", REAL, &given.rate},
      {"--warmup", REAL, &given.warmup},
      {"--duration", REAL, &given.duration},
      {"--drain", REAL, &given.drain},
      {"--template", TEXT, &given.request},
      {"--sub", TEXT, &given.sub},
  };
  read_options(count, arguments, options, sizeof options / sizeof *options);
  if (given.connections > MOST_CONNECTIONS) given.connections = MOST_CONNECTIONS;
  given.request = content(given.request);
  request_bytes = strlen(given.request);
  numbers = find_fields((uint8_t *)given.request, 0, request_bytes);
}

static void call(conn *c, uint64_t *since, uint64_t due_ns) {
  uint8_t *to = mq_room(c, request_bytes);
  memcpy(to, given.request, request_bytes);
  put_fields(to, &numbers, sent, mixed(sent + 1) % given.users, 0);
  c->out_end += request_bytes;
  *since = due_ns;
  sent++;
  mq_flush(c);
}

/* The bytes of the answer that begins there, its status checked; 0 where it is not whole yet. */
static size_t answer_bytes(const uint8_t *at, size_t bytes) {
  uint8_t *end = memmem(at, bytes, "\r\n\r\n", 4);
  if (!end) return 0;
  size_t head = end + 4 - at;
  const char name[] = "content-length: ";
  uint8_t *length = memmem(at, head, name, sizeof name - 1);
  size_t whole = head + (length ? strtoul((char *)length + sizeof name - 1, NULL, 10) : 0);
  if (bytes < whole) return 0;
  if (atoi((char *)at + sizeof "HTTP/1.1") != given.status) {
    fprintf(stderr, "a call failed: %.*s\n", (int)whole, (char *)at);
    exit(3);
  }
  return whole;
}

static void take_answer(conn *c, uint64_t *since) {
  mq_fill(c);
  size_t bytes = answer_bytes(c->in + c->in_at, c->in_end - c->in_at);
  if (!bytes) return;
  c->in_at += bytes;
  received++;
  if (phase == MEASURING) {
    measured++;
    note_latency(*since, now_ns());
  }
  *since = 0;
}

static void take_deliveries(conn *c) {
  uint8_t header, *body;
  size_t bytes;
  mq_fill(c);
  while (mq_next(c, &header, &body, &bytes)) {
    if (header >> 4 != PUBLISH) continue;
    publish p = mq_read_publish(header, body, bytes);
    if (p.qos) mq_puback(c, p.packet_id);
    delivered++;
  }
  mq_flush(c);
}

static void print(double seconds) {
  sort_latencies();
  uint64_t done = *given.sub && delivered < received ? delivered : received;
  printf("{\"rate\":%.1f,\"sent\":%lu,\"received\":%lu,\"lost\":%lu,\"disordered\":0,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
         "\"max_ms\":%.3f,\"seconds\":%.3f,\"cpu_us\":",
         measured / seconds, sent, received, sent - done, quantile_ms(.5), quantile_ms(.99), quantile_ms(1), seconds);
  print_cpu(measured);
  printf("}\n");
}

int main(int count, char **arguments) {
  read_given(count, arguments);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  conn connections[MOST_CONNECTIONS + 1];
  conn *subscriber = connections + given.connections;
  struct pollfd waits[MOST_CONNECTIONS + 1];
  int most = given.connections + (*given.sub ? 1 : 0);
  for (int n = 0; n < given.connections; n++) tcp_connect(&connections[n], given.port);
  if (*given.sub) {
    char id[64];
    snprintf(id, sizeof id, "httpgen-%d", getpid());
    mq_connect(subscriber, given.mqtt_port, id, 65535);
    mq_subscribe(subscriber, given.sub, 1);
  }
  for (int n = 0; n < most; n++) {
    mq_nonblock(&connections[n]);
    waits[n] = (struct pollfd){connections[n].fd, POLLIN, 0};
  }

  begun_ns = now_ns();
  uint64_t from_ns = begun_ns + (uint64_t)(given.warmup * 1e9), to_ns = from_ns + (uint64_t)(given.duration * 1e9);
  uint64_t end_ns = to_ns + (uint64_t)(given.drain * 1e9), measured_from = 0, measured_to = 0;
  for (int turn = 0;;) {
    uint64_t now = now_ns();
    if (phase == WARMING && now >= from_ns) {
      phase = MEASURING;
      measured_from = now;
      begin_cpu();
    }
    if (phase == MEASURING && now >= to_ns) {
      phase = DRAINING;
      measured_to = now;
      end_cpu();
    }
    if (phase == DRAINING) {
      if ((received >= sent && (!*given.sub || delivered >= sent)) || now >= end_ns) break;
    } else {
      for (int n = 0; n < given.connections; n++, turn = (turn + 1) % given.connections) {
        uint64_t due_ns = given.rate > 0 ? begun_ns + (uint64_t)((sent + 1) / given.rate * 1e9) : now;
        if (due_ns > now) break;
        if (!since_ns[turn]) call(&connections[turn], &since_ns[turn], due_ns);
      }
    }
    struct timespec patience = {0, given.rate > 0 ? 100000 : 5000000};
    if (ppoll(waits, most, &patience, NULL) < 0 && errno != EINTR) die("ppoll");
    for (int n = 0; n < given.connections; n++)
      if (waits[n].revents) take_answer(&connections[n], &since_ns[n]);
    if (*given.sub && waits[given.connections].revents) take_deliveries(subscriber);
  }
  print((measured_to - measured_from) / 1e9);
  return 0;
}
