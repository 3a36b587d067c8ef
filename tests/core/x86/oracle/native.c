/*
 * Executes snippets of machine code on the processor of this machine: cases on
 * standard input, outcomes on standard output, both in the form that cases.ts
 * describes. Everything happens inside a signal handler: to enter a snippet it
 * changes the registers that its return restores, and the exception that ends
 * the snippet brings it back with all registers saved.
 *
 * Build: gcc -O2 -static-pie -mno-red-zone -o native native.c
 * A static program that is not at a fixed address leaves the low addresses,
 * which the snippets use, free.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

/* Linux's selectors for user code and data. */
#define CODE32 0x23
#define CODE64 0x33
#define DATA 0x2b

#define CODE_PAGE 0x8000
#define WINDOW_PAGES 0xd000
#define WINDOW_END 0xf000
/* Most bytes of a snippet. */
#define CODE_MAX 96

/* How much of the XSAVE area is set and told: x87 state or nothing. */
#define STATE_X87 160
#define XSTATE_BV 512

struct request {
  uint8_t bits, length;
  uint16_t window_length;
  uint32_t window;
  uint32_t flags, code;
  uint8_t bytes[CODE_MAX];
  uint64_t registers[16];
  uint32_t state_length, unused;
};

struct response {
  uint32_t vector, error;
  uint64_t cr2, rip, flags;
  uint64_t registers[16];
};

/* The order of instruction encodings. */
static const int REGISTERS[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static struct request request;
static int running;

static void read_all(void *to, size_t length) {
  if (fread(to, 1, length, stdin) != length) _exit(2);
}

static void finish(const greg_t *g, const void *area) {
  struct response response = {
      .vector = (uint32_t)g[REG_TRAPNO],
      .error = (uint32_t)g[REG_ERR],
      .cr2 = (uint64_t)g[REG_CR2],
      .rip = (uint64_t)g[REG_RIP],
      .flags = (uint64_t)g[REG_EFL],
  };
  for (int n = 0; n < 16; n++)
    response.registers[n] = (uint64_t)g[REGISTERS[n]];
  fwrite(&response, sizeof response, 1, stdout);
  fwrite((void *)(uintptr_t)request.window, 1, request.window_length, stdout);
  fwrite(area, 1, request.state_length, stdout);
}

static void set_state(uint8_t *area) {
  if (request.state_length == 0) return;
  read_all(area, request.state_length);
  area[XSTATE_BV] |= 1;
}

static void next(greg_t *g, uint8_t *area) {
  size_t got = fread(&request, 1, sizeof request, stdin);
  if (got == 0) {
    fflush(stdout);
    _exit(0);
  }
  if (got != sizeof request || request.code < CODE_PAGE ||
      request.code + request.length > CODE_PAGE + 0x1000 ||
      request.length > sizeof request.bytes ||
      request.window < WINDOW_PAGES ||
      request.window + request.window_length > WINDOW_END ||
      (request.state_length != 0 && request.state_length != STATE_X87))
    _exit(3);
  /* INT3 everywhere else, so that whatever a snippet does ends soon. */
  memset((void *)CODE_PAGE, 0xcc, 0x1000);
  memcpy((void *)(uintptr_t)request.code, request.bytes, request.length);
  memset((void *)WINDOW_PAGES, 0, WINDOW_END - WINDOW_PAGES);
  read_all((void *)(uintptr_t)request.window, request.window_length);
  set_state(area);
  for (int n = 0; n < 16; n++)
    g[REGISTERS[n]] = (greg_t)request.registers[n];
  g[REG_RIP] = request.code;
  g[REG_EFL] = request.flags;
  uint16_t cs = request.bits == 64 ? CODE64 : CODE32;
  g[REG_CSGSFS] = (greg_t)(((uint64_t)DATA << 48) | cs);
}

static void handle(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  /* AC is not for us; NT and ID would stay for the next snippet. */
  __asm__ volatile("pushfq\n\tandl $~0x244000, (%%rsp)\n\tpopfq" : : : "cc", "memory");
  /* 32-bit code needs them, and may have changed them; 64-bit code does not look. */
  __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(DATA));
  mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
  if (running) finish(machine->gregs, machine->fpregs);
  running = 1;
  next(machine->gregs, (uint8_t *)machine->fpregs);
}

static void map(uintptr_t at, size_t length, int protection) {
  void *got = mmap((void *)at, length, protection,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE, -1, 0);
  if (got != (void *)at) {
    perror("Cannot map low memory (mmap_min_addr)");
    exit(1);
  }
}

int main(void) {
  static char stack[1 << 16];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  map(CODE_PAGE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(WINDOW_PAGES, WINDOW_END - WINDOW_PAGES, PROT_READ | PROT_WRITE);
  sigaltstack(&alternate, NULL);
  struct sigaction action = {
      .sa_sigaction = handle,
      .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER,
  };
  const int signals[] = {SIGTRAP, SIGILL, SIGFPE, SIGSEGV, SIGBUS};
  for (size_t n = 0; n < sizeof signals / sizeof *signals; n++)
    sigaction(signals[n], &action, NULL);
  __asm__ volatile("int3");
  return 1;
}
