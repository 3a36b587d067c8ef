/**
 * SHA-1 and SHA-256 (FIPS 180-4; SDM volume 1, 12.14).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { R_IMM, VEC_B } from "./layout.ts";
import type { OpDef } from "./opcode.ts";

function left(x: number, n: number): number {
  return (x << n) | (x >>> (32 - n));
}
function right(x: number, n: number): number {
  return (x >>> n) | (x << (32 - n));
}

/** Stores four words, the lowest first. */
function put(
  cpu: Cpu,
  a: number,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): void {
  const dv = cpu.dv;
  dv.setInt32(a, w0, true);
  dv.setInt32(a + 4, w1, true);
  dv.setInt32(a + 8, w2, true);
  dv.setInt32(a + 12, w3, true);
}

/** The constants of SHA-1's four kinds of rounds. */
const K1 = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6] as const;

/** SHA1RNDS4: A to D in a from the top; b holds message words, E added to its first. */
function sha1Rounds(cpu: Cpu, x: number, y: number, pc: number): void {
  const dv = cpu.dv;
  const kind = cpu.i32[pc + R_IMM]! & 3;
  let a = dv.getInt32(x + 12, true), b = dv.getInt32(x + 8, true);
  let c = dv.getInt32(x + 4, true), d = dv.getInt32(x, true), e = 0;
  for (let n = 0; n < 4; n++) {
    const f = kind === 0
      ? (b & c) ^ (~b & d)
      : kind === 2
      ? (b & c) ^ (b & d) ^ (c & d)
      : b ^ c ^ d;
    const message = dv.getInt32(y + 12 - 4 * n, true);
    const next = (f + left(a, 5) + message + e + K1[kind]!) | 0;
    e = d;
    d = c;
    c = left(b, 30);
    b = a;
    a = next;
  }
  put(cpu, x, d, c, b, a);
}

/** SHA1NEXTE. */
function sha1Next(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  const e = left(dv.getInt32(a + 12, true), 30);
  put(
    cpu,
    a,
    dv.getInt32(b, true),
    dv.getInt32(b + 4, true),
    dv.getInt32(b + 8, true),
    dv.getInt32(b + 12, true) + e,
  );
}

/** SHA1MSG1. */
function sha1Message1(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  const w0 = dv.getInt32(a + 12, true), w1 = dv.getInt32(a + 8, true);
  const w2 = dv.getInt32(a + 4, true), w3 = dv.getInt32(a, true);
  const w4 = dv.getInt32(b + 12, true), w5 = dv.getInt32(b + 8, true);
  put(cpu, a, w5 ^ w3, w4 ^ w2, w3 ^ w1, w2 ^ w0);
}

/** SHA1MSG2. */
function sha1Message2(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  const w13 = dv.getInt32(b + 8, true), w14 = dv.getInt32(b + 4, true);
  const w15 = dv.getInt32(b, true);
  const w16 = left(dv.getInt32(a + 12, true) ^ w13, 1);
  const w17 = left(dv.getInt32(a + 8, true) ^ w14, 1);
  const w18 = left(dv.getInt32(a + 4, true) ^ w15, 1);
  const w19 = left(dv.getInt32(a, true) ^ w16, 1);
  put(cpu, a, w19, w18, w17, w16);
}

/** SHA256RNDS2: C, D, G, H in a, A, B, E, F in b, from the top; message and constant in XMM0. */
function sha256Rounds(cpu: Cpu, x: number, y: number): void {
  const dv = cpu.dv;
  let a = dv.getInt32(y + 12, true), b = dv.getInt32(y + 8, true);
  let c = dv.getInt32(x + 12, true), d = dv.getInt32(x + 8, true);
  let e = dv.getInt32(y + 4, true), f = dv.getInt32(y, true);
  let g = dv.getInt32(x + 4, true), h = dv.getInt32(x, true);
  const message = [dv.getInt32(VEC_B, true), dv.getInt32(VEC_B + 4, true)];
  for (const word of message) {
    const choice = (e & f) ^ (~e & g);
    const majority = (a & b) ^ (a & c) ^ (b & c);
    const t = choice + (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + word + h;
    const next = t + majority + (right(a, 2) ^ right(a, 13) ^ right(a, 22));
    h = g;
    g = f;
    f = e;
    e = (t + d) | 0;
    d = c;
    c = b;
    b = a;
    a = next | 0;
  }
  put(cpu, x, f, e, b, a);
}

function sigma0(x: number): number {
  return right(x, 7) ^ right(x, 18) ^ (x >>> 3);
}
function sigma1(x: number): number {
  return right(x, 17) ^ right(x, 19) ^ (x >>> 10);
}

/** SHA256MSG1. */
function sha256Message1(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  const w0 = dv.getInt32(a, true), w1 = dv.getInt32(a + 4, true);
  const w2 = dv.getInt32(a + 8, true), w3 = dv.getInt32(a + 12, true);
  const w4 = dv.getInt32(b, true);
  put(
    cpu,
    a,
    w0 + sigma0(w1),
    w1 + sigma0(w2),
    w2 + sigma0(w3),
    w3 + sigma0(w4),
  );
}

/** SHA256MSG2. */
function sha256Message2(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  const w14 = dv.getInt32(b + 8, true), w15 = dv.getInt32(b + 12, true);
  const w16 = (dv.getInt32(a, true) + sigma1(w14)) | 0;
  const w17 = (dv.getInt32(a + 4, true) + sigma1(w15)) | 0;
  const w18 = dv.getInt32(a + 8, true) + sigma1(w16);
  const w19 = dv.getInt32(a + 12, true) + sigma1(w17);
  put(cpu, a, w16, w17, w18, w19);
}

/** The family's lines of the opcode tables. AMD's processors do not ask for alignment here. */
export const shaOps: readonly OpDef[] = [
  { code: "NP 0F 38 C8", operands: "+Vx Wu", run: sha1Next },
  { code: "NP 0F 38 C9", operands: "+Vx Wu", run: sha1Message1 },
  { code: "NP 0F 38 CA", operands: "+Vx Wu", run: sha1Message2 },
  { code: "NP 0F 38 CB", operands: "+Vx Wu", run: sha256Rounds },
  { code: "NP 0F 38 CC", operands: "+Vx Wu", run: sha256Message1 },
  { code: "NP 0F 38 CD", operands: "+Vx Wu", run: sha256Message2 },
  { code: "NP 0F 3A CC", operands: "+Vx Wu Ib", run: sha1Rounds },
];
