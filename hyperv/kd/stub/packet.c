/*
 * KD packets, one in each datagram. Packets of the debugger are acknowledged and known again when
 * they are repeated; ours are repeated until they are acknowledged.
 */
#include "kd.h"

enum {
  HEAD = 16,
  DATA_LEADER = 0x30303030,
  CONTROL_LEADER = 0x69696969,
  BREAK_IN = 0x62,
  /* Debuggers that number as on a serial line set this bit in their first id, and clear it in ACKs. */
  SYNC_BIT = 0x800,
  /* Milliseconds, and how often, before the debugger is taken for gone. */
  REPEAT_INTERVAL = 500,
  REPEATS = 10,
};

static uint32_t next_id;

/* The last packet sent, as long as it may have to be repeated. */
static struct {
  uint8_t head[HEAD];
  uint8_t payload[KD_PAYLOAD_MAX];
  size_t length;
  bool kept, waiting;
  unsigned repeats;
  uint64_t sent_at;
} last;

/* The head of the last packet taken. */
static uint8_t taken[HEAD];
static bool any_taken;

void kd_packet_reset(void)
{
  next_id = 0;
  last.kept = last.waiting = any_taken = false;
}

uint8_t *kd_packet_buffer(void)
{
  last.kept = last.waiting = false;
  return last.payload;
}

bool kd_packet_waiting(void)
{
  return last.waiting;
}

static void put_head(uint8_t head[HEAD], uint32_t leader, uint16_t type, size_t length, uint32_t id,
                     uint32_t checksum)
{
  kd_put32(head, leader);
  kd_put16(head + 4, type);
  kd_put16(head + 6, (uint16_t)length);
  kd_put32(head + 8, id);
  kd_put32(head + 12, checksum);
}

static uint32_t sum(const uint8_t *data, size_t length)
{
  uint32_t total = 0;
  while (length-- > 0) total += *data++;
  return total;
}

static void send_control(enum kd_packet_type type, uint32_t id)
{
  uint8_t head[HEAD];
  put_head(head, CONTROL_LEADER, type, 0, id, 0);
  kd_net_send(head, HEAD, NULL, 0);
}

static void transmit(void)
{
  last.sent_at = kd_now();
  kd_net_send(last.head, HEAD, last.payload, last.length);
}

void kd_packet_send(enum kd_packet_type type, size_t length)
{
  last.length = length;
  put_head(last.head, DATA_LEADER, type, length, next_id, sum(last.payload, length));
  next_id += 2;
  last.kept = last.waiting = true;
  last.repeats = 0;
  transmit();
}

void kd_packet_tick(void)
{
  if (!last.waiting || !kd_net_connected() || kd_now() - last.sent_at < REPEAT_INTERVAL) return;
  if (last.repeats++ < REPEATS) transmit();
  else kd_net_drop();
}

static void control(uint16_t type, uint32_t id)
{
  switch (type) {
  case KD_ACKNOWLEDGE:
    if (((id ^ kd_get32(last.head + 8)) & ~(uint32_t)SYNC_BIT) == 0) last.waiting = false;
    break;
  case KD_RESEND:
    if (last.kept) transmit();
    break;
  case KD_RESET:
    /* It begins to count anew, and wants to hear what it may have missed. */
    any_taken = false;
    send_control(KD_RESET, last.waiting ? kd_get32(last.head + 8) : next_id);
    if (last.waiting) transmit();
    else kd_report();
    break;
  }
}

bool kd_packet_receive(const uint8_t *data, size_t length, const uint8_t **payload,
                       size_t *payload_length)
{
  if (length == 1 && data[0] == BREAK_IN) {
    kd_break_in();
    return false;
  }
  if (length < HEAD) return false;
  uint16_t type = kd_get16(data + 4);
  uint32_t id = kd_get32(data + 8);
  if (kd_get32(data) == CONTROL_LEADER) {
    control(type, id);
    return false;
  }
  if (kd_get32(data) != DATA_LEADER) return false;
  *payload = data + HEAD;
  *payload_length = kd_get16(data + 6);
  if (*payload_length > length - HEAD || sum(*payload, *payload_length) != kd_get32(data + 12)) {
    send_control(KD_RESEND, 0);
    return false;
  }
  /*
   * The head tells a repeated packet from a new one under the same id, which radare2 sends after a
   * request that it could not. The answer may be what got lost, so it is repeated too.
   */
  if (any_taken && __builtin_memcmp(data, taken, HEAD) == 0) {
    send_control(KD_ACKNOWLEDGE, id);
    if (last.kept) transmit();
    return false;
  }
  /* While the code runs nobody carries requests out; the debugger will find that out. */
  if (type != KD_MANIPULATE || kd_stopped == NULL) return false;
  kd_copy(taken, data, HEAD);
  any_taken = true;
  /* Who asks the next question has heard the last answer, or gave it up. */
  last.kept = last.waiting = false;
  send_control(KD_ACKNOWLEDGE, id);
  return true;
}
