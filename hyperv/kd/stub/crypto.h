/* SHA-256 (FIPS 180-4), HMAC-SHA-256 (RFC 2104) and AES-256-CBC (FIPS 197, SP 800-38A), small. */
#ifndef KD_CRYPTO_H
#define KD_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#define KD_HASH_BYTES 32
#define KD_AES_BLOCK 16

struct kd_sha256 {
  uint32_t state[8];
  uint64_t length;
  uint8_t block[64];
};

void kd_sha256_begin(struct kd_sha256 *hash);
void kd_sha256_add(struct kd_sha256 *hash, const void *data, size_t length);
void kd_sha256_end(struct kd_sha256 *hash, uint8_t digest[KD_HASH_BYTES]);

/* The key of an HMAC, hashed already. */
struct kd_hmac {
  struct kd_sha256 inner, outer;
};

void kd_hmac_key(struct kd_hmac *hmac, const uint8_t key[KD_HASH_BYTES]);
void kd_hmac(const struct kd_hmac *hmac, const void *data, size_t length,
             uint8_t digest[KD_HASH_BYTES]);

struct kd_aes {
  uint32_t keys[60];
};

void kd_aes_key(struct kd_aes *aes, const uint8_t key[32]);
/* In place; length is a multiple of KD_AES_BLOCK, there is no padding. */
void kd_aes_cbc_encrypt(const struct kd_aes *aes, const uint8_t iv[KD_AES_BLOCK],
                        uint8_t *data, size_t length);
void kd_aes_cbc_decrypt(const struct kd_aes *aes, const uint8_t iv[KD_AES_BLOCK],
                        uint8_t *data, size_t length);

#endif
