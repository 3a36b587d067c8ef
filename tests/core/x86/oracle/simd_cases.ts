/**
 * Cases of instructions on MMX and XMM registers, in the form that native_simd.c reads, and their
 * outcomes. They are made from opcode ranges, not from the interpreter's tables: what an
 * encoding means, or whether it means anything, is for the processor to say.
 *
 * @module
 */
import { hasError } from "./cases.ts";
import { Random } from "./random.ts";

/** Where the snippet is. */
export const CODE = 0x8100;
/** Compared memory; a page boundary is in its middle, the pages around are mapped from 0xd000 to 0xefff. */
export const WINDOW = 0xdfc0;
/** Bytes of it. */
export const WINDOW_LENGTH = 128;

/** A request or a response: see the structures of native_simd.c. */
export const REQUEST = 864;
/** Bytes of a response. */
export const RESPONSE = 888;

/** Offsets in a request. */
export const Request = {
  bits: 0,
  length: 1,
  flags: 4,
  mxcsr: 8,
  code: 16,
  registers: 32,
  xmm: 160,
  upper: 416,
  mmx: 672,
  window: 736,
} as const;

/** Offsets in a response. */
export const Response = {
  vector: 0,
  error: 4,
  cr2: 8,
  rip: 16,
  flags: 24,
  mxcsr: 32,
  top: 36,
  tags: 38,
  registers: 40,
  xmm: 168,
  upper: 424,
  mmx: 680,
  window: 760,
} as const;

/** Makes the parts of a response that mean nothing equal. */
export function normalize(bits: number, response: DataView): void {
  const vector = response.getUint32(Response.vector, true);
  if (!hasError(vector)) response.setUint32(Response.error, 0, true);
  if (vector !== 14) response.setBigUint64(Response.cr2, 0n, true);
  const flags = response.getUint32(Response.flags, true) & 0xcd5;
  response.setBigUint64(Response.flags, BigInt(flags), true);
  // 32-bit code sees eight registers and their lower halves.
  for (let n = 0; n < 16 && bits === 32; n++) {
    const at = Response.registers + 8 * n;
    if (n > 7) response.setBigUint64(at, 0n, true);
    else response.setUint32(at + 4, 0, true);
  }
}

/** Values of vector registers. */
type Values = (random: Random) => bigint;

/**
 * A family of instructions: opcodes as `map first-last`, then `ib` if an immediate follows, `/n` if the
 * reg field of ModRM belongs to the opcode and only memory operands are meant, `NP,66` if only these
 * prefixes are: with others the processor may have instructions that the interpreter has not.
 */
export interface SimdFamily {
  readonly name: string;
  readonly opcodes: readonly string[];
  /** Cases recorded, for each prefix and opcode. */
  readonly times: number;
  readonly values: Values;
  readonly mxcsr: (random: Random) => number;
}

/** An opcode with its prefix. */
export interface Encoding {
  readonly prefix: readonly number[];
  readonly opcode: readonly number[];
  readonly immediate: boolean;
  /** ModRM.reg, of forms with memory operands. */
  readonly reg: number | undefined;
}

/** The encodings that `0F38 20-25 ib` and the like stand for: under each mandatory prefix. */
export function encodings(family: SimdFamily): Encoding[] {
  const result: Encoding[] = [];
  for (const line of family.opcodes) {
    const [map, range, ...more] = line.split(" ");
    const reg = more.find((x) => x.startsWith("/"));
    const prefixes = more.find((x) => x.includes(",")) ?? "NP,66,F3,F2";
    const [first, last = first] = range!.split("-").map((x) => parseInt(x, 16));
    const escape = { "0F": [0x0f], "0F38": [0x0f, 0x38], "0F3A": [0x0f, 0x3a] }[
      map!
    ]!;
    for (let opcode = first!; opcode <= last!; opcode++) {
      for (const prefix of prefixes.split(",")) {
        result.push({
          prefix: prefix === "NP" ? [] : [parseInt(prefix, 16)],
          opcode: [...escape, opcode],
          immediate: more.includes("ib"),
          reg: reg === undefined ? undefined : Number(reg[1]),
        });
      }
    }
  }
  return result;
}

/** RSI and RDI point into the window. */
function address(random: Random): number {
  if (random.once(24)) return 0xf000 - 8 * random.below(4);
  const at = WINDOW + random.below(WINDOW_LENGTH - 31);
  return random.once(6) ? at : at & -16;
}

/** Makes a case. */
export function makeCase(
  random: Random,
  family: SimdFamily,
  encoding: Encoding,
  out: Uint8Array,
): void {
  const view = new DataView(out.buffer, out.byteOffset, REQUEST);
  const long = !random.once(4);
  const code = [...encoding.prefix];
  if (long && random.once(2)) {
    // No index or base beyond RSI; REX.W now and then.
    code.push(0x40 | (random.once(3) ? 8 : 0) | (random.once(2) ? 4 : 0));
  }
  code.push(...encoding.opcode);
  const reg = (encoding.reg ?? random.below(8)) << 3;
  if (encoding.reg !== undefined || random.once(3)) code.push(reg | 6);
  else if (random.once(8)) code.push(0x46 | reg, 16);
  else code.push(0xc0 | reg | random.below(8));
  if (encoding.immediate) code.push(random.word() & 255);
  view.setUint8(Request.bits, long ? 64 : 32);
  view.setUint8(Request.length, code.length);
  view.setUint32(Request.flags, 0x202 | (random.word() & 0x8d5), true);
  view.setUint32(Request.mxcsr, family.mxcsr(random), true);
  out.set(code, Request.code);
  for (let n = 0; n < 16; n++) {
    const value = n === 6 || n === 7 ? BigInt(address(random)) : random.value();
    view.setBigUint64(
      Request.registers + 8 * n,
      BigInt.asUintN(long ? 64 : 32, value),
      true,
    );
  }
  const fill = (from: number, to: number): void => {
    for (let at = from; at < to; at += 8) {
      view.setBigUint64(at, family.values(random), true);
    }
  };
  fill(Request.xmm, Request.upper);
  fill(Request.mmx, REQUEST);
}

/** The cases of a family: for each encoding `times` of them, one after the other. */
export function simdCases(
  family: SimdFamily,
  times: number = family.times,
  seed: string = family.name,
): Uint8Array<ArrayBuffer> {
  const list = encodings(family);
  const random = new Random(seed);
  const out = new Uint8Array(list.length * times * REQUEST);
  let at = 0;
  for (const encoding of list) {
    for (let n = 0; n < times; n++, at += REQUEST) {
      makeCase(random, family, encoding, out.subarray(at, at + REQUEST));
    }
  }
  return out;
}

/** 16 bits that say whether two outcomes are the same: they fail to once in 65,536. */
export function digest(response: Uint8Array): number {
  let hash = 0x811c_9dc5;
  for (const byte of response) hash = Math.imul(hash ^ byte, 0x0100_0193);
  return (hash ^ (hash >>> 16)) & 0xffff;
}

/** The instruction of a case. */
export function instruction(request: Uint8Array): string {
  const length = request[Request.length]!;
  const code = request.subarray(Request.code, Request.code + length);
  return `${code.toHex()} (${request[Request.bits]} bits)`;
}

function integers(random: Random): bigint {
  return random.value();
}

/** A few different characters, and now and then a 0. */
function characters(random: Random): bigint {
  if (random.once(8)) return random.value();
  let value = 0n;
  const wide = random.once(3);
  for (let n = 0; n < (wide ? 4 : 8); n++) {
    const character = random.pick([1n, 2n, 3n, 0x7fn, 0x80n, 0xffn, 0x41n]);
    const zero = random.once(12);
    value = (value << (wide ? 16n : 8n)) | (zero ? 0n : character);
  }
  return value;
}

function quiet(random: Random): number {
  return 0x1f80 | (random.word() & 0x3f);
}

/** Exponent and fraction fields that floats go wrong with; `bits` and `stored` bits wide. */
function float(random: Random, width: bigint, stored: bigint): bigint {
  const top = (1n << (width - stored - 1n)) - 1n;
  const all = (1n << stored) - 1n;
  const bias = top >> 1n;
  const exponent = random.pick([
    0n,
    top,
    1n,
    top - 1n,
    bias,
    bias + BigInt(random.below(Number(stored) + 12)),
    bias - BigInt(random.below(Number(stored) + 4)),
    bias + random.pick([30n, 31n, 32n, 62n, 63n, 64n]),
    random.wide() & top,
  ]);
  const fraction = random.pick([
    0n,
    1n,
    all,
    1n << (stored - 1n),
    random.wide() & all,
    random.wide() & all & ~((1n << BigInt(random.below(Number(stored)))) - 1n),
    1n << BigInt(random.below(Number(stored))),
  ]);
  const sign = BigInt(random.below(2)) << (width - 1n);
  return sign | (exponent << stored) | fraction;
}

/** Doubles, or pairs of singles. */
function floats(random: Random): bigint {
  if (random.once(12)) return random.value();
  return random.once(2)
    ? float(random, 64n, 52n)
    : (float(random, 32n, 23n) << 32n) | float(random, 32n, 23n);
}

/** Everything in MXCSR, the usual mode often. */
function anyMode(random: Random): number {
  const flags = random.word() & random.pick([0, 0x3f, 0x20]);
  switch (random.below(4)) {
    case 0:
      return 0x1f80 | flags;
    case 1:
      return 0x1f80 | flags | (random.word() & 0xe040);
    case 2:
      return 0x1f80 | flags | (random.below(4) << 13);
    default:
      return (random.word() & 0xffc0) | flags;
  }
}

/** The families. */
export const SIMD_FAMILIES: readonly SimdFamily[] = [
  {
    name: "simd_integers",
    opcodes: [
      "0F 54-57",
      "0F 60-6D",
      "0F 70-73 ib",
      "0F 74-76",
      "0F D1-D5",
      "0F D8-E5",
      "0F E8-EF",
      "0F F1-F6",
      "0F F8-FE",
      "0F 14-15",
      "0F C6 ib",
      "0F38 00-0B",
      "0F38 10-11",
      "0F38 14-17",
      "0F38 1C-1F",
      "0F38 20-29",
      "0F38 2B",
      "0F38 30-41",
      "0F3A 0C-0F ib",
      "0F3A 21 ib",
      "0F3A 42 ib",
    ],
    times: 24,
    values: integers,
    mxcsr: quiet,
  },
  {
    name: "simd_moves",
    opcodes: [
      "0F 10-13",
      "0F 16-17",
      "0F 28-29",
      "0F 2B NP,66",
      "0F 50",
      "0F 6E-6F",
      "0F 7E-7F",
      "0F C4-C5 ib",
      "0F D6-D7",
      "0F E7",
      "0F F0",
      "0F F7",
      "0F38 2A",
      "0F3A 14-17 ib",
      "0F3A 20 ib",
      "0F3A 22 ib",
    ],
    times: 32,
    values: integers,
    mxcsr: quiet,
  },
  {
    name: "simd_mxcsr",
    opcodes: ["0F AE /2", "0F AE /3"],
    times: 40,
    // The processor has MXCSR.MM, bit 17.
    values: (random) => random.value() & 0xfffd_ffff_fffd_ffffn,
    mxcsr: anyMode,
  },
  {
    name: "simd_floats",
    opcodes: [
      "0F 2E-2F",
      "0F 51",
      "0F 58-59",
      "0F 5C-5F",
      "0F 7C-7D",
      "0F C2 ib",
      "0F D0",
    ],
    times: 200,
    values: floats,
    mxcsr: anyMode,
  },
  {
    name: "simd_conversions",
    opcodes: ["0F 2A", "0F 2C-2D", "0F 5A-5B", "0F E6"],
    times: 400,
    values: floats,
    mxcsr: anyMode,
  },
  {
    name: "simd_rounding",
    opcodes: ["0F3A 08-0B ib", "0F3A 40-41 ib"],
    times: 400,
    values: floats,
    mxcsr: anyMode,
  },
  {
    name: "simd_strings",
    opcodes: ["0F3A 60-63 ib"],
    times: 500,
    values: characters,
    mxcsr: quiet,
  },
  {
    name: "simd_ciphers",
    opcodes: [
      "0F38 C8-CD",
      "0F38 DB-DF",
      "0F3A 44 ib",
      "0F3A CC ib",
      "0F3A DF ib",
    ],
    times: 60,
    values: (random) => random.wide(),
    mxcsr: quiet,
  },
];
