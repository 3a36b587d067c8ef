/* What the files of the stub share. */
#ifndef KD_H
#define KD_H

#include <stddef.h>

#include "kdstub.h"

/* What kd_init was given. */
extern const struct kd_options *kd_options;

/* ---- wire.c: datagrams by the synthetic debugger ---- */

/* Longest payload of a datagram: a call's page less its head and the frame's headers. */
#define KD_WIRE_MAX (4088 - 42)

/* Finds the device and sets it up. */
enum kd_result kd_wire_init(void);
/* Where the payload of the next datagram is to be built. */
uint8_t *kd_wire_buffer(void);
/* Sends what was built. Datagrams may be lost on the way, and here. */
void kd_wire_send(size_t length);
/* The payload of a datagram that has come; it may be changed, and lasts until the next call. */
uint8_t *kd_wire_receive(size_t *length);
/* Milliseconds since some time. */
uint64_t kd_now(void);
/* This machine's IPv4 address, 0 if it has none. */
uint32_t kd_wire_address(void);

/* ---- net.c: KDNET ---- */

/* Reads the key; false if it is none. */
bool kd_net_init(const char *key);
/* Seals and sends a datagram of the session. The payload comes in two parts. */
void kd_net_send(const void *head, size_t head_length, const void *data, size_t length);
/* What a datagram meant. */
enum kd_event { KD_NOTHING, KD_SESSION, KD_DATA };
/*
 * Looks at one datagram from the wire and at the clock. KD_SESSION: a debugger has answered, all
 * begins anew. KD_DATA: a payload has come in a session.
 */
enum kd_event kd_net_poll(const uint8_t **data, size_t *length, bool *received);
/* Whether there is a session. */
bool kd_net_connected(void);
/* Gives the session up: the debugger does not answer. */
void kd_net_drop(void);

/* ---- packet.c: KD packets ---- */

enum kd_packet_type {
  KD_MANIPULATE = 2,
  KD_DEBUG_IO = 3,
  KD_ACKNOWLEDGE = 4,
  KD_RESEND = 5,
  KD_RESET = 6,
  KD_STATE_CHANGE = 7,
};

/* Most bytes after the head of a reply: 1152 in all (what Windows sends over a network). */
#define KD_DATA_MAX (1152 - 56)
/* Longest payload: a manipulate reply with a CONTEXT. */
#define KD_PAYLOAD_MAX 1288

/* Begins anew, with a session. */
void kd_packet_reset(void);
/* Where the payload of the next packet is to be built. What was there is given up. */
uint8_t *kd_packet_buffer(void);
/* Sends what was built, and again until it is acknowledged. */
void kd_packet_send(enum kd_packet_type type, size_t length);
/* Whether a packet waits for its acknowledgement. */
bool kd_packet_waiting(void);
/* Takes a payload of the session: true if it is a packet that is to be carried out now. */
bool kd_packet_receive(const uint8_t *data, size_t length, const uint8_t **payload,
                       size_t *payload_length);
/* Sends what was not acknowledged in time once more. */
void kd_packet_tick(void);

/* ---- stub.c ---- */

/* The registers of the code that was stopped, NULL while it runs. */
extern struct kd_registers *kd_stopped;
/* The debug registers of that code; the CPU's are off meanwhile. */
struct kd_debug_registers {
  uint64_t dr[4], dr6, dr7;
};
extern struct kd_debug_registers kd_debug;
/* Lets the stopped code go on; `handled` is what the debugger thinks of its exception. */
void kd_continue(bool handled);
/* The same, and crashes the kernel then. */
void kd_crash(void);
/* Tells the debugger once more why it was stopped. */
void kd_report(void);
/* The debugger asks for a stop. */
void kd_break_in(void);

/* ---- context.c: registers as the debugger sees them ---- */

#define KD_CONTEXT_BYTES 1232
#define KD_SPECIAL_BYTES 224

void kd_get_context(uint8_t context[KD_CONTEXT_BYTES]);
/* Reads up to RIP: 0x100 bytes. */
void kd_set_context(const uint8_t *context);
void kd_get_special(uint8_t special[KD_SPECIAL_BYTES]);
/* False: the CPU refused some of them. */
bool kd_set_special(const uint8_t special[KD_SPECIAL_BYTES]);

/* ---- breakpoint.c ---- */

/* A handle, or 0 if the place cannot be written or the table is full. */
uint32_t kd_breakpoint_set(uint64_t address);
bool kd_breakpoint_restore(uint32_t handle);
/* Takes the breakpoint at an address out; false if there is none. */
bool kd_breakpoint_remove(uint64_t address);
/* Puts the original bytes into a copy of memory. */
void kd_breakpoint_mask(uint64_t address, uint8_t *bytes, size_t length);

/* ---- manipulate.c ---- */

/* Carries a request out and replies. */
void kd_manipulate(const uint8_t *request, size_t length);

/* ---- bytes: all fields are little-endian, as the CPU is ---- */

static inline void kd_copy(void *to, const void *from, size_t length)
{
  __builtin_memcpy(to, from, length);
}

static inline void kd_zero(void *to, size_t length)
{
  __builtin_memset(to, 0, length);
}

#define KD_FIELD(bits)                                                     \
  static inline uint##bits##_t kd_get##bits(const uint8_t *from)           \
  {                                                                        \
    uint##bits##_t value;                                                  \
    __builtin_memcpy(&value, from, sizeof value);                          \
    return value;                                                          \
  }                                                                        \
  static inline void kd_put##bits(uint8_t *to, uint##bits##_t value)       \
  {                                                                        \
    __builtin_memcpy(to, &value, sizeof value);                            \
  }

KD_FIELD(16)
KD_FIELD(32)
KD_FIELD(64)

#endif
