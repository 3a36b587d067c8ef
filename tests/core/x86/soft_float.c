/*
 * Executes single operations of SSE and FMA on the processor of this machine: requests on standard input,
 * results on standard output, in the order of soft_float_test.ts.
 *
 * Build: gcc -O1 -mavx2 -mfma -mf16c -o soft_float soft_float.c
 */
#include <stdint.h>
#include <stdio.h>

struct request {
  uint32_t operation, mxcsr;
  uint64_t a, b, c;
};

struct response {
  uint64_t result, mxcsr;
};

#define RUN(instruction)                                                       \
  __asm__ volatile("ldmxcsr %2\n\t" instruction "\n\tstmxcsr %1"               \
                   : "+x"(a), "=m"(mxcsr)                                      \
                   : "m"(mxcsr), "x"(b), "x"(c))
#define TO_INTEGER(instruction, integer)                                       \
  __asm__ volatile("ldmxcsr %2\n\t" instruction "\n\tstmxcsr %1"               \
                   : "=r"(integer), "=m"(mxcsr)                                \
                   : "m"(mxcsr), "x"(a))

int main(void) {
  struct request r;
  while (fread(&r, sizeof r, 1, stdin) == 1) {
    __attribute__((vector_size(16))) uint64_t a = {r.a}, b = {r.b}, c = {r.c};
    uint32_t mxcsr = r.mxcsr, saved;
    uint32_t word = 0;
    uint64_t wide = 0;
    __asm__ volatile("stmxcsr %0" : "=m"(saved));
    switch (r.operation) {
    case 0: RUN("vaddss %3, %0, %0"); break;
    case 1: RUN("vsubss %3, %0, %0"); break;
    case 2: RUN("vmulss %3, %0, %0"); break;
    case 3: RUN("vdivss %3, %0, %0"); break;
    case 4: RUN("vsqrtss %0, %0, %0"); break;
    case 5: RUN("vfmadd213ss %4, %3, %0"); break;
    case 6: RUN("vcvtss2sd %0, %0, %0"); break;
    case 7: RUN("vroundss $4, %0, %0, %0"); break;
    case 8: TO_INTEGER("vcvtss2si %3, %0", word); break;
    case 9: TO_INTEGER("vcvtss2si %3, %q0", wide); break;
    case 10: RUN("vcvtps2ph $4, %0, %0"); break;
    case 16: RUN("vaddsd %3, %0, %0"); break;
    case 17: RUN("vsubsd %3, %0, %0"); break;
    case 18: RUN("vmulsd %3, %0, %0"); break;
    case 19: RUN("vdivsd %3, %0, %0"); break;
    case 20: RUN("vsqrtsd %0, %0, %0"); break;
    case 21: RUN("vfmadd213sd %4, %3, %0"); break;
    case 22: RUN("vcvtsd2ss %0, %0, %0"); break;
    case 23: RUN("vroundsd $4, %0, %0, %0"); break;
    case 24: TO_INTEGER("vcvtsd2si %3, %0", word); break;
    case 25: TO_INTEGER("vcvtsd2si %3, %q0", wide); break;
    default: return 1;
    }
    __asm__ volatile("ldmxcsr %0" : : "m"(saved));
    struct response response = {a[0], mxcsr};
    uint32_t kind = r.operation & 15;
    if (kind == 8) response.result = word;
    if (kind == 9) response.result = wide;
    fwrite(&response, sizeof response, 1, stdout);
  }
  return 0;
}
