/*
 * As native.c, for instructions on MMX, XMM and YMM registers: cases on standard input, outcomes on standard
 * output, in the fixed form that simd_cases.ts describes. Registers go to the
 * snippet and come back in the signal frame, in XSAVE's standard form.
 *
 * Build: gcc -O2 -static-pie -o native_simd native_simd.c
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
#define CODE 0x8100
#define WINDOW_PAGES 0xd000
#define WINDOW 0xdfc0
#define WINDOW_END 0xf000
#define WINDOW_LENGTH 128

/* SDM volume 1, 13.4: offsets in an XSAVE area. */
#define XSTATE_BV 512
#define YMM_UPPER 576

struct request {
  uint8_t bits, length;
  uint16_t unused;
  uint32_t flags, mxcsr, unused2;
  uint8_t code[16];
  uint64_t registers[16];
  uint8_t xmm[16][16], upper[16][16], mmx[8][8];
  uint8_t window[WINDOW_LENGTH];
};

struct response {
  uint32_t vector, error;
  uint64_t cr2, rip, flags;
  uint32_t mxcsr;
  uint16_t top, tags;
  uint64_t registers[16];
  uint8_t xmm[16][16], upper[16][16], mmx[8][10];
  uint8_t window[WINDOW_LENGTH];
};

/* The order of instruction encodings. */
static const int REGISTERS[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static struct request request;
static int running;

static void finish(const mcontext_t *m) {
  const greg_t *g = m->gregs;
  const struct _libc_fpstate *fp = m->fpregs;
  struct response response = {
      .vector = (uint32_t)g[REG_TRAPNO],
      .error = (uint32_t)g[REG_ERR],
      .cr2 = (uint64_t)g[REG_CR2],
      .rip = (uint64_t)g[REG_RIP],
      .flags = (uint64_t)g[REG_EFL],
      .mxcsr = fp->mxcsr,
      .top = (fp->swd >> 11) & 7,
      .tags = fp->ftw,
  };
  for (int n = 0; n < 16; n++)
    response.registers[n] = (uint64_t)g[REGISTERS[n]];
  memcpy(response.xmm, fp->_xmm, sizeof response.xmm);
  uint64_t present;
  memcpy(&present, (const uint8_t *)fp + XSTATE_BV, sizeof present);
  if (present & 4)
    memcpy(response.upper, (const uint8_t *)fp + YMM_UPPER,
           sizeof response.upper);
  for (int n = 0; n < 8; n++) memcpy(response.mmx[n], &fp->_st[n], 10);
  memcpy(response.window, (void *)WINDOW, WINDOW_LENGTH);
  fwrite(&response, sizeof response, 1, stdout);
}

static void next(mcontext_t *m) {
  greg_t *g = m->gregs;
  struct _libc_fpstate *fp = m->fpregs;
  size_t got = fread(&request, 1, sizeof request, stdin);
  if (got == 0) {
    fflush(stdout);
    _exit(0);
  }
  if (got != sizeof request || request.length > sizeof request.code) _exit(3);
  /* INT3 everywhere else, so that whatever a snippet does ends soon. */
  memset((void *)CODE, 0xcc, 64);
  memcpy((void *)CODE, request.code, request.length);
  memset((void *)WINDOW_PAGES, 0, WINDOW_END - WINDOW_PAGES);
  memcpy((void *)WINDOW, request.window, WINDOW_LENGTH);
  for (int n = 0; n < 16; n++)
    g[REGISTERS[n]] = (greg_t)request.registers[n];
  g[REG_RIP] = CODE;
  g[REG_EFL] = request.flags;
  uint16_t cs = request.bits == 64 ? CODE64 : CODE32;
  g[REG_CSGSFS] = (greg_t)(((uint64_t)DATA << 48) | cs);
  uint64_t present = 7;
  memcpy((uint8_t *)fp + XSTATE_BV, &present, sizeof present);
  memcpy((uint8_t *)fp + YMM_UPPER, request.upper, sizeof request.upper);
  memcpy(fp->_xmm, request.xmm, sizeof request.xmm);
  fp->mxcsr = request.mxcsr;
  fp->cwd = 0x37f;
  fp->swd = 0;
  fp->ftw = 0;
  memset(fp->_st, 0, sizeof fp->_st);
  for (int n = 0; n < 8; n++) memcpy(&fp->_st[n], request.mmx[n], 8);
}

static void handle(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  mcontext_t *m = &((ucontext_t *)context)->uc_mcontext;
  if (running) finish(m);
  running = 1;
  next(m);
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
  /* 32-bit code needs them; 64-bit code does not look. */
  __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(DATA));
  __asm__ volatile("int3");
  return 1;
}
