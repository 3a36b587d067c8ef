/* A user program of Linux's that talks to a debugger by Hyper-V's MSRs, through the driver `msr` (msr(4)). */
#include <cpuid.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* TLFS, "Synthetic Debugger"; linux/arch/x86/include/asm/hyperv-tlfs.h. */
enum {
  CONTROL = 0x400000f1,
  STATUS = 0x400000f2,
  SEND_BUFFER = 0x400000f3,
  RECV_BUFFER = 0x400000f4,
  PENDING_BUFFER = 0x400000f5,
  CONTROL_SEND = 1,
  CONTROL_RECV = 2,
  STATUS_SENT = 1,
  STATUS_RECEIVED = 4,
  PAGE = 4096,
};

static int msrs;

static void check(int fine, const char *what)
{
  if (fine) return;
  perror(what);
  exit(1);
}

static uint64_t rdmsr(uint32_t number)
{
  uint64_t value;
  check(pread(msrs, &value, sizeof value, number) == sizeof value, "rdmsr");
  return value;
}

static void wrmsr(uint32_t number, uint64_t value)
{
  check(pwrite(msrs, &value, sizeof value, number) == sizeof value, "wrmsr");
}

/* A locked page; `*gpa` becomes its guest-physical address (linux/Documentation/admin-guide/mm/pagemap.rst). */
static volatile uint8_t *page(uint64_t *gpa)
{
  uint8_t *at = mmap(0, PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);
  check(at != MAP_FAILED, "mmap");
  *at = 0;
  int map = open("/proc/self/pagemap", O_RDONLY);
  uint64_t entry;
  check(pread(map, &entry, sizeof entry, (uintptr_t)at / PAGE * 8) == sizeof entry, "pagemap");
  check(entry >> 63 && (entry & ((1ull << 55) - 1)), "pagemap: frame");
  close(map);
  *gpa = (entry & ((1ull << 55) - 1)) * PAGE;
  return at;
}

int main(void)
{
  unsigned eax, ebx, ecx, edx;
  __cpuid(0x40000080, eax, ebx, ecx, edx);
  printf("leaves to %x of %.4s%.4s%.4s\n", eax, (char *)&ebx, (char *)&ecx, (char *)&edx);
  __cpuid(0x40000081, eax, ebx, ecx, edx);
  printf("interface %.4s\n", (char *)&eax);
  __cpuid(0x40000082, eax, ebx, ecx, edx);
  printf("capabilities %x\n", eax);

  msrs = open("/dev/cpu/0/msr", O_RDWR);
  check(msrs >= 0, "/dev/cpu/0/msr");
  uint64_t gpa;
  volatile uint8_t *send = page(&gpa);
  wrmsr(SEND_BUFFER, gpa);
  volatile uint8_t *receive = page(&gpa);
  wrmsr(RECV_BUFFER, gpa);
  volatile uint8_t *pending = page(&gpa);
  wrmsr(PENDING_BUFFER, gpa);

  static const char text[] = "user space of Linux";
  memcpy((void *)send, text, sizeof text - 1);
  wrmsr(CONTROL, CONTROL_SEND | (sizeof text - 1) << 16);
  printf("sent: %s\n", rdmsr(STATUS) & STATUS_SENT ? "yes" : "no");

  time_t end = time(0) + 20;
  while (!*pending && time(0) < end) usleep(1000);
  wrmsr(CONTROL, CONTROL_RECV);
  uint64_t status = rdmsr(STATUS);
  check(status & STATUS_RECEIVED, "receive");
  printf("received: %.*s\n", (int)(status >> 16 & 0xffff), (const char *)receive);
  printf("more: %s\n", *pending ? "yes" : "no");
  return 0;
}
