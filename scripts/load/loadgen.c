/* The load generator of scripts/bench: publishes pre-encoded packets in large writes, measures what comes back, and
 * prints one JSON line. One thread, one subscriber connection, MQTT 5.
 *
 * A message is known again by the number after --key in the payload that comes back, so whatever sits between --topic
 * and --sub has to carry that field through. Closed loop (--rate 0) keeps --window messages on their way, for the
 * maximum; open loop sends at --rate, and latency counts from when a message should have been sent.
 *
 *   --port P                broker, on the loopback
 *   --topic T --sub F       where to publish, and the filter to receive on
 *   --template FILE         payload. In topic and payload ten # become the message's number, a run of % the user's
 *                           number, a run of ^ the endpoint's (user * endpoints of a user + n)
 *   --key TEXT              what stands before the number, but for blank : and " ("seq" in quotes)
 *   --users N --endpoints N users, endpoints of each (10000, 1)
 *   --order mixed|turn      users pseudo-randomly, or one after the other (mixed)
 *   --qos Q --subqos Q      to publish and to receive at (0; like --qos)
 *   --window W              most messages on their way (512)
 *   --rate R                messages/s; 0: closed loop (0)
 *   --fanout F              receipts of each message (1); latency is of each
 *   --fill N --fill-topic T before each message N empty ones at QoS 0, endpoint by endpoint; nothing comes of them (0)
 *   --foreign N             measure until N messages of others have come, or the time is over (0: only the time)
 *   --publishers N          connections that publish (1)
 *   --warmup S --duration S --drain S     seconds (1, 5, 3)
 *   --cpu NAME=PID          also measure the CPU time of that process; repeatable
 *
 * Output: rate (receipts/s), fill_rate, sent, received, lost, duplicates, disordered (behind a later one), foreign (of
 * others) and foreign_last_ms (epoch, when the last of them came), p50_ms p99_ms max_ms, seconds, cpu_us (per receipt).
 */
#include "mq.h"

#define RING (1u << 22) /* more messages than are ever on their way */
#define MOST_FIELDS 32
#define MOST_PROCESSES 16
#define MOST_PUBLISHERS 64
#define CHUNK 64                /* messages that one connection sends before the next one's turn */
#define ENOUGH_UNSENT (1 << 17) /* bytes */

typedef struct {
  uint8_t *packet;
  size_t bytes;
  int id_at; /* of the packet id; 0 at QoS 0 */
  int fields;
  struct {
    int at, digits;
    char kind;
  } field[MOST_FIELDS];
} template;

typedef struct {
  char name[32];
  int pid;
  double before_s, after_s;
} process;

static struct {
  int port, qos, subqos, publishers, fanout, fill;
  long users, endpoints, window, foreign;
  double rate, warmup, duration, drain;
  char *topic, *sub, *fill_topic, *payload, *key, *order;
  process processes[MOST_PROCESSES];
  int process_count;
} given = {.port = 1883,
           .subqos = -1,
           .publishers = 1,
           .fanout = 1,
           .users = 10000,
           .endpoints = 1,
           .window = 512,
           .warmup = 1,
           .duration = 5,
           .drain = 3,
           .topic = "in/u%%%%%%",
           .sub = "out/#",
           .fill_topic = "",
           .payload = "",
           .key = "\"seq\"",
           .order = "mixed"};

static char *content(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) die(path);
  char *text = calloc(1, 65536);
  size_t n = fread(text, 1, 65535, file);
  fclose(file);
  while (n && text[n - 1] == '\n') text[--n] = 0;
  return text;
}

static void read_options(int count, char **arguments) {
  struct {
    const char *name;
    enum { INT, LONG, REAL, TEXT } kind;
    void *to;
  } options[] = {
      {"--port", INT, &given.port},
      {"--qos", INT, &given.qos},
      {"--subqos", INT, &given.subqos},
      {"--publishers", INT, &given.publishers},
      {"--fanout", INT, &given.fanout},
      {"--fill", INT, &given.fill},
      {"--users", LONG, &given.users},
      {"--endpoints", LONG, &given.endpoints},
      {"--window", LONG, &given.window},
      {"--foreign", LONG, &given.foreign},
      {"--rate", REAL, &given.rate},
      {"--warmup", REAL, &given.warmup},
      {"--duration", REAL, &given.duration},
      {"--drain", REAL, &given.drain},
      {"--topic", TEXT, &given.topic},
      {"--sub", TEXT, &given.sub},
      {"--fill-topic", TEXT, &given.fill_topic},
      {"--template", TEXT, &given.payload},
      {"--key", TEXT, &given.key},
      {"--order", TEXT, &given.order},
  };
  for (int i = 1; i < count; i += 2) {
    char *name = arguments[i], *value = i + 1 < count ? arguments[i + 1] : "";
    size_t n = 0, known = sizeof options / sizeof *options;
    if (!strcmp(name, "--cpu") && strchr(value, '=') && given.process_count < MOST_PROCESSES) {
      process *p = &given.processes[given.process_count++];
      snprintf(p->name, sizeof p->name, "%.*s", (int)(strchr(value, '=') - value), value);
      p->pid = atoi(strchr(value, '=') + 1);
      continue;
    }
    while (n < known && strcmp(options[n].name, name)) n++;
    if (n == known || i + 1 == count) {
      fprintf(stderr, "unknown option or no value: %s\n", name);
      exit(2);
    }
    if (options[n].kind == INT) *(int *)options[n].to = atoi(value);
    if (options[n].kind == LONG) *(long *)options[n].to = atol(value);
    if (options[n].kind == REAL) *(double *)options[n].to = atof(value);
    if (options[n].kind == TEXT) *(char **)options[n].to = value;
  }
  if (given.subqos < 0) given.subqos = given.qos;
  if (given.publishers > MOST_PUBLISHERS) given.publishers = MOST_PUBLISHERS;
  if (*given.payload) given.payload = content(given.payload);
}

static template make_template(const char *topic, const char *payload, int qos) {
  template t = {0};
  size_t topic_bytes = strlen(topic), payload_bytes = strlen(payload);
  size_t length = 2 + topic_bytes + (qos ? 2 : 0) + 1 + payload_bytes;
  uint8_t *p = t.packet = malloc(length + 5);
  *p++ = 0x30 | qos << 1;
  p += put_length(p, length);
  uint8_t *text = p;
  p = put_text(p, topic, topic_bytes);
  if (qos) {
    t.id_at = p - t.packet;
    memset(p, 0, 2);
    p += 2;
  }
  *p++ = 0; /* no properties */
  memcpy(p, payload, payload_bytes);
  t.bytes = p + payload_bytes - t.packet;
  for (size_t at = text + 2 - t.packet, end; at < t.bytes; at = end) {
    char kind = t.packet[at];
    for (end = at + 1; end < t.bytes && t.packet[end] == kind; end++) {
    }
    int is_field = kind == '%' || kind == '^' || (kind == '#' && end - at >= 10);
    if (is_field && t.fields < MOST_FIELDS) {
      t.field[t.fields].at = at;
      t.field[t.fields].digits = end - at;
      t.field[t.fields++].kind = kind;
    }
  }
  return t;
}

static void put_message(conn *c, const template *t, uint64_t number, uint64_t user, uint64_t endpoint) {
  uint8_t *to = mq_room(c, t->bytes);
  memcpy(to, t->packet, t->bytes);
  for (int n = 0; n < t->fields; n++) {
    char kind = t->field[n].kind;
    uint64_t value = kind == '#' ? number : kind == '%' ? user : endpoint;
    uint8_t *digits = to + t->field[n].at;
    for (int i = t->field[n].digits; i--; value /= 10) digits[i] = '0' + value % 10;
  }
  if (t->id_at) {
    uint16_t id = mq_packet_id(c);
    to[t->id_at] = id >> 8;
    to[t->id_at + 1] = id;
    c->in_flight++;
  }
  c->out_end += t->bytes;
}

static uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352d;
  x ^= x >> 15;
  x *= 0x846ca68b;
  return x ^ x >> 16;
}

/* CPU seconds, user and system, of a process with all its threads; 0 where it is gone. */
static double cpu_of(int pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  text[fread(text, 1, sizeof text - 1, file)] = 0;
  fclose(file);
  char *at = strrchr(text, ')'); /* the name before it may hold blanks */
  unsigned long user = 0, system = 0;
  if (at) sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  return (user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu(void) {
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static enum { WARMING, MEASURING, DRAINING } phase;
static uint64_t begun_ns, *sent_ns, sent, received, filled, measured, filled_measured;
static uint64_t duplicates, disordered, foreign, foreign_last_ms, latest;
static uint8_t *receipts;
static uint32_t *latencies_us;
static size_t latency_count, latency_room = 1 << 20;

static void publish_some(conn *publishers, const template *message, const template *filler, long wanted) {
  static int turn;
  static uint64_t fill_endpoint;
  int is_turn = !strcmp(given.order, "turn");
  uint64_t now = now_ns();
  while (wanted > 0) {
    conn *c = NULL;
    for (int tried = 0; tried < given.publishers && !c; tried++) {
      conn *next = &publishers[turn];
      turn = (turn + 1) % given.publishers;
      if (mq_pending(next) <= ENOUGH_UNSENT && (!given.qos || next->in_flight < 30000)) c = next;
    }
    if (!c) return;
    long chunk = wanted < CHUNK ? wanted : CHUNK;
    for (long i = 0; i < chunk; i++) {
      for (int n = 0; n < given.fill; n++) {
        put_message(c, filler, 0, fill_endpoint / given.endpoints, fill_endpoint);
        fill_endpoint = (fill_endpoint + 1) % (given.users * given.endpoints);
        filled++;
        if (phase == MEASURING) filled_measured++;
      }
      uint32_t hash = mixed(sent + 1);
      uint64_t user = (is_turn ? sent : hash) % given.users;
      put_message(c, message, sent, user, user * given.endpoints + (hash >> 20) % given.endpoints);
      sent_ns[sent % RING] = given.rate > 0 ? begun_ns + (uint64_t)((sent + 1) / given.rate * 1e9) : now;
      receipts[sent % RING] = 0;
      sent++;
    }
    wanted -= chunk;
  }
}

/* The number after the key, or UINT64_MAX. */
static uint64_t number_in(const publish *p) {
  size_t key_bytes = strlen(given.key);
  uint8_t *at = memmem(p->payload, p->payload_bytes, given.key, key_bytes), *end = p->payload + p->payload_bytes;
  if (!at) return UINT64_MAX;
  for (at += key_bytes; at < end && (*at == ' ' || *at == ':' || *at == '"'); at++) {
  }
  uint64_t number = 0;
  for (; at < end && *at >= '0' && *at <= '9'; at++) number = number * 10 + (*at - '0');
  return number;
}

static void take(const publish *p, uint64_t now) {
  uint64_t number = number_in(p);
  if (number >= sent) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    foreign_last_ms = t.tv_sec * 1000ull + t.tv_nsec / 1000000;
    foreign++;
    return;
  }
  if (receipts[number % RING] >= given.fanout) {
    duplicates++;
    return;
  }
  receipts[number % RING]++;
  received++;
  if (number < latest)
    disordered++;
  else
    latest = number;
  if (phase != MEASURING) return;
  measured++;
  if (latency_count == latency_room) latencies_us = realloc(latencies_us, (latency_room *= 2) * sizeof *latencies_us);
  uint64_t since = sent_ns[number % RING];
  latencies_us[latency_count++] = now > since ? (now - since) / 1000 : 0;
}

static void receive(conn *c) {
  uint8_t header, *body;
  size_t bytes;
  mq_fill(c);
  uint64_t now = now_ns();
  while (mq_next(c, &header, &body, &bytes)) {
    if (header >> 4 == DISCONNECT) {
      fprintf(stderr, "the broker disconnects: code %d\n", bytes ? body[0] : 0);
      exit(3);
    } else if (header >> 4 == PUBACK) {
      c->in_flight--;
    } else if (header >> 4 == PUBLISH) {
      publish p = mq_read_publish(header, body, bytes);
      if (p.qos) mq_puback(c, p.packet_id);
      take(&p, now);
    }
  }
}

static double quantile_ms(double q) {
  return latency_count ? latencies_us[(size_t)((latency_count - 1) * q)] / 1000.0 : -1;
}

static void print(double seconds, double own_s) {
  qsort(latencies_us, latency_count, sizeof *latencies_us, by_size);
  printf("{\"rate\":%.1f,\"fill_rate\":%.1f,\"sent\":%lu,\"received\":%lu,\"lost\":%ld,\"duplicates\":%lu,"
         "\"disordered\":%lu,\"foreign\":%lu,\"foreign_last_ms\":%lu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,"
         "\"seconds\":%.3f,\"cpu_us\":{\"loadgen\":%.2f",
         measured / seconds, filled_measured / seconds, sent, received, (long)(sent * given.fanout - received),
         duplicates, disordered, foreign, foreign_last_ms, quantile_ms(.5), quantile_ms(.99), quantile_ms(1), seconds,
         measured ? own_s * 1e6 / measured : 0);
  for (int n = 0; n < given.process_count; n++) {
    process *p = &given.processes[n];
    printf(",\"%s\":%.2f", p->name, measured ? (p->after_s - p->before_s) * 1e6 / measured : 0);
  }
  printf("}}\n");
}

int main(int count, char **arguments) {
  read_options(count, arguments);
  template message = make_template(given.topic, given.payload, given.qos);
  template filler = make_template(given.fill_topic, "", 0);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  sent_ns = calloc(RING, sizeof *sent_ns);
  receipts = calloc(RING, sizeof *receipts);
  latencies_us = malloc(latency_room * sizeof *latencies_us);

  conn connections[1 + MOST_PUBLISHERS], *publishers = connections + 1; /* the first is the subscriber */
  struct pollfd waits[1 + MOST_PUBLISHERS];
  for (int n = 0; n <= given.publishers; n++) {
    char id[64];
    snprintf(id, sizeof id, "loadgen-%d-%d", getpid(), n);
    mq_connect(&connections[n], given.port, id, 65535);
    if (!n) mq_subscribe(&connections[n], given.sub, given.subqos);
    mq_nonblock(&connections[n]);
  }

  begun_ns = now_ns();
  uint64_t from_ns = begun_ns + (uint64_t)(given.warmup * 1e9), to_ns = from_ns + (uint64_t)(given.duration * 1e9);
  uint64_t end_ns = to_ns + (uint64_t)(given.drain * 1e9), measured_from = 0, measured_to = 0;
  double own_before = 0, own_after = 0;
  for (;;) {
    uint64_t now = now_ns(), due_ns = 0;
    int has_foreign = given.foreign && foreign >= (uint64_t)given.foreign;
    if (phase == WARMING && now >= from_ns) {
      phase = MEASURING;
      measured_from = now;
      own_before = own_cpu();
      for (int n = 0; n < given.process_count; n++) given.processes[n].before_s = cpu_of(given.processes[n].pid);
    }
    if (phase == MEASURING && (now >= to_ns || has_foreign)) {
      phase = DRAINING;
      measured_to = now;
      own_after = own_cpu();
      for (int n = 0; n < given.process_count; n++) given.processes[n].after_s = cpu_of(given.processes[n].pid);
    }
    if (phase == DRAINING) {
      int is_complete = received >= sent * given.fanout && (!given.foreign || has_foreign);
      if (is_complete || now >= end_ns) break;
    } else {
      long wanted = 4096, room = given.window - (long)(sent - received / given.fanout);
      if (given.rate > 0) {
        uint64_t due = (uint64_t)((now - begun_ns) * 1e-9 * given.rate);
        wanted = due > sent ? due - sent : 0;
        due_ns = begun_ns + (uint64_t)((sent + wanted + 1) / given.rate * 1e9);
      }
      publish_some(publishers, &message, &filler, wanted < room ? wanted : room);
    }
    for (int n = 0; n <= given.publishers; n++) {
      mq_flush(&connections[n]);
      waits[n] = (struct pollfd){connections[n].fd, POLLIN | (mq_pending(&connections[n]) ? POLLOUT : 0), 0};
    }
    struct timespec patience = {0, 5000000};
    if (due_ns) {
      uint64_t at = now_ns(), left = due_ns > at ? due_ns - at : 0;
      if (left < 100000) left = 100000; /* as long as a few packets take: sending sooner only makes smaller writes */
      if (left < 5000000) patience.tv_nsec = left;
    }
    if (ppoll(waits, given.publishers + 1, &patience, NULL) < 0 && errno != EINTR) die("ppoll");
    for (int n = 0; n <= given.publishers; n++)
      if (waits[n].revents & (POLLIN | POLLHUP | POLLERR)) receive(&connections[n]);
  }
  print((measured_to - measured_from) / 1e9, own_after - own_before);
  return 0;
}
