/* KDNET: sealed datagrams, and the handshake that makes a session's key. */
#include "cpu.h"
#include "crypto.h"
#include "kd.h"

enum {
  VERSION = 5,
  DATA = 0,
  CONTROL = 1,
  HEAD = 6,
  METADATA = 8,
  TAG = 16,
  FROM_DEBUGGER = 8,
  POKE_BYTES = 344,
  RESPONSE_BYTES = 322,
  NONCE = 32,
  /* Milliseconds between pokes, and between one and the next that the debugger asks for. */
  POKE_INTERVAL = 3000,
  WAKE_INTERVAL = 500,
};

static uint8_t control_key[32];
static struct kd_hmac hmac;
static struct kd_aes control_aes, data_aes;

/* The nonce of the last poke, until it was answered. */
static uint8_t nonce[NONCE];
static bool offered;
static uint32_t pokes;
static uint64_t poked_at, woken_at;
static uint64_t control_sequence;

static bool connected;
static uint64_t sent, received_sequence;

bool kd_net_connected(void)
{
  return connected;
}

void kd_net_drop(void)
{
  connected = false;
}

static void put_address(uint8_t *to, uint32_t ip, uint16_t port)
{
  to[10] = to[11] = 0xff;
  for (unsigned n = 0; n < 4; n++) to[12 + n] = (uint8_t)(ip >> (24 - 8 * n));
  to[16] = (uint8_t)(port >> 8);
  to[17] = (uint8_t)port;
}

/* ---- sealing ---- */

/* Seals the `length` bytes at kd_wire_buffer() + HEAD + METADATA and sends them. */
static void seal(uint8_t channel, uint64_t sequence, size_t length)
{
  uint8_t *wire = kd_wire_buffer(), *plain = wire + HEAD;
  size_t pad = -(METADATA + length) % KD_AES_BLOCK;
  size_t sealed = METADATA + length + pad;
  kd_copy(wire, "MDBG", 4);
  wire[4] = VERSION;
  wire[5] = channel;
  for (unsigned n = 0; n < 7; n++) plain[n] = (uint8_t)(sequence >> (48 - 8 * n));
  plain[7] = (uint8_t)pad;
  kd_zero(plain + METADATA + length, pad);
  uint8_t tag[KD_HASH_BYTES];
  kd_hmac(&hmac, wire, HEAD + sealed, tag);
  kd_aes_cbc_encrypt(channel == CONTROL ? &control_aes : &data_aes, tag, plain, sealed);
  kd_copy(plain + sealed, tag, TAG);
  kd_wire_send(HEAD + sealed + TAG);
}

/* Opens a datagram in place: its payload, or NULL if it is not the debugger's. */
static const uint8_t *open(uint8_t *wire, size_t *length, uint64_t *sequence)
{
  if (*length < HEAD + KD_AES_BLOCK + TAG || (*length - HEAD - TAG) % KD_AES_BLOCK != 0 ||
      kd_get32(wire) != 0x4742444d || wire[5] > CONTROL || (wire[5] == DATA && !connected)) {
    return NULL;
  }
  size_t sealed = *length - HEAD - TAG;
  uint8_t *plain = wire + HEAD, *tag = plain + sealed;
  kd_aes_cbc_decrypt(wire[5] == CONTROL ? &control_aes : &data_aes, tag, plain, sealed);
  uint8_t expected[KD_HASH_BYTES], difference = 0;
  kd_hmac(&hmac, wire, HEAD + sealed, expected);
  for (unsigned n = 0; n < TAG; n++) difference |= expected[n] ^ tag[n];
  size_t pad = plain[7] & 15;
  if (difference != 0 || plain[7] >> 4 != FROM_DEBUGGER || METADATA + pad > sealed) return NULL;
  *sequence = 0;
  for (unsigned n = 0; n < 7; n++) *sequence = *sequence << 8 | plain[n];
  *length = sealed - METADATA - pad;
  return plain + METADATA;
}

void kd_net_send(const void *head, size_t head_length, const void *data, size_t length)
{
  if (!connected) return;
  uint8_t *payload = kd_wire_buffer() + HEAD + METADATA;
  kd_copy(payload, head, head_length);
  kd_copy(payload + head_length, data, length);
  seal(DATA, ++sent, head_length + length);
}

/* ---- handshake ---- */

/* Nobody may guess the next nonce, or a recorded answer would fit it: it hangs on the key and on time. */
static void make_nonce(void)
{
  uint64_t times[2] = { kd_tsc(), kd_now() };
  struct kd_sha256 hash;
  kd_sha256_begin(&hash);
  kd_sha256_add(&hash, control_key, sizeof control_key);
  kd_sha256_add(&hash, nonce, sizeof nonce);
  kd_sha256_add(&hash, times, sizeof times);
  kd_sha256_end(&hash, nonce);
  kd_put32(nonce, ++pokes);
  offered = true;
}

/* A session in the poke says "do not answer", except that `anew` asks for a new one. */
static void poke(uint64_t now, bool anew)
{
  uint8_t *message = kd_wire_buffer() + HEAD + METADATA;
  uint16_t port = kd_options->port ? kd_options->port : 50000;
  bool live = connected && !anew;
  make_nonce();
  kd_zero(message, POKE_BYTES);
  message[0] = message[1] = 1;
  kd_copy(message + 2, nonce, NONCE);
  put_address(message + 34, kd_wire_address(), port);
  put_address(message + 52, kd_options->host_ip, port);
  put_address(message + 70, live ? kd_options->host_ip : 0, live ? port : 0);
  /* As Windows does, about the seconds that passed; never the same twice. */
  control_sequence = control_sequence < now / 1000 ? now / 1000 : control_sequence + 1;
  poked_at = now;
  seal(CONTROL, control_sequence, POKE_BYTES);
}

/* An answer to the last poke makes the session's key. An answer counts once. */
static bool accept(const uint8_t *data, size_t length)
{
  if (!offered || length != RESPONSE_BYTES || data[1] != 2 ||
      __builtin_memcmp(data + 2, nonce, NONCE) != 0) {
    return false;
  }
  struct kd_sha256 hash;
  uint8_t key[KD_HASH_BYTES];
  kd_sha256_begin(&hash);
  kd_sha256_add(&hash, control_key, sizeof control_key);
  kd_sha256_add(&hash, data, length);
  kd_sha256_end(&hash, key);
  kd_aes_key(&data_aes, key);
  offered = false;
  connected = true;
  sent = received_sequence = 0;
  /* The first packet of a session: 8 bytes of 0, and the debugger's address. */
  uint8_t first[12] = { 0 };
  kd_put32(first + 8, kd_options->host_ip);
  kd_net_send(first, sizeof first, NULL, 0);
  return true;
}

enum kd_event kd_net_poll(const uint8_t **data, size_t *length, bool *received)
{
  uint64_t now = kd_now(), sequence;
  uint8_t *wire = kd_wire_receive(length);
  *received = wire != NULL;
  if (wire != NULL) {
    uint8_t channel = wire[5];
    *data = open(wire, length, &sequence);
    if (*data != NULL && channel == DATA) {
      if (sequence <= received_sequence) return KD_NOTHING;
      received_sequence = sequence;
      return KD_DATA;
    }
    if (*data != NULL && accept(*data, *length)) return KD_SESSION;
    /* An empty control datagram asks for a poke. It may be a recorded one: the session lives on. */
    if (*data != NULL && *length == 0 && now - woken_at >= WAKE_INTERVAL) {
      /* Keep-alives must not count: they come often, and the request may follow one. */
      woken_at = now;
      poke(now, true);
    }
  }
  if (pokes == 0 || now - poked_at >= POKE_INTERVAL) poke(now, false);
  return KD_NOTHING;
}

bool kd_net_init(const char *key)
{
  uint8_t complement[32];
  for (unsigned part = 0; part < 4; part++) {
    uint64_t value = 0;
    unsigned digits = 0;
    for (;; key++, digits++) {
      unsigned digit;
      if (*key >= '0' && *key <= '9') digit = (unsigned)(*key - '0');
      else if (*key >= 'a' && *key <= 'z') digit = (unsigned)(*key - 'a' + 10);
      else break;
      if (value > (UINT64_MAX - digit) / 36) return false;
      value = 36 * value + digit;
    }
    if (digits == 0 || *key++ != (part < 3 ? '.' : '\0')) return false;
    kd_put64(control_key + 8 * part, value);
  }
  for (unsigned n = 0; n < sizeof complement; n++) complement[n] = (uint8_t)~control_key[n];
  kd_hmac_key(&hmac, complement);
  kd_aes_key(&control_aes, control_key);
  connected = offered = false;
  pokes = 0;
  return true;
}
