/*
 * The demo target: a kernel of two threads that a KDNET debugger can attach to. `counter` counts,
 * what is written to `command` is carried out, and it says on COM1 what it does.
 */
#include <stdarg.h>
#include <stddef.h>

#include "kdstub.h"

enum { COM1 = 0x3f8, PIC1 = 0x20, PIC2 = 0xa0, PIT = 0x40, KEYBOARD = 0x64 };
enum { VECTORS = 48, HANDLER_BYTES = 16, TIMER_VECTOR = 32, CODE = 8, DATA = 16 };
/* Timer interrupts a second. */
enum { RATE = 100 };
enum { UNEXPECTED_KERNEL_MODE_TRAP = 0x7f };

/* ---- what a debugger looks at ---- */

/* Counts the worker's rounds. */
volatile uint64_t counter;
/* What the worker computes. */
volatile uint64_t number = 1;
/* Interrupts of the timer. */
volatile uint64_t ticks;
/* The debugger writes one of these; the watcher carries it out and writes 0. */
enum { NONE, SAY, BUG_CHECK, RESTART, DIVIDE, TOUCH };
volatile uint32_t command;
/* What SAY says. */
char message[64] = "hello from the target";
/* Code and parameters of a bug check. */
uint64_t bug_check_data[5];

/* ---- what freestanding C needs ---- */

void *memcpy(void *to, const void *from, size_t length)
{
  void *end = to;
  __asm__ volatile("rep movsb" : "+D"(end), "+S"(from), "+c"(length)::"memory");
  return to;
}

void *memset(void *to, int byte, size_t length)
{
  void *end = to;
  __asm__ volatile("rep stosb" : "+D"(end), "+c"(length) : "a"(byte) : "memory");
  return to;
}

int memcmp(const void *a, const void *b, size_t length)
{
  const uint8_t *x = a, *y = b;
  for (size_t n = 0; n < length; n++) {
    if (x[n] != y[n]) return x[n] - y[n];
  }
  return 0;
}

static void out(uint16_t port, uint8_t value)
{
  __asm__ volatile("outb %0, %1" ::"a"(value), "d"(port));
}

static uint8_t in(uint16_t port)
{
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "d"(port));
  return value;
}

/* ---- text ---- */

/* %s, %u and %x of 64 bits; returns `buffer`. */
static const char *format(char *buffer, size_t size, const char *text, ...)
{
  size_t at = 0;
  va_list list;
  va_start(list, text);
  for (; *text != '\0'; text++) {
    char digits[21];
    const char *piece = digits;
    if (*text != '%') {
      digits[0] = *text;
      digits[1] = '\0';
    } else if (*++text == 's') {
      piece = va_arg(list, const char *);
    } else {
      uint64_t value = va_arg(list, uint64_t);
      unsigned base = *text == 'x' ? 16 : 10;
      char *digit = digits + sizeof digits - 1;
      *digit = '\0';
      do {
        *--digit = "0123456789abcdef"[value % base];
        value /= base;
      } while (value > 0);
      piece = digit;
    }
    while (*piece != '\0' && at + 1 < size) buffer[at++] = *piece++;
  }
  va_end(list);
  buffer[at] = '\0';
  return buffer;
}

/* Says something on COM1 and to the debugger. */
static void say(const char *text)
{
  enum { STATUS = 5, EMPTY = 0x20, PATIENCE = 10000 };
  for (const char *letter = text; *letter != '\0'; letter++) {
    for (unsigned n = 0; n < PATIENCE && !(in(COM1 + STATUS) & EMPTY); n++) {}
    out(COM1, (uint8_t)*letter);
  }
  kd_print(text);
}

/* ---- the end ---- */

static void restart(void)
{
  out(KEYBOARD, 0xfe);
  for (;;) __asm__ volatile("cli; hlt");
}

/* Says so, lets the debugger look, and restarts; without a debugger it halts. */
__attribute__((noinline)) void bug_check(uint64_t code, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
  char text[160];
  __asm__ volatile("cli");
  const uint64_t data[5] = { code, a, b, c, d };
  for (unsigned n = 0; n < 5; n++) bug_check_data[n] = data[n];
  say(format(text, sizeof text, "\n*** Fatal System Error: 0x%x\n    (0x%x,0x%x,0x%x,0x%x)\n\n", code,
             a, b, c, d));
  if (kd_connected()) {
    __asm__ volatile("int3");
    restart();
  }
  for (;;) __asm__ volatile("cli; hlt");
}

static void crash(uint32_t code)
{
  bug_check(code, 0, 0, 0, 0);
}

/* ---- threads ---- */

struct thread {
  /* Where its registers are while it does not run. */
  struct kd_registers *registers;
  const char *name;
};

struct thread worker_thread = { .name = "worker" };
struct thread watcher_thread = { .name = "watcher" };
struct thread *current_thread = &worker_thread;
static uint8_t watcher_stack[16384] __attribute__((aligned(16)));

__attribute__((noinline)) uint64_t advance(uint64_t value)
{
  uint64_t next = value & 1 ? 3 * value + 1 : value / 2;
  __asm__ volatile("" : "+r"(next));
  next ^= next << 13;
  __asm__ volatile("" : "+r"(next));
  next ^= next >> 7;
  __asm__ volatile("" : "+r"(next));
  next ^= next << 17;
  return next;
}

__attribute__((noinline, noreturn)) static void worker(void)
{
  for (;;) {
    counter++;
    number = advance(number);
    __asm__ volatile("hlt");
  }
}

__attribute__((noinline)) static void obey(uint32_t order)
{
  char text[96];
  switch (order) {
  case SAY:
    say(format(text, sizeof text, "target: %s\n", message));
    break;
  case BUG_CHECK:
    bug_check(0xdead, (uint64_t)message, counter, 0, 0);
    break;
  case RESTART:
    say("target: restarts\n");
    restart();
    break;
  case DIVIDE:
    __asm__ volatile("divl %0" ::"r"(0), "a"(1), "d"(0));
    break;
  case TOUCH:
    *(volatile uint32_t *)0xffff900000000000 = order;
    break;
  }
}

__attribute__((noinline, noreturn)) static void watcher(void)
{
  enum { PERIOD = 5 * RATE };
  char text[96];
  uint64_t next = PERIOD;
  bool connected = false;
  for (;;) {
    if (connected != kd_connected()) {
      connected = !connected;
      say(connected ? "target: a debugger is there\n" : "target: the debugger has gone\n");
    }
    if (command != NONE) {
      uint32_t order = command;
      command = NONE;
      obey(order);
    }
    if (ticks >= next) {
      next = ticks + PERIOD;
      kd_print(format(text, sizeof text, "target: counter %u after %u ticks\n", counter, ticks));
    }
    __asm__ volatile("hlt");
  }
}

static void start_watcher(void)
{
  struct kd_registers *registers =
    (struct kd_registers *)(watcher_stack + sizeof watcher_stack - 16 - sizeof *registers);
  registers->rip = (uint64_t)watcher;
  registers->cs = CODE;
  registers->ss = DATA;
  registers->rflags = 0x202;
  /* As after a call. */
  registers->rsp = (uint64_t)(watcher_stack + sizeof watcher_stack - 8);
  watcher_thread.registers = registers;
}

/* The registers with which to go on. */
struct kd_registers *trap(struct kd_registers *registers)
{
  if (registers->vector == TIMER_VECTOR) {
    ticks++;
    out(PIC1, 0x20);
    kd_poll(registers);
    current_thread->registers = registers;
    current_thread = current_thread == &worker_thread ? &watcher_thread : &worker_thread;
    return current_thread->registers;
  }
  /* All other lines are masked: what comes is spurious. */
  if (registers->vector > TIMER_VECTOR || kd_trap(registers)) return registers;
  uint64_t address;
  __asm__ volatile("movq %%cr2, %0" : "=r"(address));
  bug_check(UNEXPECTED_KERNEL_MODE_TRAP, registers->vector, registers->rip, registers->error, address);
  return registers;
}

/* ---- the machine ---- */

extern uint8_t handlers[], image[], image_end[];

static struct {
  uint16_t offset_low, selector, attributes, offset_middle;
  uint32_t offset_high, zero;
} gates[VECTORS];

static void set_up_interrupts(void)
{
  for (unsigned n = 0; n < VECTORS; n++) {
    uint64_t handler = (uint64_t)(handlers + HANDLER_BYTES * n);
    gates[n].offset_low = (uint16_t)handler;
    gates[n].selector = CODE;
    gates[n].attributes = 0x8e00;
    gates[n].offset_middle = (uint16_t)(handler >> 16);
    gates[n].offset_high = (uint32_t)(handler >> 32);
  }
  struct {
    uint16_t limit;
    uint64_t base;
  } __attribute__((packed)) table = { sizeof gates - 1, (uint64_t)gates };
  __asm__ volatile("lidt %0" ::"m"(table));
  static const uint8_t commands[][2] = {
    { PIC1, 0x11 }, { PIC2, 0x11 }, { PIC1 + 1, TIMER_VECTOR }, { PIC2 + 1, TIMER_VECTOR + 8 },
    { PIC1 + 1, 4 }, { PIC2 + 1, 2 }, { PIC1 + 1, 1 }, { PIC2 + 1, 1 },
    /* All masked but the timer. */
    { PIC1 + 1, 0xfe }, { PIC2 + 1, 0xff },
  };
  for (unsigned n = 0; n < sizeof commands / 2; n++) out(commands[n][0], commands[n][1]);
  enum { DIVISOR = 1193182 / RATE };
  out(PIT + 3, 0x34);
  out(PIT, DIVISOR & 255);
  out(PIT, DIVISOR >> 8);
}

/* ---- the debugger ---- */

static uint64_t memory_size;

/* The first GiB is mapped to itself. */
static void *physical(uint64_t address)
{
  return address < memory_size ? (void *)address : NULL;
}

static uint64_t thread(void)
{
  return (uint64_t)current_thread;
}

/* Windows' list of loaded modules (LDR_DATA_TABLE_ENTRY), with one. */
static uint64_t modules[2];
static const uint16_t module_name[] = u"target";
static uint64_t module[13];

/* Windows' KDDEBUGGER_DATA64, as much as debuggers look at, and the list that it is in. */
static uint64_t debugger_data[0x340 / 8];
static uint64_t debugger_list[2];
static const uint64_t service_pack[2];

static void set_up_lists(void)
{
  uint64_t name = (sizeof module_name - 2) | (sizeof module_name << 16);
  modules[0] = modules[1] = (uint64_t)module;
  module[0] = module[1] = (uint64_t)modules;
  module[0x30 / 8] = (uint64_t)image;
  module[0x40 / 8] = (uint64_t)(image_end - image);
  module[0x48 / 8] = module[0x58 / 8] = name;
  module[0x50 / 8] = module[0x60 / 8] = (uint64_t)module_name;
  debugger_list[0] = debugger_list[1] = (uint64_t)debugger_data;
  debugger_data[0] = debugger_data[1] = (uint64_t)debugger_list;
  /* "KDBG". */
  debugger_data[0x10 / 8] = 0x4742444b | (uint64_t)sizeof debugger_data << 32;
  debugger_data[0x18 / 8] = (uint64_t)image;
  debugger_data[0x48 / 8] = (uint64_t)modules;
  debugger_data[0x88 / 8] = (uint64_t)bug_check_data;
  debugger_data[0x268 / 8] = (uint64_t)service_pack;
}

static struct kd_options options = {
  .key = "1.2.3.4",
  .physical = physical,
  .image = "target",
  .base = (uint64_t)image,
  /* One that radare2 has a profile of. */
  .build = 18362,
  .module_list = (uint64_t)modules,
  .debugger_data = (uint64_t)debugger_list,
  .thread = thread,
  .reboot = restart,
  .crash = crash,
};

static uint8_t call_page[4096] __attribute__((aligned(4096)));
static char command_line[256];

/* `key=w.x.y.z` and `port=N` on the command line. */
static void read_command_line(const char *line)
{
  size_t length = 0;
  while (line[length] != '\0' && length + 1 < sizeof command_line) {
    command_line[length] = line[length];
    length++;
  }
  for (char *word = command_line; *word != '\0';) {
    char *end = word;
    while (*end != '\0' && *end != ' ') end++;
    bool more = *end != '\0';
    *end = '\0';
    if (memcmp(word, "key=", 4) == 0) options.key = word + 4;
    if (memcmp(word, "port=", 5) == 0) {
      options.port = 0;
      for (const char *digit = word + 5; *digit >= '0' && *digit <= '9'; digit++) {
        options.port = (uint16_t)(10 * options.port + (*digit - '0'));
      }
    }
    word = more ? end + 1 : end;
  }
}

/* Multiboot's boot information: flags, KiB below and above 1 MiB, device, command line. */
void main(const uint32_t *boot)
{
  enum { MEMORY = 1, COMMAND_LINE = 4 };
  static const char *const results[] = {
    [KD_OK] = "waits for a debugger",
    [KD_BAD_KEY] = "has no key of the form w.x.y.z",
    [KD_NO_DEVICE] = "has no synthetic debugger",
    [KD_FAILED] = "cannot use the synthetic debugger",
  };
  char text[96];
  uint64_t bytes = boot[0] & MEMORY ? ((uint64_t)boot[2] + 1024) << 10 : 2 << 20;
  memory_size = bytes < 1 << 30 ? bytes : 1 << 30;
  if (boot[0] & COMMAND_LINE) read_command_line((const char *)(uint64_t)boot[4]);
  set_up_lists();
  set_up_interrupts();
  options.size = (uint32_t)(image_end - image);
  options.hypercall_page = call_page;
  say(format(text, sizeof text, "target: %s\n", results[kd_init(&options)]));
  start_watcher();
  __asm__ volatile("sti");
  worker();
}
