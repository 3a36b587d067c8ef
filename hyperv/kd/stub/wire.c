/*
 * Hyper-V's synthetic debugger, both ways in: by MSR, where datagrams are bare, and by hypercall,
 * where they are in Ethernet frames. OPTIONS says which.
 */
#include "cpu.h"
#include "kd.h"
#include "memory.h"

/* CPUID (TLFS chapter 2; for the leaves of the virtualization stack Linux arch/x86/kvm/hyperv.h). */
enum {
  LEAF_VENDOR = 0x40000000,
  LEAF_INTERFACE = 0x40000001,
  LEAF_FEATURES = 0x40000003,
  LEAF_STACK_INTERFACE = 0x40000081,
  LEAF_STACK_PROPERTIES = 0x40000082,
  HYPERVISOR_PRESENT = 1u << 31,
  HV_INTERFACE = 0x31237648,
  VS_INTERFACE = 0x31235356,
  REFERENCE_COUNTER = 1 << 1,
  DEBUG_DEVICE = 1 << 1,
};

/* MSRs (TLFS appendix F, Linux arch/x86/kvm/hyperv.h). */
enum {
  MSR_GUEST_OS_ID = 0x40000000,
  MSR_HYPERCALL = 0x40000001,
  MSR_REFERENCE_COUNTER = 0x40000020,
  MSR_CONTROL = 0x400000f1,
  MSR_STATUS = 0x400000f2,
  MSR_SEND = 0x400000f3,
  MSR_RECEIVE = 0x400000f4,
  MSR_PENDING = 0x400000f5,
  MSR_OPTIONS = 0x400000ff,
  CONTROL_SEND = 1,
  CONTROL_RECEIVE = 2,
  STATUS_RECEIVED = 4,
  STATUS_RESET = 8,
  USE_HYPERCALLS = 4,
};
/* TLFS 2.6: open source, no type of its own. */
#define OS_ID (1ull << 63 | 1)

/* Hypercalls (TLFS 2.0a chapter 20). */
enum {
  POST_DEBUG_DATA = 0x69,
  RETRIEVE_DEBUG_DATA = 0x6a,
  RESET_DEBUG_SESSION = 0x6b,
  FAST = 1 << 16,
  PURGE_BOTH = 3,
  CALL_HEAD = 8,
  MAX_DATA = 4088,
};

/* Ethernet, IPv4, UDP, DHCP (RFC 791, 768, 2131). */
enum {
  ETHERNET = 14,
  IPV4 = 20,
  UDP = 8,
  HEADERS = ETHERNET + IPV4 + UDP,
  DHCP_CLIENT = 68,
  DHCP_SERVER = 67,
  DHCP_BYTES = 300,
  DHCP_OPTIONS = 240,
  DISCOVER = 1,
  REQUEST = 3,
  /* Milliseconds that a DHCP server is given. */
  DHCP_PATIENCE = 250,
};

static uint8_t send_page[4096] __attribute__((aligned(4096)));
static uint8_t receive_page[4096] __attribute__((aligned(4096)));
static volatile uint8_t pending[64] __attribute__((aligned(64)));
static uint64_t send_address, receive_address;

static bool by_hypercall;
static bool by_vmmcall;
static void *call_page;
static uint32_t own_ip, peer_ip;
static uint16_t port;

uint64_t kd_now(void)
{
  uint64_t now = 0;
  kd_read_msr(MSR_REFERENCE_COUNTER, &now);
  return now / 10000;
}

uint32_t kd_wire_address(void)
{
  return own_ip;
}

static bool physical_of(const volatile void *place, uint64_t *address)
{
  unsigned permissions;
  return kd_translate((uint64_t)place, address, &permissions);
}

/* ---- hypercalls ---- */

static uint16_t hypercall(uint64_t code, uint64_t input, uint64_t output)
{
  uint64_t result;
  register uint64_t r8 __asm__("r8") = output;
  if (call_page != NULL) {
    __asm__ volatile("call *%[page]"
                     : "=a"(result), "+c"(code), "+d"(input), "+r"(r8)
                     : [page] "r"(call_page)
                     : "memory", "cc", "r9", "r10", "r11");
  } else if (by_vmmcall) {
    __asm__ volatile("vmmcall"
                     : "=a"(result), "+c"(code), "+d"(input), "+r"(r8)::"memory", "cc", "r9", "r10", "r11");
  } else {
    __asm__ volatile("vmcall"
                     : "=a"(result), "+c"(code), "+d"(input), "+r"(r8)::"memory", "cc", "r9", "r10", "r11");
  }
  return (uint16_t)result;
}

/* The kernel's own call page is used where it is the one we were given. */
static void set_up_calls(void)
{
  struct kd_cpuid vendor = kd_cpuid(0);
  /* "Auth"enticAMD, "Hygo"nGenuine. */
  by_vmmcall = vendor.ebx == 0x68747541 || vendor.ebx == 0x6f677948;
  uint64_t page, now;
  if (kd_options->hypercall_page == NULL || !physical_of(kd_options->hypercall_page, &page) ||
      !kd_read_msr(MSR_HYPERCALL, &now)) {
    return;
  }
  if (now & 1 ? (now ^ page) >> 12 == 0 : kd_write_msr(MSR_HYPERCALL, page | 1)) {
    call_page = kd_options->hypercall_page;
  }
}

/* ---- frames ---- */

static uint16_t get_big16(const uint8_t *from)
{
  return (uint16_t)(from[0] << 8 | from[1]);
}

static void put_big16(uint8_t *to, uint16_t value)
{
  to[0] = (uint8_t)(value >> 8);
  to[1] = (uint8_t)value;
}

static uint32_t get_big32(const uint8_t *from)
{
  return (uint32_t)get_big16(from) << 16 | get_big16(from + 2);
}

static void put_big32(uint8_t *to, uint32_t value)
{
  put_big16(to, (uint16_t)(value >> 16));
  put_big16(to + 2, (uint16_t)value);
}

/* Puts headers before the payload in the send page and posts the frame. */
static void post(size_t length, uint32_t from, uint32_t to, uint16_t from_port, uint16_t to_port)
{
  uint8_t *frame = send_page + CALL_HEAD;
  uint8_t *ip = frame + ETHERNET, *udp = ip + IPV4;
  kd_zero(send_page, CALL_HEAD + HEADERS);
  put_big16(frame + 12, 0x0800);
  ip[0] = 0x45;
  put_big16(ip + 2, (uint16_t)(IPV4 + UDP + length));
  ip[8] = 64;
  ip[9] = 17;
  put_big32(ip + 12, from);
  put_big32(ip + 16, to);
  uint32_t sum = 0;
  for (unsigned n = 0; n < IPV4; n += 2) sum += get_big16(ip + n);
  sum = (sum & 0xffff) + (sum >> 16);
  put_big16(ip + 10, (uint16_t)~(sum + (sum >> 16)));
  /* UDP's checksum is optional over IPv4, and the payload has a better one. */
  put_big16(udp, from_port);
  put_big16(udp + 2, to_port);
  put_big16(udp + 4, (uint16_t)(UDP + length));
  kd_put32(send_page, (uint32_t)(HEADERS + length));
  hypercall(POST_DEBUG_DATA, send_address, receive_address);
}

/* The payload of the next frame if it is UDP over IPv4. The send page serves as the input. */
static uint8_t *retrieve(size_t *length)
{
  kd_zero(send_page, 16);
  kd_put32(send_page, MAX_DATA);
  if (hypercall(RETRIEVE_DEBUG_DATA, send_address, receive_address) != 0) return NULL;
  size_t count = kd_get32(receive_page);
  uint8_t *frame = receive_page + CALL_HEAD, *ip = frame + ETHERNET;
  if (count < HEADERS || count > MAX_DATA || get_big16(frame + 12) != 0x0800 || ip[0] >> 4 != 4 ||
      ip[9] != 17) {
    return NULL;
  }
  size_t start = ETHERNET + 4 * (ip[0] & 15u);
  if (start < ETHERNET + IPV4 || start + UDP > count) return NULL;
  size_t datagram = get_big16(frame + start + 4);
  if (datagram < UDP || start + datagram > count) return NULL;
  *length = datagram - UDP;
  return frame + start + UDP;
}

/* One step of DHCP: what is offered goes to own_ip, who offers it to peer_ip. */
static bool dhcp(uint8_t type)
{
  uint8_t *message = kd_wire_buffer();
  uint32_t transaction = (uint32_t)kd_tsc();
  kd_zero(message, DHCP_BYTES);
  message[0] = 1;
  message[1] = 1;
  message[2] = 6;
  put_big32(message + 4, transaction);
  put_big32(message + 236, 0x63825363);
  uint8_t *option = message + DHCP_OPTIONS;
  *option++ = 53;
  *option++ = 1;
  *option++ = type;
  if (type == REQUEST) {
    *option++ = 50;
    *option++ = 4;
    put_big32(option, own_ip);
    option += 4;
  }
  *option = 255;
  post(DHCP_BYTES, 0, 0xffffffff, DHCP_CLIENT, DHCP_SERVER);
  for (uint64_t start = kd_now(); kd_now() - start < DHCP_PATIENCE; kd_pause()) {
    size_t length;
    const uint8_t *answer = retrieve(&length);
    if (answer == NULL || length < DHCP_OPTIONS || answer[0] != 2 ||
        get_big32(answer + 4) != transaction) {
      continue;
    }
    own_ip = get_big32(answer + 16);
    if (peer_ip == 0) peer_ip = get_big32(answer + 20);
    return true;
  }
  return false;
}

/* ---- what the rest of the stub sees ---- */

uint8_t *kd_wire_buffer(void)
{
  return by_hypercall ? send_page + CALL_HEAD + HEADERS : send_page;
}

void kd_wire_send(size_t length)
{
  if (by_hypercall) {
    post(length, own_ip, peer_ip, port, port);
    return;
  }
  uint64_t status = 0;
  kd_write_msr(MSR_CONTROL, (uint64_t)length << 16 | CONTROL_SEND);
  kd_read_msr(MSR_STATUS, &status);
  /* Nobody listens there any more. */
  if (status & STATUS_RESET) kd_net_drop();
}

uint8_t *kd_wire_receive(size_t *length)
{
  if (by_hypercall) return retrieve(length);
  if (!pending[0]) return NULL;
  uint64_t status = 0;
  kd_write_msr(MSR_CONTROL, CONTROL_RECEIVE);
  kd_read_msr(MSR_STATUS, &status);
  *length = status >> 16 & 0xffff;
  return status & STATUS_RECEIVED && *length <= sizeof receive_page ? receive_page : NULL;
}

static bool device_found(void)
{
  return kd_cpuid(1).ecx & HYPERVISOR_PRESENT &&
         kd_cpuid(LEAF_INTERFACE).eax == HV_INTERFACE &&
         kd_cpuid(LEAF_VENDOR).eax >= LEAF_STACK_PROPERTIES &&
         kd_cpuid(LEAF_STACK_INTERFACE).eax == VS_INTERFACE &&
         kd_cpuid(LEAF_STACK_PROPERTIES).eax & DEBUG_DEVICE &&
         kd_cpuid(LEAF_FEATURES).eax & REFERENCE_COUNTER;
}

enum kd_result kd_wire_init(void)
{
  if (!device_found()) return KD_NO_DEVICE;
  port = kd_options->port ? kd_options->port : 50000;
  own_ip = kd_options->target_ip;
  peer_ip = kd_options->host_ip;
  uint64_t id, options, pending_address;
  /* Whoever is first says who the guest is. */
  if (!kd_read_msr(MSR_GUEST_OS_ID, &id) || (id == 0 && !kd_write_msr(MSR_GUEST_OS_ID, OS_ID)) ||
      !kd_read_msr(MSR_OPTIONS, &options) || !physical_of(send_page, &send_address) ||
      !physical_of(receive_page, &receive_address) || !physical_of(pending, &pending_address)) {
    return KD_FAILED;
  }
  by_hypercall = options & USE_HYPERCALLS;
  if (by_hypercall) {
    set_up_calls();
    /* What an earlier session left; that there was nothing is an error too. */
    hypercall(RESET_DEBUG_SESSION | FAST, PURGE_BOTH, receive_address);
    if (own_ip == 0 && dhcp(DISCOVER)) dhcp(REQUEST);
    return KD_OK;
  }
  return kd_write_msr(MSR_SEND, send_address) && kd_write_msr(MSR_RECEIVE, receive_address) &&
                 kd_write_msr(MSR_PENDING, pending_address)
             ? KD_OK
             : KD_FAILED;
}
