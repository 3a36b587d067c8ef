/* Prints what the stub's cryptography makes of known input, as hexadecimal lines. */
#include <stdio.h>
#include <string.h>

#include "crypto.h"

static void print(const uint8_t *data, size_t length)
{
  while (length-- > 0) printf("%02x", *data++);
  printf("\n");
}

int main(void)
{
  uint8_t data[256], digest[KD_HASH_BYTES], key[32], iv[16];
  struct kd_sha256 hash;
  struct kd_hmac hmac;
  struct kd_aes aes;
  for (unsigned n = 0; n < sizeof data; n++) data[n] = (uint8_t)(7 * n + 3);
  for (unsigned n = 0; n < sizeof key; n++) key[n] = (uint8_t)(5 * n + 1);
  for (unsigned n = 0; n < sizeof iv; n++) iv[n] = (uint8_t)(3 * n);
  for (size_t length = 0; length <= 200; length++) {
    kd_sha256_begin(&hash);
    kd_sha256_add(&hash, data, length / 3);
    kd_sha256_add(&hash, data + length / 3, length - length / 3);
    kd_sha256_end(&hash, digest);
    print(digest, sizeof digest);
  }
  kd_hmac_key(&hmac, key);
  kd_hmac(&hmac, data, 150, digest);
  print(digest, sizeof digest);
  kd_aes_key(&aes, key);
  uint8_t sealed[sizeof data];
  memcpy(sealed, data, sizeof data);
  kd_aes_cbc_encrypt(&aes, iv, sealed, sizeof sealed);
  print(sealed, sizeof sealed);
  kd_aes_cbc_decrypt(&aes, iv, sealed, sizeof sealed);
  print(sealed, sizeof sealed);
  return 0;
}
