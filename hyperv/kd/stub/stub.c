/* When the code stops, what the debugger is told, and when it goes on. */
#include "cpu.h"
#include "kd.h"
#include "memory.h"

enum { VECTOR_DEBUG = 1, VECTOR_NMI = 2, VECTOR_BREAKPOINT = 3, VECTOR_PAGE_FAULT = 14 };

#define RESUME_FLAG 0x10000ull
#define TRACE_FLAG 0x100ull

/* Exception codes (NTSTATUS). */
enum {
  CODE_BREAKPOINT = 0x80000003,
  CODE_SINGLE_STEP = 0x80000004,
  CODE_MISALIGNED = 0x80000002,
  CODE_ACCESS_VIOLATION = 0xc0000005,
  CODE_ILLEGAL_INSTRUCTION = 0xc000001d,
  CODE_BOUNDS = 0xc000008c,
  CODE_FLOAT = 0xc0000090,
  CODE_DIVIDE = 0xc0000094,
  CODE_OVERFLOW = 0xc0000095,
};

/* State changes. */
enum { EXCEPTION = 0x3030, LOAD_SYMBOLS = 0x3031, STATE_BYTES = 240, STREAM_BYTES = 16 };
enum { PRINT_STRING = 0x3230, PRINT_HEAD = 16, PRINT_MAX = 512 };
/* Datagrams in one poll, and milliseconds that a print waits for the debugger. */
enum { POLL_MAX = 16, PRINT_PATIENCE = 1500 };

const struct kd_options *kd_options;
struct kd_registers *kd_stopped;
struct kd_debug_registers kd_debug;

static bool ready;
/* The stub is at work: what faults or prints now is its own. */
static bool busy;
static bool break_in_wanted;
/* A new session has not been told of the image yet. */
static bool greeting_due;
static bool exception_handled;
/* The debugger asks for a crash, which begins when the stub is done. */
static bool crash_wanted;
/* Why the code stopped. */
static uint32_t state, exception_code;

void kd_break_in(void)
{
  /* Code that an exception has stopped is where the debugger wants it. */
  break_in_wanted = kd_stopped == NULL || state != EXCEPTION;
}

void kd_continue(bool handled)
{
  exception_handled = handled;
  kd_stopped = NULL;
}

void kd_crash(void)
{
  crash_wanted = true;
  kd_continue(true);
}

/* The stub has done its work for now. */
static void leave(void)
{
  enum { MANUALLY_INITIATED_CRASH = 0xe2 };
  busy = false;
  if (!crash_wanted) return;
  crash_wanted = false;
  kd_options->crash(MANUALLY_INITIATED_CRASH);
}

static size_t text_length(const char *text)
{
  size_t length = 0;
  while (text[length] != '\0') length++;
  return length;
}

/* ---- state changes ---- */

static void put_exception(uint8_t *m)
{
  const struct kd_registers *r = kd_stopped;
  kd_put32(m + 32, exception_code);
  kd_put64(m + 48, r->rip);
  if (exception_code == CODE_ACCESS_VIOLATION && r->vector == VECTOR_PAGE_FAULT) {
    enum { WRITE = 2, FETCH = 16 };
    kd_put32(m + 56, 2);
    kd_put64(m + 64, r->error & FETCH ? 8 : r->error & WRITE ? 1 : 0);
    kd_put64(m + 72, kd_read_cr2());
  }
  /* First chance. */
  kd_put32(m + 184, 1);
}

/* The name of the image, after the fixed part: its bytes. */
static size_t put_image(uint8_t *m)
{
  size_t length = text_length(kd_options->image) + 1;
  if (length > KD_DATA_MAX / 2) length = 0;
  kd_put32(m + 32, (uint32_t)length);
  kd_put64(m + 40, kd_options->base);
  kd_put32(m + 60, kd_options->size);
  kd_copy(m + STATE_BYTES, kd_options->image, length);
  return length;
}

/* The processor's state in short, which saves the debugger some questions. */
static void put_report(uint8_t *m)
{
  enum { SEGMENTS_VALID = 1, STANDARD_CS = 2 };
  const struct kd_registers *r = kd_stopped;
  uint8_t context[KD_CONTEXT_BYTES];
  kd_get_context(context);
  kd_put64(m + 192, kd_debug.dr6);
  kd_put64(m + 200, kd_debug.dr7);
  kd_put32(m + 208, (uint32_t)r->rflags);
  size_t count = kd_read(KD_VIRTUAL, r->rip, m + 216, STREAM_BYTES);
  kd_breakpoint_mask(r->rip, m + 216, count);
  kd_put16(m + 212, (uint16_t)count);
  kd_put16(m + 214, SEGMENTS_VALID | STANDARD_CS);
  /* CS, DS, ES, FS. */
  kd_copy(m + 232, context + 0x38, 8);
}

void kd_report(void)
{
  if (kd_stopped == NULL) return;
  enum { PROCESSOR_LEVEL = 6 };
  uint8_t *m = kd_packet_buffer();
  size_t length = STATE_BYTES;
  kd_zero(m, STATE_BYTES);
  kd_put32(m, state);
  kd_put16(m + 4, PROCESSOR_LEVEL);
  kd_put32(m + 8, 1);
  kd_put64(m + 16, kd_options->thread != NULL ? kd_options->thread() : 0);
  kd_put64(m + 24, kd_stopped->rip);
  if (state == EXCEPTION) put_exception(m);
  else length += put_image(m);
  put_report(m);
  kd_packet_send(KD_STATE_CHANGE, length);
}

/* ---- the loop ---- */

/* Deals with a datagram; false: none had come. */
static bool serve(void)
{
  const uint8_t *data, *request;
  size_t length, request_length;
  bool received;
  switch (kd_net_poll(&data, &length, &received)) {
  case KD_SESSION:
    kd_packet_reset();
    break_in_wanted = false;
    greeting_due = kd_stopped == NULL;
    kd_report();
    break;
  case KD_DATA:
    if (kd_packet_receive(data, length, &request, &request_length)) {
      kd_manipulate(request, request_length);
    }
    break;
  case KD_NOTHING:
    break;
  }
  kd_packet_tick();
  return received;
}

/* Stops the code until the debugger lets it go on: whether it dealt with the exception. */
static bool stop(struct kd_registers *registers, uint32_t why, uint32_t code)
{
  kd_debug.dr[0] = kd_read_dr0();
  kd_debug.dr[1] = kd_read_dr1();
  kd_debug.dr[2] = kd_read_dr2();
  kd_debug.dr[3] = kd_read_dr3();
  kd_debug.dr6 = kd_read_dr6();
  kd_debug.dr7 = kd_read_dr7();
  kd_write_dr7(0);
  state = why;
  exception_code = code;
  kd_stopped = registers;
  kd_report();
  while (kd_stopped != NULL) {
    if (!serve()) kd_pause();
  }
  /* An instruction breakpoint at this place is not hit again before it has executed. */
  registers->rflags |= RESUME_FLAG;
  kd_write_dr0(kd_debug.dr[0]);
  kd_write_dr1(kd_debug.dr[1]);
  kd_write_dr2(kd_debug.dr[2]);
  kd_write_dr3(kd_debug.dr[3]);
  kd_write_dr6(0);
  kd_write_dr7(kd_debug.dr7);
  return exception_handled;
}

/* ---- what the kernel calls ---- */

enum kd_result kd_init(const struct kd_options *options)
{
  ready = busy = break_in_wanted = greeting_due = crash_wanted = false;
  kd_options = options;
  if (!kd_net_init(options->key)) return KD_BAD_KEY;
  enum kd_result result = kd_wire_init();
  kd_packet_reset();
  ready = result == KD_OK;
  return result;
}

bool kd_connected(void)
{
  return ready && kd_net_connected();
}

void kd_poll(struct kd_registers *registers)
{
  if (!ready || busy) return;
  busy = true;
  for (unsigned n = 0; n < POLL_MAX && serve(); n++) {}
  if (greeting_due) {
    greeting_due = false;
    stop(registers, LOAD_SYMBOLS, 0);
  }
  if (break_in_wanted) {
    break_in_wanted = false;
    stop(registers, EXCEPTION, CODE_BREAKPOINT);
  }
  leave();
}

static uint32_t code_of(uint64_t vector)
{
  static const uint32_t codes[] = {
    [0] = CODE_DIVIDE,
    [VECTOR_DEBUG] = CODE_SINGLE_STEP,
    [VECTOR_NMI] = CODE_BREAKPOINT,
    [VECTOR_BREAKPOINT] = CODE_BREAKPOINT,
    [4] = CODE_OVERFLOW,
    [5] = CODE_BOUNDS,
    [13] = CODE_ACCESS_VIOLATION,
    [VECTOR_PAGE_FAULT] = CODE_ACCESS_VIOLATION,
    [16] = CODE_FLOAT,
    [17] = CODE_MISALIGNED,
    [19] = CODE_FLOAT,
  };
  uint32_t code = vector < sizeof codes / sizeof codes[0] ? codes[vector] : 0;
  return code ? code : CODE_ILLEGAL_INSTRUCTION;
}

bool kd_trap(struct kd_registers *registers)
{
  if (registers->vector != VECTOR_BREAKPOINT && kd_resume(registers)) return true;
  if (busy) {
    /* A breakpoint in what the stub itself executes cannot be reported: it is taken out. */
    if (registers->vector != VECTOR_BREAKPOINT || !kd_breakpoint_remove(registers->rip - 1)) {
      return false;
    }
    registers->rip--;
    return true;
  }
  if (!kd_connected()) return false;
  busy = true;
  /* The debugger is told of the breakpoint itself, and of a step without the flag that made it. */
  if (registers->vector == VECTOR_BREAKPOINT) registers->rip--;
  if (registers->vector == VECTOR_DEBUG) registers->rflags &= ~TRACE_FLAG;
  bool handled = stop(registers, EXCEPTION, code_of(registers->vector));
  leave();
  return handled;
}

void kd_print(const char *text)
{
  uint64_t flags = kd_interrupts_off();
  size_t left = text_length(text);
  while (left > 0 && !busy && kd_connected()) {
    busy = true;
    size_t length = left < PRINT_MAX ? left : PRINT_MAX;
    uint8_t *m = kd_packet_buffer();
    kd_zero(m, PRINT_HEAD);
    kd_put32(m, PRINT_STRING);
    kd_put16(m + 4, 6);
    kd_put32(m + 8, (uint32_t)length);
    kd_copy(m + PRINT_HEAD, text, length);
    kd_packet_send(KD_DEBUG_IO, PRINT_HEAD + length);
    uint64_t start = kd_now();
    while (kd_packet_waiting() && kd_net_connected()) {
      if (kd_now() - start > PRINT_PATIENCE) kd_net_drop();
      else if (!serve()) kd_pause();
    }
    text += length;
    left -= length;
    busy = false;
  }
  kd_interrupts_restore(flags);
}
