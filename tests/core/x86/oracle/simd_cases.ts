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
  else if (response.getInt32(Response.cr2 + 4, true) < 0) {
    // Whether the kernel has a page there is its business.
    const error = response.getUint32(Response.error, true);
    response.setUint32(Response.error, error & ~1, true);
  }
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
export type Values = (random: Random) => bigint;

/**
 * A family of instructions: opcodes as `map first-last`, with `V` in front for VEX encodings, then `ib` if an immediate follows, `/n` if the
 * reg field of ModRM belongs to the opcode and only memory operands are meant, `NP,66` if only these
 * prefixes are, `L0` if only that is: with others the processor may have instructions that the interpreter
 * has not; `vsib` if the index is a vector register, `bare` if there is no ModRM.
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
  /** Fields of a VEX prefix: VEX.mmmmm, VEX.pp, and VEX.L if not both are tried. */
  readonly vex:
    | {
      readonly map: number;
      readonly pp: number;
      readonly l: number | undefined;
    }
    | undefined;
  /** The index is a vector register. */
  readonly vsib: boolean;
  /** No ModRM follows. */
  readonly bare: boolean;
}

/** In the order of VEX.pp. */
const PREFIXES = ["NP", "66", "F3", "F2"];
/** Second byte of the escape to a map, in the order of VEX.mmmmm from 1 on. */
const MAPS = [undefined, 0x38, 0x3a];

/** The encodings that `0F38 20-25 ib` and the like stand for: under each mandatory prefix. */
export function encodings(family: SimdFamily): Encoding[] {
  const result: Encoding[] = [];
  for (const line of family.opcodes) {
    const [map, range, ...more] = line.split(" ");
    const isVex = map!.startsWith("V");
    const escape = map!.replace("V", "").match(/../g)!
      .map((byte) => parseInt(byte, 16));
    const [first, last = first] = range!.split("-").map((x) => parseInt(x, 16));
    const reg = more.find((x) => x.startsWith("/"));
    const only = more.find((x) => x.includes(","))?.split(",") ?? PREFIXES;
    for (let opcode = first!; opcode <= last!; opcode++) {
      for (const prefix of only) {
        result.push({
          prefix: isVex || prefix === "NP" ? [] : [parseInt(prefix, 16)],
          opcode: isVex ? [opcode] : [...escape, opcode],
          immediate: more.includes("ib"),
          reg: reg === undefined ? undefined : Number(reg[1]),
          vex: isVex
            ? {
              map: MAPS.indexOf(escape[1]) + 1,
              pp: PREFIXES.indexOf(prefix),
              l: more.includes("L0") ? 0 : undefined,
            }
            : undefined,
          vsib: more.includes("vsib"),
          bare: more.includes("bare"),
        });
      }
    }
  }
  return result;
}

/** Bytes of a VEX prefix; `rex` has the bits of REX. */
function vexPrefix(
  random: Random,
  { map, pp, l }: NonNullable<Encoding["vex"]>,
  rex: number,
  long: boolean,
): number[] {
  const short = map === 1 && (rex & 11) === 0 && random.once(2);
  const vvvv = random.once(2) ? 0 : random.below(short && !long ? 8 : 16);
  const low = ((~vvvv & 15) << 3) | ((l ?? random.below(2)) << 2) | pp;
  const top = (~rex & 7) << 5;
  return short
    ? [0xc5, (top & 0x80) | low]
    : [0xc4, top | map, low | ((rex & 8) << 4)];
}

/** ModRM and what belongs to it; the bits of REX that may be set with it. */
function operands(random: Random, encoding: Encoding): [number[], number] {
  const reg = (encoding.reg ?? random.below(8)) << 3;
  if (encoding.bare) return [[], 0];
  if (encoding.vsib) {
    const sib = (random.below(4) << 6) | (random.below(8) << 3) | 6;
    return random.once(2)
      ? [[reg | 4, sib], 6]
      : [[0x44 | reg, sib, random.below(32)], 6];
  }
  if (encoding.reg !== undefined) return [[reg | 6], 0];
  if (random.once(3)) return [[reg | 6], 4];
  if (random.once(8)) return [[0x46 | reg, 16], 4];
  return [[0xc0 | reg | random.below(8)], 5];
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
  const [tail, mayExtend] = operands(random, encoding);
  const extended = long && random.once(2) ? random.word() & mayExtend : 0;
  const rex = extended | (random.once(3) ? 8 : 0);
  // LOCK is never right, 66 in front of another mandatory prefix does nothing.
  const stray = random.once(40) ? [random.pick([0x66, 0xf0])] : [];
  const code = [...stray, ...encoding.prefix];
  if (encoding.vex) code.push(...vexPrefix(random, encoding.vex, rex, long));
  else if (long && (extended !== 0 || random.once(2))) code.push(0x40 | rex);
  code.push(...encoding.opcode, ...tail);
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
