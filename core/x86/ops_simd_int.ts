/**
 * Integer arithmetic, comparison and logic on packed values in MMX and XMM registers. A 32-bit word holds two
 * or four lanes, and where that is shorter they are worked on together.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { setArithmeticFlags } from "./flags.ts";
import { Flag } from "./layout.ts";
import { apart, both, forBoth, type Word, words, xmm } from "./simd.ts";

/** The top bit of each byte, of each half. */
const TOP8 = 0x80808080 | 0, TOP16 = 0x80008000 | 0;

function add8(x: number, y: number): number {
  return ((x & ~TOP8) + (y & ~TOP8)) ^ ((x ^ y) & TOP8);
}
function add16(x: number, y: number): number {
  return ((x & ~TOP16) + (y & ~TOP16)) ^ ((x ^ y) & TOP16);
}
function sub8(x: number, y: number): number {
  return ((x | TOP8) - (y & ~TOP8)) ^ ((x ^ ~y) & TOP8);
}
function sub16(x: number, y: number): number {
  return ((x | TOP16) - (y & ~TOP16)) ^ ((x ^ ~y) & TOP16);
}

/** All ones in the bytes in which x >= y, unsigned. */
function above8(x: number, y: number): number {
  const d = (x | TOP8) - (y & ~TOP8);
  const top = ((x & ~y) | (~(x ^ y) & d)) & TOP8;
  return Math.imul(top >>> 7, 0xff);
}
/** As {@linkcode above8} of halves. */
function above16(x: number, y: number): number {
  const d = (x | TOP16) - (y & ~TOP16);
  const top = ((x & ~y) | (~(x ^ y) & d)) & TOP16;
  return Math.imul(top >>> 15, 0xffff);
}

function equal8(x: number, y: number): number {
  const t = x ^ y;
  const zero = ~(((t & ~TOP8) + ~TOP8) | t) & TOP8;
  return Math.imul(zero >>> 7, 0xff);
}
function equal16(x: number, y: number): number {
  const t = x ^ y;
  const zero = ~(((t & ~TOP16) + ~TOP16) | t) & TOP16;
  return Math.imul(zero >>> 15, 0xffff);
}
function greater8(x: number, y: number): number {
  return ~above8(y ^ TOP8, x ^ TOP8);
}
function greater16(x: number, y: number): number {
  return ~above16(y ^ TOP16, x ^ TOP16);
}

/** x where the mask is set, else y. */
function choose(mask: number, x: number, y: number): number {
  return (x & mask) | (y & ~mask);
}

function subUnsigned8(x: number, y: number): number {
  return sub8(x, y) & above8(x, y);
}
function subUnsigned16(x: number, y: number): number {
  return sub16(x, y) & above16(x, y);
}

/** A word operation from one on signed halves, of whose result 16 bits count. */
function halves(op: Word): Word {
  return (x, y) =>
    (op((x << 16) >> 16, (y << 16) >> 16) & 0xffff) |
    (op(x >> 16, y >> 16) << 16);
}

/** A word operation from one on signed bytes. */
function bytes(op: Word): Word {
  return halves((x, y) =>
    (op((x << 24) >> 24, (y << 24) >> 24) & 0xff) | (op(x >> 8, y >> 8) << 8)
  );
}

function saturate8(x: number): number {
  return x > 127 ? 127 : x < -128 ? -128 : x;
}
function saturate16(x: number): number {
  return x > 0x7fff ? 0x7fff : x < -0x8000 ? -0x8000 : x;
}
function sign(x: number, y: number): number {
  return y < 0 ? -x : y === 0 ? 0 : x;
}

/** The upper 16 bits of a product; the operands are signed halves to be taken as unsigned. */
function mulHighUnsigned(x: number, y: number): number {
  return Math.imul(x & 0xffff, y & 0xffff) >>> 16;
}

/** Sums of the products of neighbouring halves. */
function mulAdd(x: number, y: number): number {
  return (Math.imul((x << 16) >> 16, (y << 16) >> 16) +
    Math.imul(x >> 16, y >> 16)) | 0;
}

/** Saturated sums of products of unsigned bytes of x and signed bytes of y: of a half. */
function mulAddBytes(x: number, y: number): number {
  return saturate16(
    (x & 0xff) * ((y << 24) >> 24) + ((x >>> 8) & 0xff) * (y >> 8),
  );
}

/** Handlers that put (a op b), of 64-bit lanes, in place of a. */
type Quad = (
  dv: DataView,
  to: number,
  a: number,
  b: number,
) => void;

function quads(op: Quad): { mm: Handler; xmm: Handler } {
  return forBoth((cpu, a, b, bytes) => {
    for (let at = 0; at < bytes; at += 8) op(cpu.dv, a + at, a + at, b + at);
  });
}

const addQuad: Quad = (dv, to, a, b) => {
  const low = dv.getUint32(a, true) + dv.getUint32(b, true);
  const high = dv.getInt32(a + 4, true) + dv.getInt32(b + 4, true) +
    (low > 0xffff_ffff ? 1 : 0);
  dv.setInt32(to, low, true);
  dv.setInt32(to + 4, high, true);
};
const subQuad: Quad = (dv, to, a, b) => {
  const low = dv.getUint32(a, true) - dv.getUint32(b, true);
  const high = dv.getInt32(a + 4, true) - dv.getInt32(b + 4, true) -
    (low < 0 ? 1 : 0);
  dv.setInt32(to, low, true);
  dv.setInt32(to + 4, high, true);
};
const mulUnsigned: Quad = (dv, to, a, b) => {
  const x = dv.getUint32(a, true), y = dv.getUint32(b, true);
  const low = x * (y & 0xffff), mid = x * (y >>> 16);
  // Below 2^49 and 2^48: exact, and so is the upper half of the sum.
  dv.setInt32(to + 4, (mid + Math.floor(low / 0x1_0000)) / 0x1_0000, true);
  dv.setInt32(to, Math.imul(x, y), true);
};
const mulSigned: Quad = (dv, to, a, b) => {
  const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
  const low = x * (y & 0xffff), mid = x * (y >> 16);
  const high = Math.floor((mid + Math.floor(low / 0x1_0000)) / 0x1_0000);
  dv.setInt32(to + 4, high, true);
  dv.setInt32(to, Math.imul(x, y), true);
};
const equalQuad: Quad = (dv, to, a, b) => {
  const r = dv.getInt32(a, true) === dv.getInt32(b, true) &&
      dv.getInt32(a + 4, true) === dv.getInt32(b + 4, true)
    ? -1
    : 0;
  dv.setInt32(to, r, true);
  dv.setInt32(to + 4, r, true);
};
const greaterQuad: Quad = (dv, to, a, b) => {
  const x = dv.getInt32(a + 4, true), y = dv.getInt32(b + 4, true);
  const r = x > y ||
      (x === y && dv.getUint32(a, true) > dv.getUint32(b, true))
    ? -1
    : 0;
  dv.setInt32(to, r, true);
  dv.setInt32(to + 4, r, true);
};

/** PSADBW. */
const sumOfDifferences = forBoth((cpu, a, b, bytes) => {
  const u8 = cpu.u8;
  for (let at = 0; at < bytes; at += 8) {
    let sum = 0;
    for (let n = at; n < at + 8; n++) sum += Math.abs(u8[a + n]! - u8[b + n]!);
    cpu.dv.setInt32(a + at, sum, true);
    cpu.dv.setInt32(a + at + 4, 0, true);
  }
});

/** PHADD and PHSUB: neighbouring lanes, those of a first. */
function horizontal16(op: Word): { mm: Handler; xmm: Handler } {
  return forBoth(apart((cpu, to, a, b, bytes) => {
    const dv = cpu.dv, half = bytes >> 1;
    for (let at = 0; at < bytes; at += 2) {
      const from = at < half ? a + 2 * at : b + 2 * (at - half);
      const x = dv.getInt16(from, true), y = dv.getInt16(from + 2, true);
      dv.setInt16(to + at, op(x, y), true);
    }
  }));
}
function horizontal32(op: Word): { mm: Handler; xmm: Handler } {
  return forBoth(apart((cpu, to, a, b, bytes) => {
    const dv = cpu.dv, half = bytes >> 1;
    for (let at = 0; at < bytes; at += 4) {
      const from = at < half ? a + 2 * at : b + 2 * (at - half);
      const x = dv.getInt32(from, true), y = dv.getInt32(from + 4, true);
      dv.setInt32(to + at, op(x, y), true);
    }
  }));
}

/** PHMINPOSUW: the smallest half and its place. */
function smallestHalf(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  let least = 0x1_0000, place = 0;
  for (let n = 0; n < 8; n++) {
    const value = dv.getUint16(b + 2 * n, true);
    if (value < least) {
      least = value;
      place = n;
    }
  }
  dv.setInt32(a, least | (place << 16), true);
  for (let at = 4; at < 16; at += 4) dv.setInt32(a + at, 0, true);
}

/** MPSADBW: sums of differences between four bytes of b and eight runs of four bytes of a. */
const runsOfDifferences = forBoth(apart((cpu, to, a, b, _bytes, imm) => {
  const u8 = cpu.u8;
  const x = a + (imm & 4), y = b + 4 * (imm & 3);
  for (let run = 0; run < 8; run++) {
    let sum = 0;
    for (let n = 0; n < 4; n++) sum += Math.abs(u8[x + run + n]! - u8[y + n]!);
    cpu.dv.setInt16(to + 2 * run, sum, true);
  }
})).xmm;

/** PTEST: ZF if a & b is 0, CF if ~a & b is. */
function testBits(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  let and = 0, andNot = 0;
  for (let at = 0; at < 16; at += 4) {
    const x = dv.getInt32(a + at, true), y = dv.getInt32(b + at, true);
    and |= x & y;
    andNot |= ~x & y;
  }
  setArithmeticFlags(
    cpu,
    (and === 0 ? Flag.ZF : 0) | (andNot === 0 ? Flag.CF : 0),
  );
}

const and = words((x, y) => x & y);
const andNot = words((x, y) => ~x & y);
const or = words((x, y) => x | y);
const xor = words((x, y) => x ^ y);
const add32 = (x: number, y: number): number => (x + y) | 0;
const sub32 = (x: number, y: number): number => (x - y) | 0;

/** The lines of PABS, which has one source only. */
function magnitudes(code: string, op: Word): OpDef[] {
  const { mm, xmm } = words(op);
  return [
    { code: `NP ${code}`, operands: "=Pq Qq", run: mm },
    { code: `66 ${code}`, operands: "=Vx Wx", run: xmm },
  ];
}

/** The family's lines of the opcode tables. */
export const simdIntOps: readonly OpDef[] = [
  ...both("0F DB", and),
  ...both("0F DF", andNot),
  ...both("0F EB", or),
  ...both("0F EF", xor),
  // ANDPS and its like do the same to the bits.
  ...["NP", "66"].flatMap((prefix): OpDef[] => [
    { code: `${prefix} 0F 54`, operands: "+Vx Wx", run: and.xmm },
    { code: `${prefix} 0F 55`, operands: "+Vx Wx", run: andNot.xmm },
    { code: `${prefix} 0F 56`, operands: "+Vx Wx", run: or.xmm },
    { code: `${prefix} 0F 57`, operands: "+Vx Wx", run: xor.xmm },
  ]),
  ...both("0F FC", words(add8)),
  ...both("0F FD", words(add16)),
  ...both("0F FE", words(add32)),
  ...both("0F D4", quads(addQuad)),
  ...both("0F F8", words(sub8)),
  ...both("0F F9", words(sub16)),
  ...both("0F FA", words(sub32)),
  ...both("0F FB", quads(subQuad)),
  ...both("0F EC", words(bytes((x, y) => saturate8(x + y)))),
  ...both("0F ED", words(halves((x, y) => saturate16(x + y)))),
  ...both("0F E8", words(bytes((x, y) => saturate8(x - y)))),
  ...both("0F E9", words(halves((x, y) => saturate16(x - y)))),
  ...both("0F DC", words((x, y) => ~subUnsigned8(~x, y))),
  ...both("0F DD", words((x, y) => ~subUnsigned16(~x, y))),
  ...both("0F D8", words(subUnsigned8)),
  ...both("0F D9", words(subUnsigned16)),

  ...both("0F 74", words(equal8)),
  ...both("0F 75", words(equal16)),
  ...both("0F 76", words((x, y) => x === y ? -1 : 0)),
  ...both("0F 64", words(greater8)),
  ...both("0F 65", words(greater16)),
  ...both("0F 66", words((x, y) => x > y ? -1 : 0)),
  xmm("0F 38 29", quads(equalQuad).xmm),
  xmm("0F 38 37", quads(greaterQuad).xmm),

  ...both("0F DA", words((x, y) => choose(above8(x, y), y, x))),
  ...both("0F DE", words((x, y) => choose(above8(x, y), x, y))),
  ...both("0F EA", words((x, y) => choose(greater16(x, y), y, x))),
  ...both("0F EE", words((x, y) => choose(greater16(x, y), x, y))),
  xmm("0F 38 38", words((x, y) => choose(greater8(x, y), y, x)).xmm),
  xmm("0F 38 3C", words((x, y) => choose(greater8(x, y), x, y)).xmm),
  xmm("0F 38 3A", words((x, y) => choose(above16(x, y), y, x)).xmm),
  xmm("0F 38 3E", words((x, y) => choose(above16(x, y), x, y)).xmm),
  xmm("0F 38 39", words((x, y) => x < y ? x : y).xmm),
  xmm("0F 38 3D", words((x, y) => x > y ? x : y).xmm),
  xmm("0F 38 3B", words((x, y) => x >>> 0 < y >>> 0 ? x : y).xmm),
  xmm("0F 38 3F", words((x, y) => x >>> 0 > y >>> 0 ? x : y).xmm),
  // Averages, rounded up.
  ...both("0F E0", words((x, y) => (x | y) - (((x ^ y) >>> 1) & ~TOP8))),
  ...both("0F E3", words((x, y) => (x | y) - (((x ^ y) >>> 1) & ~TOP16))),
  ...both("0F F6", sumOfDifferences),
  xmm("0F 3A 42", runsOfDifferences, "+Vx Wx Ib"),
  xmm("0F 38 41", smallestHalf, "=Vx Wx"),

  ...both("0F D5", words(halves(Math.imul))),
  ...both("0F E5", words(halves((x, y) => Math.imul(x, y) >> 16))),
  ...both("0F E4", words(halves(mulHighUnsigned))),
  ...both("0F 38 0B", words(halves((x, y) => ((x * y >> 14) + 1) >> 1))),
  ...both("0F F5", words(mulAdd)),
  ...both("0F 38 04", words(halves(mulAddBytes))),
  ...both("0F F4", quads(mulUnsigned)),
  xmm("0F 38 28", quads(mulSigned).xmm),
  xmm("0F 38 40", words(Math.imul).xmm),

  ...magnitudes("0F 38 1C", bytes((_, y) => Math.abs(y))),
  ...magnitudes("0F 38 1D", halves((_, y) => Math.abs(y))),
  ...magnitudes("0F 38 1E", (_, y) => y < 0 ? -y | 0 : y),
  ...both("0F 38 08", words(bytes(sign))),
  ...both("0F 38 09", words(halves(sign))),
  ...both("0F 38 0A", words(sign)),
  ...both("0F 38 01", horizontal16((x, y) => x + y)),
  ...both("0F 38 02", horizontal32((x, y) => x + y)),
  ...both("0F 38 03", horizontal16((x, y) => saturate16(x + y))),
  ...both("0F 38 05", horizontal16((x, y) => x - y)),
  ...both("0F 38 06", horizontal32((x, y) => x - y)),
  ...both("0F 38 07", horizontal16((x, y) => saturate16(x - y))),
  xmm("0F 38 17", testBits, "Vx Wx"),
];
