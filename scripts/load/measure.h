/* What the load generators of scripts/bench share: options, texts with numbers in them, CPU times and latencies. */
#ifndef MEASURE_H
#define MEASURE_H
#include "mq.h"

#define MOST_FIELDS 32
#define MOST_PROCESSES 16

typedef struct {
  const char *name;
  enum { INT, LONG, REAL, TEXT } kind;
  void *to;
} option;

typedef struct {
  char name[32];
  int pid;
  double before_s, after_s;
} process;

/* Where numbers stand in a text: ten # or more for the message's, a run of % for the user's, of ^ for the endpoint's. */
typedef struct {
  int count;
  struct {
    int at, digits;
    char kind;
  } field[MOST_FIELDS];
} fields;

static process processes[MOST_PROCESSES];
static int process_count;
static double own_before_s, own_after_s;
static uint32_t *latencies_us;
static size_t latency_count, latency_room;

/* Each option takes a value; --cpu NAME=PID may come repeatedly. */
static void read_options(int count, char **arguments, const option *options, size_t known) {
  for (int i = 1; i < count; i += 2) {
    char *name = arguments[i], *value = i + 1 < count ? arguments[i + 1] : "";
    size_t n = 0;
    if (!strcmp(name, "--cpu") && strchr(value, '=') && process_count < MOST_PROCESSES) {
      process *p = &processes[process_count++];
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
}

static char *content(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) die(path);
  char *text = calloc(1, 65536);
  size_t n = fread(text, 1, 65535, file);
  fclose(file);
  while (n && text[n - 1] == '\n') text[--n] = 0;
  return text;
}

static fields find_fields(const uint8_t *text, size_t from, size_t bytes) {
  fields found = {0};
  for (size_t at = from, end; at < bytes; at = end) {
    char kind = text[at];
    for (end = at + 1; end < bytes && text[end] == kind; end++) {
    }
    int is_field = kind == '%' || kind == '^' || (kind == '#' && end - at >= 10);
    if (is_field && found.count < MOST_FIELDS) {
      found.field[found.count].at = at;
      found.field[found.count].digits = end - at;
      found.field[found.count++].kind = kind;
    }
  }
  return found;
}

static void put_fields(uint8_t *to, const fields *f, uint64_t number, uint64_t user, uint64_t endpoint) {
  for (int n = 0; n < f->count; n++) {
    char kind = f->field[n].kind;
    uint64_t value = kind == '#' ? number : kind == '%' ? user : endpoint;
    uint8_t *digits = to + f->field[n].at;
    for (int i = f->field[n].digits; i--; value /= 10) digits[i] = '0' + value % 10;
  }
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

static void begin_cpu(void) {
  own_before_s = own_cpu();
  for (int n = 0; n < process_count; n++) processes[n].before_s = cpu_of(processes[n].pid);
}

static void end_cpu(void) {
  own_after_s = own_cpu();
  for (int n = 0; n < process_count; n++) processes[n].after_s = cpu_of(processes[n].pid);
}

/* Of the load generator itself and of each process, in us for each of so many, as a JSON object. */
static void print_cpu(uint64_t each) {
  printf("{\"loadgen\":%.2f", each ? (own_after_s - own_before_s) * 1e6 / each : 0);
  for (int n = 0; n < process_count; n++) {
    process *p = &processes[n];
    printf(",\"%s\":%.2f", p->name, each ? (p->after_s - p->before_s) * 1e6 / each : 0);
  }
  printf("}");
}

static void note_latency(uint64_t since_ns, uint64_t now_ns) {
  if (latency_count == latency_room) {
    latency_room = latency_room ? latency_room * 2 : 1 << 20;
    latencies_us = realloc(latencies_us, latency_room * sizeof *latencies_us);
  }
  latencies_us[latency_count++] = now_ns > since_ns ? (now_ns - since_ns) / 1000 : 0;
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static void sort_latencies(void) { qsort(latencies_us, latency_count, sizeof *latencies_us, by_size); }

static double quantile_ms(double q) {
  return latency_count ? latencies_us[(size_t)((latency_count - 1) * q)] / 1000.0 : -1;
}
#endif
