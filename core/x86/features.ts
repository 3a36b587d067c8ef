import type { CpuidEntry } from "../backend.ts";
import { saveAreaSize } from "./control.ts";
import { PHYSICAL_BITS } from "./paging.ts";
import { SIGNATURE } from "./reset.ts";

function text(value: string, at: number): number {
  let word = 0;
  for (let n = 3; n >= 0; n--) {
    word = word * 256 + (value.charCodeAt(at + n) || 0);
  }
  return word;
}

function bits(...numbers: number[]): number {
  return numbers.reduce((sum, n) => sum + 2 ** n, 0);
}

const BRAND = "syndbg interpreted x86-64 processor".padEnd(48, "\0");

/**
 * The CPUID leaves of what the interpreter implements, and nothing beyond. It takes after AMD (APM
 * volume 3, appendix E), whose flags and SYSCALL it has.
 */
export function interpreterCpuid(): CpuidEntry[] {
  const basicEdx = bits(
    0, // FPU
    2, // DE
    3, // PSE
    4, // TSC
    5, // MSR
    6, // PAE
    8, // CX8
    11, // SEP
    12, // MTRR
    13, // PGE
    15, // CMOV
    16, // PAT
    17, // PSE-36
    19, // CLFSH
    23, // MMX
    24, // FXSR
    25, // SSE
    26, // SSE2
  );
  const vendor = "AuthenticAMD";
  const none = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  const name = {
    ebx: text(vendor, 0),
    ecx: text(vendor, 8),
    edx: text(vendor, 4),
  };
  const brand = (n: number): CpuidEntry => ({
    leaf: 0x8000_0002 + n,
    eax: text(BRAND, 16 * n),
    ebx: text(BRAND, 16 * n + 4),
    ecx: text(BRAND, 16 * n + 8),
    edx: text(BRAND, 16 * n + 12),
  });
  return [
    { leaf: 0, eax: 0xd, ...name },
    {
      leaf: 1,
      eax: SIGNATURE,
      ebx: 8 << 8, // CLFLUSH of 64 bytes
      ecx: bits(
        0, // SSE3
        1, // PCLMULQDQ
        9, // SSSE3
        12, // FMA
        13, // CX16
        17, // PCID
        19, // SSE4.1
        20, // SSE4.2
        22, // MOVBE
        23, // POPCNT
        25, // AES
        26, // XSAVE
        28, // AVX
        29, // F16C
      ),
      edx: basicEdx,
    },
    {
      leaf: 7,
      subleaf: 0,
      eax: 0,
      ebx: bits(
        0, // FSGSBASE
        3, // BMI1
        5, // AVX2
        7, // SMEP
        8, // BMI2
        10, // INVPCID
        19, // ADX
        20, // SMAP
        23, // CLFLUSHOPT
        24, // CLWB
        29, // SHA
      ),
      ecx: bits(
        2, // UMIP
        22, // RDPID
      ),
      edx: 0,
    },
    // XSAVE: components x87, SSE and AVX. EBX follows XCR0; this is what it is after RESET.
    {
      leaf: 0xd,
      subleaf: 0,
      ...none,
      eax: 7,
      ebx: saveAreaSize(1),
      ecx: saveAreaSize(7),
    },
    {
      leaf: 0xd,
      subleaf: 1,
      ...none,
      eax: bits(
        0, // XSAVEOPT
        1, // XSAVEC
        2, // XGETBV with ECX 1
      ),
      ebx: saveAreaSize(1),
    },
    { leaf: 0xd, subleaf: 2, ...none, eax: 256, ebx: 576 },
    { leaf: 0x8000_0000, eax: 0x8000_0008, ...name },
    {
      leaf: 0x8000_0001,
      eax: SIGNATURE,
      ebx: 0,
      ecx: bits(
        0, // LAHF in 64-bit mode
        5, // LZCNT
        8, // PREFETCHW
      ),
      // AMD repeats the basic bits here.
      edx: (basicEdx & ~bits(11, 19, 25, 26)) + bits(
        11, // SYSCALL
        20, // NX
        22, // AMD's MMX extensions, which SSE brought too
        27, // RDTSCP
        29, // long mode
      ),
    },
    brand(0),
    brand(1),
    brand(2),
    { leaf: 0x8000_0005, ...none },
    { leaf: 0x8000_0006, ...none },
    { leaf: 0x8000_0007, ...none, edx: bits(8) }, // invariant TSC
    {
      leaf: 0x8000_0008,
      ...none,
      eax: PHYSICAL_BITS | (48 << 8),
      ebx: bits(2), // RstrFpErrPtrs: FXRSTOR always loads the x87's pointers
    },
  ];
}
