/* The requests that a debugger makes of stopped code. */
#include "cpu.h"
#include "kd.h"
#include "memory.h"

enum api {
  READ_VIRTUAL = 0x3130,
  WRITE_VIRTUAL = 0x3131,
  GET_CONTEXT = 0x3132,
  SET_CONTEXT = 0x3133,
  WRITE_BREAKPOINT = 0x3134,
  RESTORE_BREAKPOINT = 0x3135,
  CONTINUE = 0x3136,
  READ_CONTROL_SPACE = 0x3137,
  WRITE_CONTROL_SPACE = 0x3138,
  READ_IO = 0x3139,
  WRITE_IO = 0x313a,
  REBOOT = 0x313b,
  CONTINUE_2 = 0x313c,
  READ_PHYSICAL = 0x313d,
  WRITE_PHYSICAL = 0x313e,
  GET_VERSION = 0x3146,
  CAUSE_BUG_CHECK = 0x3149,
  SWITCH_PROCESSOR = 0x3150,
  READ_MSR = 0x3152,
  WRITE_MSR = 0x3153,
  SEARCH_MEMORY = 0x3156,
  CLEAR_INTERNAL_BREAKPOINTS = 0x315a,
  FILL_MEMORY = 0x315b,
  QUERY_MEMORY = 0x315c,
};

enum {
  HEAD = 56,
  STATUS = 8,
  TRACE_FLAG = 0x100,
  SPACE_PROCESS = 0,
  SPACE_KERNEL = 2,
  /* Control spaces. */
  SPECIAL_REGISTERS = 2,
  CURRENT_THREAD = 3,
};

enum status {
  SUCCESS = 0,
  UNSUCCESSFUL = 0xc0000001,
  NO_MORE_ENTRIES = 0xc0000225,
};

static size_t min(size_t a, size_t b)
{
  return a < b ? a : b;
}

static enum status success_if(bool condition)
{
  return condition ? SUCCESS : UNSUCCESSFUL;
}

/* Reads to behind the head; a short count is no failure, as long as there is something. */
static size_t read_memory(enum kd_space space, uint8_t *m, enum status *status)
{
  size_t count = min(kd_get32(m + 24), KD_DATA_MAX);
  size_t actual = kd_read(space, kd_get64(m + 16), m + HEAD, count);
  kd_put32(m + 28, (uint32_t)actual);
  *status = success_if(actual > 0 || count == 0);
  return actual;
}

static enum status write_memory(enum kd_space space, uint8_t *m, const uint8_t *data, size_t length)
{
  size_t count = min(kd_get32(m + 24), length);
  size_t actual = kd_write(space, kd_get64(m + 16), data, count);
  kd_put32(m + 28, (uint32_t)actual);
  return success_if(actual == kd_get32(m + 24));
}

static size_t read_control_space(uint8_t *m, enum status *status)
{
  uint8_t space[KD_SPECIAL_BYTES];
  size_t size = 0;
  if (kd_get64(m + 16) == SPECIAL_REGISTERS) {
    kd_get_special(space);
    size = KD_SPECIAL_BYTES;
  } else if (kd_get64(m + 16) == CURRENT_THREAD && kd_options->thread != NULL) {
    kd_put64(space, kd_options->thread());
    size = 8;
  }
  size_t actual = min(kd_get32(m + 24), size);
  kd_copy(m + HEAD, space, actual);
  kd_put32(m + 28, (uint32_t)actual);
  *status = success_if(actual > 0);
  return actual;
}

static enum status write_control_space(uint8_t *m, const uint8_t *data, size_t length)
{
  uint8_t special[KD_SPECIAL_BYTES];
  size_t actual = min(min(kd_get32(m + 24), length), KD_SPECIAL_BYTES);
  kd_put32(m + 28, 0);
  if (kd_get64(m + 16) != SPECIAL_REGISTERS) return UNSUCCESSFUL;
  kd_get_special(special);
  kd_copy(special, data, actual);
  kd_put32(m + 28, (uint32_t)actual);
  return success_if(kd_set_special(special));
}

/* GetVersion: a free build of NT's protocol 6 for amd64, one processor, 64-bit pointers. */
static void get_version(uint8_t *m)
{
  enum { DEBUGGER_DATA = 2, POINTERS_64 = 4, AMD64 = 0x8664 };
  kd_zero(m + 16, 40);
  kd_put16(m + 16, 0x000f);
  kd_put16(m + 18, kd_options->build);
  m[20] = 6;
  m[21] = 2;
  kd_put16(m + 22, POINTERS_64 | (kd_options->debugger_data ? DEBUGGER_DATA : 0));
  kd_put16(m + 24, AMD64);
  /* How many kinds of packets, state changes and requests there are. */
  m[26] = 12;
  m[27] = 3;
  m[28] = 0x31;
  kd_put64(m + 32, kd_options->base);
  kd_put64(m + 40, kd_options->module_list);
  kd_put64(m + 48, kd_options->debugger_data);
}

/* Up to the first byte that cannot be read. */
static enum status search(uint8_t *m, const uint8_t *pattern, size_t length)
{
  uint64_t address = kd_get64(m + 16), bytes = kd_get64(m + 24);
  uint8_t chunk[256];
  size_t wanted = kd_get32(m + 32);
  if (wanted == 0 || wanted > length || wanted > sizeof chunk / 2) return UNSUCCESSFUL;
  while (bytes >= wanted) {
    size_t count = kd_read(KD_VIRTUAL, address, chunk, min(bytes, sizeof chunk));
    if (count < wanted) break;
    for (size_t at = 0; at + wanted <= count; at++) {
      if (__builtin_memcmp(chunk + at, pattern, wanted) == 0) {
        kd_put64(m + 16, address + at);
        return SUCCESS;
      }
    }
    address += count - wanted + 1;
    bytes -= count - wanted + 1;
  }
  return NO_MORE_ENTRIES;
}

static enum status fill(uint8_t *m, const uint8_t *pattern, size_t length)
{
  enum { PHYSICAL = 2 };
  enum kd_space space = kd_get16(m + 28) & PHYSICAL ? KD_PHYSICAL : KD_VIRTUAL;
  uint64_t address = kd_get64(m + 16);
  uint32_t bytes = kd_get32(m + 24), filled = 0;
  size_t period = kd_get16(m + 30);
  if (period == 0 || period > length) return UNSUCCESSFUL;
  while (filled < bytes && kd_write(space, address + filled, pattern + filled % period, 1) == 1) {
    filled++;
  }
  kd_put32(m + 24, filled);
  return success_if(filled == bytes);
}

static enum status query_memory(uint8_t *m)
{
  uint64_t address = kd_get64(m + 16), physical;
  unsigned permissions;
  if (!kd_translate(address, &physical, &permissions)) return UNSUCCESSFUL;
  kd_put64(m + 24, 0);
  kd_put32(m + 32, address >> 63 ? SPACE_KERNEL : SPACE_PROCESS);
  kd_put32(m + 36, permissions);
  return SUCCESS;
}

static enum status port_io(uint8_t *m, bool write)
{
  uint64_t port = kd_get64(m + 16);
  uint32_t size = kd_get32(m + 24);
  if (port > 0xffff || (size != 1 && size != 2 && size != 4)) return UNSUCCESSFUL;
  if (write) kd_out((uint16_t)port, size, kd_get32(m + 28));
  else kd_put32(m + 28, kd_in((uint16_t)port, size));
  return SUCCESS;
}

/* Continue, and Continue2 with its trace flag and DR7. A negative status: not handled. */
static void go_on(const uint8_t *m, bool with_control)
{
  if (with_control) {
    kd_stopped->rflags &= ~(uint64_t)TRACE_FLAG;
    if (kd_get32(m + 20) != 0) kd_stopped->rflags |= TRACE_FLAG;
    kd_debug.dr7 = kd_get64(m + 24);
  }
  kd_continue((int32_t)kd_get32(m + 16) >= 0);
}

void kd_manipulate(const uint8_t *request, size_t length)
{
  if (length < HEAD) return;
  const uint8_t *data = request + HEAD;
  size_t data_length = length - HEAD, reply_length = 0;
  enum api api = kd_get32(request);
  /* These have no reply. */
  switch (api) {
  case CONTINUE:
  case CONTINUE_2:
    go_on(request, api == CONTINUE_2);
    return;
  case REBOOT:
    kd_options->reboot();
    return;
  case CAUSE_BUG_CHECK:
    kd_crash();
    return;
  case CLEAR_INTERNAL_BREAKPOINTS:
    return;
  case SWITCH_PROCESSOR:
    if (kd_get16(request + 6) == 0) {
      kd_report();
      return;
    }
    break;
  default:
    break;
  }
  uint8_t *m = kd_packet_buffer();
  enum status status = SUCCESS;
  kd_copy(m, request, HEAD);
  switch (api) {
  case READ_VIRTUAL:
  case READ_PHYSICAL:
    reply_length = read_memory(api == READ_VIRTUAL ? KD_VIRTUAL : KD_PHYSICAL, m, &status);
    break;
  case WRITE_VIRTUAL:
  case WRITE_PHYSICAL:
    status = write_memory(api == WRITE_VIRTUAL ? KD_VIRTUAL : KD_PHYSICAL, m, data, data_length);
    break;
  case GET_CONTEXT:
    kd_get_context(m + HEAD);
    reply_length = KD_CONTEXT_BYTES;
    break;
  case SET_CONTEXT:
    /* What is taken ends with RIP, and radare2 sends no more than 444 bytes. */
    status = success_if(data_length >= 0x100);
    if (status == SUCCESS) kd_set_context(data);
    break;
  case WRITE_BREAKPOINT: {
    uint32_t handle = kd_breakpoint_set(kd_get64(m + 16));
    kd_put32(m + 24, handle);
    status = success_if(handle != 0);
    break;
  }
  case RESTORE_BREAKPOINT:
    status = success_if(kd_breakpoint_restore(kd_get32(m + 16)));
    break;
  case READ_CONTROL_SPACE:
    reply_length = read_control_space(m, &status);
    break;
  case WRITE_CONTROL_SPACE:
    status = write_control_space(m, data, data_length);
    break;
  case READ_IO:
  case WRITE_IO:
    status = port_io(m, api == WRITE_IO);
    break;
  case GET_VERSION:
    get_version(m);
    break;
  case READ_MSR: {
    uint64_t value;
    status = success_if(kd_read_msr(kd_get32(m + 16), &value));
    kd_put32(m + 20, (uint32_t)value);
    kd_put32(m + 24, (uint32_t)(value >> 32));
    break;
  }
  case WRITE_MSR:
    status = success_if(
      kd_write_msr(kd_get32(m + 16), (uint64_t)kd_get32(m + 24) << 32 | kd_get32(m + 20)));
    break;
  case SEARCH_MEMORY:
    status = search(m, data, data_length);
    break;
  case FILL_MEMORY:
    status = fill(m, data, data_length);
    break;
  case QUERY_MEMORY:
    status = query_memory(m);
    break;
  default:
    status = UNSUCCESSFUL;
    break;
  }
  kd_put32(m + STATUS, status);
  kd_packet_send(KD_MANIPULATE, HEAD + reply_length);
}
