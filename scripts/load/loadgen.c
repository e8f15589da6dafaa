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
#include "measure.h"

#define RING (1u << 22) /* more messages than are ever on their way */
#define MOST_PUBLISHERS 64
#define CHUNK 64                /* messages that one connection sends before the next one's turn */
#define ENOUGH_UNSENT (1 << 17) /* bytes */

typedef struct {
  uint8_t *packet;
  size_t bytes;
  int id_at; /* of the packet id; 0 at QoS 0 */
  fields numbers;
} template;

static struct {
  int port, qos, subqos, publishers, fanout, fill;
  long users, endpoints, window, foreign;
  double rate, warmup, duration, drain;
  char *topic, *sub, *fill_topic, *payload, *key, *order;
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

static void read_given(int count, char **arguments) {
  option options[] = {
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
  read_options(count, arguments, options, sizeof options / sizeof *options);
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
  t.numbers = find_fields(t.packet, text + 2 - t.packet, t.bytes);
  return t;
}

static void put_message(conn *c, const template *t, uint64_t number, uint64_t user, uint64_t endpoint) {
  uint8_t *to = mq_room(c, t->bytes);
  memcpy(to, t->packet, t->bytes);
  put_fields(to, &t->numbers, number, user, endpoint);
  if (t->id_at) {
    uint16_t id = mq_packet_id(c);
    to[t->id_at] = id >> 8;
    to[t->id_at + 1] = id;
    c->in_flight++;
  }
  c->out_end += t->bytes;
}

static enum { WARMING, MEASURING, DRAINING } phase;
static uint64_t begun_ns, *sent_ns, sent, received, filled, measured, filled_measured;
static uint64_t duplicates, disordered, foreign, foreign_last_ms, latest;
static uint8_t *receipts;

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
  note_latency(sent_ns[number % RING], now);
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

static void print(double seconds) {
  sort_latencies();
  printf("{\"rate\":%.1f,\"fill_rate\":%.1f,\"sent\":%lu,\"received\":%lu,\"lost\":%ld,\"duplicates\":%lu,"
         "\"disordered\":%lu,\"foreign\":%lu,\"foreign_last_ms\":%lu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,"
         "\"seconds\":%.3f,\"cpu_us\":",
         measured / seconds, filled_measured / seconds, sent, received, (long)(sent * given.fanout - received),
         duplicates, disordered, foreign, foreign_last_ms, quantile_ms(.5), quantile_ms(.99), quantile_ms(1), seconds);
  print_cpu(measured);
  printf("}\n");
}

int main(int count, char **arguments) {
  read_given(count, arguments);
  template message = make_template(given.topic, given.payload, given.qos);
  template filler = make_template(given.fill_topic, "", 0);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  sent_ns = calloc(RING, sizeof *sent_ns);
  receipts = calloc(RING, sizeof *receipts);

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
  for (;;) {
    uint64_t now = now_ns(), due_ns = 0;
    int has_foreign = given.foreign && foreign >= (uint64_t)given.foreign;
    if (phase == WARMING && now >= from_ns) {
      phase = MEASURING;
      measured_from = now;
      begin_cpu();
    }
    if (phase == MEASURING && (now >= to_ns || has_foreign)) {
      phase = DRAINING;
      measured_to = now;
      end_cpu();
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
  print((measured_to - measured_from) / 1e9);
  return 0;
}
