/**
 * AES-NI and PCLMULQDQ (FIPS 197; SDM volume 1, 12.13).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { R_IMM, TEMP_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { copy, xmm } from "./simd.ts";

/** x times a polynomial in the field of 256 elements. */
function times(x: number, by: number): number {
  let product = 0;
  for (let n = by, y = x; n !== 0; n >>>= 1) {
    if ((n & 1) !== 0) product ^= y;
    y = (y << 1) ^ (y > 127 ? 0x11b : 0);
  }
  return product;
}

/** The substitution of bytes, and its inverse. */
const S_BOX = new Uint8Array(256), INVERSE = new Uint8Array(256);

/** Products of all bytes with the coefficients of MixColumns and its inverse, four to a word. */
const MIX = new Int32Array(256), UNMIX = new Int32Array(256);

function word(
  x: number,
  b0: number,
  b1: number,
  b2: number,
  b3: number,
): number {
  return times(x, b0) | (times(x, b1) << 8) | (times(x, b2) << 16) |
    (times(x, b3) << 24);
}

function fillTables(): void {
  // 3 generates all elements but 0, and 1/3 is 0xF6.
  let x = 1, inverse = 1;
  do {
    let r = inverse ^ 0x63;
    for (let n = 1; n < 5; n++) r ^= (inverse << n) | (inverse >>> (8 - n));
    S_BOX[x] = r;
    x = times(x, 3);
    inverse = times(inverse, 0xf6);
  } while (x !== 1);
  S_BOX[0] = 0x63;
  for (let n = 0; n < 256; n++) {
    INVERSE[S_BOX[n]!] = n;
    MIX[n] = word(n, 2, 1, 1, 3);
    UNMIX[n] = word(n, 14, 9, 13, 11);
  }
}

/** One column of MixColumns or its inverse. */
function mix(
  table: Int32Array,
  b0: number,
  b1: number,
  b2: number,
  b3: number,
): number {
  const m1 = table[b1]!, m2 = table[b2]!, m3 = table[b3]!;
  return table[b0]! ^ ((m1 << 8) | (m1 >>> 24)) ^
    ((m2 << 16) | (m2 >>> 16)) ^ ((m3 << 24) | (m3 >>> 8));
}

/**
 * A round: rows are shifted by `step` columns each, bytes substituted, columns mixed unless it is the
 * last round, and the round key b added.
 */
function round(
  box: Uint8Array,
  step: number,
  table: Int32Array | undefined,
): Handler {
  return (cpu, a, b) => {
    const { dv, u8 } = cpu;
    for (let column = 0; column < 4; column++) {
      const at = (row: number): number =>
        box[u8[a + row + 4 * ((column + row * step) & 3)]!]!;
      const b0 = at(0), b1 = at(1), b2 = at(2), b3 = at(3);
      const mixed = table === undefined
        ? b0 | (b1 << 8) | (b2 << 16) | (b3 << 24)
        : mix(table, b0, b1, b2, b3);
      const key = dv.getInt32(b + 4 * column, true);
      dv.setInt32(TEMP_B + 4 * column, mixed ^ key, true);
    }
    copy(cpu, a, TEMP_B, 16);
  };
}

/** AESIMC: the inverse of MixColumns on a round key. */
function unmixKey(cpu: Cpu, a: number, b: number): void {
  const u8 = cpu.u8;
  for (let at = 0; at < 16; at += 4) {
    const from = b + at;
    const mixed = mix(
      UNMIX,
      u8[from]!,
      u8[from + 1]!,
      u8[from + 2]!,
      u8[from + 3]!,
    );
    cpu.dv.setInt32(a + at, mixed, true);
  }
}

function substitute(x: number): number {
  return S_BOX[x & 255]! | (S_BOX[(x >>> 8) & 255]! << 8) |
    (S_BOX[(x >>> 16) & 255]! << 16) | (S_BOX[x >>> 24]! << 24);
}

/** AESKEYGENASSIST. */
function generateKey(cpu: Cpu, a: number, b: number, pc: number): void {
  const dv = cpu.dv;
  const constant = cpu.i32[pc + R_IMM]!;
  const x1 = substitute(dv.getInt32(b + 4, true));
  const x3 = substitute(dv.getInt32(b + 12, true));
  const turned1 = ((x1 >>> 8) | (x1 << 24)) ^ constant;
  const turned3 = ((x3 >>> 8) | (x3 << 24)) ^ constant;
  dv.setInt32(a, x1, true);
  dv.setInt32(a + 4, turned1, true);
  dv.setInt32(a + 8, x3, true);
  dv.setInt32(a + 12, turned3, true);
}

/** PCLMULQDQ: a product without carries of two 64-bit halves. */
function multiplyCarryless(
  cpu: Cpu,
  a: number,
  b: number,
  pc: number,
): void {
  const dv = cpu.dv;
  const imm = cpu.i32[pc + R_IMM]!;
  const from = a + ((imm & 1) << 3), by = b + ((imm & 16) >> 1);
  let x0 = dv.getInt32(from, true), x1 = dv.getInt32(from + 4, true);
  let x2 = 0, r0 = 0, r1 = 0, r2 = 0, r3 = 0;
  const y0 = dv.getInt32(by, true), y1 = dv.getInt32(by + 4, true);
  // Both halves of y at once: x is shifted through three words.
  for (let n = 0; n < 32; n++) {
    const low = -((y0 >>> n) & 1), high = -((y1 >>> n) & 1);
    r0 ^= x0 & low;
    r1 ^= (x1 & low) ^ (x0 & high);
    r2 ^= (x2 & low) ^ (x1 & high);
    r3 ^= x2 & high;
    x2 = (x2 << 1) | (x1 >>> 31);
    x1 = (x1 << 1) | (x0 >>> 31);
    x0 <<= 1;
  }
  dv.setInt32(a, r0, true);
  dv.setInt32(a + 4, r1, true);
  dv.setInt32(a + 8, r2, true);
  dv.setInt32(a + 12, r3, true);
}

/** The family's lines of the opcode tables. */
export function aesOps(): readonly OpDef[] {
  fillTables();
  return [
    xmm("0F 38 DB", unmixKey, "=Vx Wx"),
    xmm("0F 38 DC", round(S_BOX, 1, MIX)),
    xmm("0F 38 DD", round(S_BOX, 1, undefined)),
    xmm("0F 38 DE", round(INVERSE, -1, UNMIX)),
    xmm("0F 38 DF", round(INVERSE, -1, undefined)),
    xmm("0F 3A DF", generateKey, "=Vx Wx Ib"),
    xmm("0F 3A 44", multiplyCarryless, "+Vx Wx Ib"),
  ];
}
