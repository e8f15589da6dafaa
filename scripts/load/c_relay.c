/* The null relay that the bridge is measured against: in/<x> -> out/<x>, the payload as it is. No parsing, no registry.
 *
 *   c_relay PORT QOS COALESCE_US FAN_OUT
 *
 * COALESCE_US 0 writes what each read brought (the plain relay); more waits that long first, since few large reads and
 * writes are cheaper for the broker (the coalescing relay). FAN_OUT 1 publishes out/<x>, more out/0/<x>, out/1/<x>, ...
 * At QoS 1 an input is acknowledged when all its outputs are. Says "ready" on standard error once it is subscribed. */
#include "mq.h"

#define IDS 65536

/* Of each output on its way the packet id of its input, and of each input how many outputs are on their way. */
static uint16_t input_of[IDS];
static int left_of[IDS];

static void put_publish(conn *c, const char *prefix, publish *in, int qos) {
  size_t prefix_bytes = strlen(prefix), rest = in->topic_bytes - 3, topic = prefix_bytes + rest; /* without "in/" */
  size_t length = 2 + topic + (qos ? 2 : 0) + 1 + in->payload_bytes;
  uint8_t *to = mq_room(c, length + 5), *p = to;
  *p++ = 0x30 | qos << 1;
  p += put_length(p, length);
  *p++ = topic >> 8;
  *p++ = topic;
  memcpy(p, prefix, prefix_bytes);
  memcpy(p + prefix_bytes, in->topic + 3, rest);
  p += topic;
  if (qos) {
    uint16_t id = mq_packet_id(c);
    input_of[id] = in->packet_id;
    *p++ = id >> 8;
    *p++ = id;
  }
  *p++ = 0; /* no properties */
  memcpy(p, in->payload, in->payload_bytes);
  c->out_end += p + in->payload_bytes - to;
}

int main(int count, char **arguments) {
  if (count != 5) {
    fprintf(stderr, "usage: c_relay PORT QOS COALESCE_US FAN_OUT\n");
    return 2;
  }
  int qos = atoi(arguments[2]), coalesce_us = atoi(arguments[3]), fan_out = atoi(arguments[4]);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  conn c;
  char id[64];
  snprintf(id, sizeof id, "c-relay-%d", getpid());
  mq_connect(&c, atoi(arguments[1]), id, 65535);
  mq_subscribe(&c, "in/#", qos);
  mq_nonblock(&c);
  fprintf(stderr, "ready\n");
  for (;;) {
    struct pollfd wait = {c.fd, POLLIN | (mq_pending(&c) ? POLLOUT : 0), 0};
    if (poll(&wait, 1, -1) < 0) continue;
    if (coalesce_us) usleep(coalesce_us);
    if (wait.revents & (POLLIN | POLLHUP | POLLERR)) mq_fill(&c);
    uint8_t header, *body;
    size_t bytes;
    while (mq_next(&c, &header, &body, &bytes)) {
      if (header >> 4 == PUBLISH) {
        publish in = mq_read_publish(header, body, bytes);
        left_of[in.packet_id] = fan_out;
        for (int n = 0; n < fan_out; n++) {
          char prefix[32] = "out/";
          if (fan_out > 1) snprintf(prefix, sizeof prefix, "out/%d/", n);
          put_publish(&c, prefix, &in, qos);
        }
      } else if (header >> 4 == PUBACK) {
        uint16_t input = input_of[body[0] << 8 | body[1]];
        if (!--left_of[input]) mq_puback(&c, input);
      }
    }
    mq_flush(&c);
  }
}
