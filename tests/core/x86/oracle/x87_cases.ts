/**
 * Cases of x87 instructions: an instruction with random operands, often of the kind that things go wrong with,
 * under a random control word, and sometimes a second instruction that shows what the first left.
 *
 * @module
 */
import { type Case, STATE_X87, WINDOW_PAGES } from "./cases.ts";
import { Random } from "./random.ts";

const WINDOW = WINDOW_PAGES + 0x100;
const LENGTH = 128;
const CODE = 0x8100;
/** Registers by number. */
const RBX = 3, RSP = 4;

/** A family of instructions. */
export interface X87Family {
  readonly name: string;
  /** Bytes in hexadecimal; `/n` is ModRM of an operand in memory, `+` after a byte adds some ST(n) to it. */
  readonly forms: readonly string[];
  /** One case in so many has some exception unmasked. */
  readonly unmasked: number;
  /** What may follow an instruction, in the same form. */
  readonly after: readonly string[];
  /** Batches whose outcomes are recorded. */
  readonly batches: number;
  /** Whether results are exact: transcendental ones may differ in the last bit. */
  readonly exact: boolean;
}

/** Cases in a batch. */
export const BATCH = 200;

function hex(n: number): string {
  return n.toString(16).padStart(2, "0");
}

/** The reg fields of memory forms of an opcode. */
function memory(opcode: string, fields: string): string[] {
  return [...fields].map((field) => `${opcode} /${field}`);
}

/** Register forms: from a ModRM byte on, with every ST(n) equally likely. */
function registers(opcode: string, ...bases: number[]): string[] {
  return bases.map((base) => `${opcode} ${hex(base)}+`);
}

function fixed(opcode: string, ...seconds: number[]): string[] {
  return seconds.map((second) => `${opcode} ${hex(second)}`);
}

const SHOW = ["", "", "", "9b", "d9 /6", "df e0"];

export const X87_FAMILIES: readonly X87Family[] = [
  {
    name: "x87_arithmetic",
    forms: [
      ...memory("d8", "014567"),
      ...memory("da", "014567"),
      ...memory("dc", "014567"),
      ...memory("de", "014567"),
      ...registers("d8", 0xc0, 0xc8, 0xe0, 0xe8, 0xf0, 0xf8),
      ...registers("dc", 0xc0, 0xc8, 0xe0, 0xe8, 0xf0, 0xf8),
      ...registers("de", 0xc0, 0xc8, 0xe0, 0xe8, 0xf0, 0xf8),
      ...fixed("d9", 0xe0, 0xe1, 0xfa, 0xfc),
    ],
    unmasked: 4,
    after: SHOW,
    batches: 200,
    exact: true,
  },
  {
    name: "x87_moves",
    forms: [
      ...memory("d9", "023"),
      ...memory("db", "012357"),
      ...memory("dd", "0123"),
      ...memory("df", "01234567"),
      ...registers("d9", 0xc0, 0xc8, 0xd8),
      ...registers("da", 0xc0, 0xc8, 0xd0, 0xd8),
      ...registers("db", 0xc0, 0xc8, 0xd0, 0xd8),
      ...registers("dd", 0xc0, 0xc8, 0xd0, 0xd8),
      ...registers("df", 0xc0, 0xc8, 0xd0, 0xd8),
      ...fixed("d9", 0xe8, 0xe9, 0xea, 0xeb, 0xec, 0xed, 0xee),
    ],
    unmasked: 4,
    after: SHOW,
    batches: 130,
    exact: true,
  },
  {
    name: "x87_comparisons",
    forms: [
      ...memory("d8", "23"),
      ...memory("da", "23"),
      ...memory("dc", "23"),
      ...memory("de", "23"),
      ...registers("d8", 0xd0, 0xd8),
      ...registers("dc", 0xd0, 0xd8),
      ...registers("de", 0xd0),
      ...registers("dd", 0xe0, 0xe8),
      ...registers("db", 0xe8, 0xf0),
      ...registers("df", 0xe8, 0xf0),
      ...fixed("de", 0xd9),
      ...fixed("da", 0xe9),
      ...fixed("d9", 0xe4, 0xe5),
    ],
    unmasked: 4,
    after: SHOW,
    batches: 70,
    exact: true,
  },
  {
    name: "x87_partial",
    forms: fixed("d9", 0xf4, 0xf5, 0xf8, 0xfd),
    unmasked: 4,
    after: SHOW,
    batches: 50,
    exact: true,
  },
  {
    name: "x87_control",
    forms: [
      ...memory("d9", "4567"),
      ...memory("dd", "467"),
      ...fixed("d9", 0xd0, 0xf6, 0xf7),
      ...fixed("db", 0xe0, 0xe1, 0xe2, 0xe3, 0xe4),
      ...fixed("df", 0xe0),
      "9b",
      ...["d9 /4", "d9 /6", "dd /4", "dd /6"].map((form) => `66 ${form}`),
    ],
    unmasked: 2,
    after: ["", "d9 /6", "9b"],
    batches: 50,
    exact: true,
  },
  {
    name: "x87_undefined",
    forms: [
      ...memory("d9", "1"),
      ...memory("db", "46"),
      ...memory("dd", "5"),
      ...registers("da", 0xe0, 0xe8, 0xf0, 0xf8),
      ...registers("db", 0xf8),
      ...registers("dd", 0xf0, 0xf8),
      ...registers("de", 0xd8),
      ...registers("df", 0xe0, 0xf8),
      ...registers("d9", 0xd0, 0xe0),
      ...fixed("d9", 0xe6, 0xe7, 0xef),
      ...fixed("db", 0xe5, 0xe6, 0xe7),
    ],
    unmasked: 4,
    after: [""],
    batches: 10,
    exact: true,
  },
  {
    name: "x87_transcendental",
    forms: fixed("d9", 0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff),
    unmasked: 8,
    after: [""],
    batches: 3,
    exact: false,
  },
];

const EXPONENTS = [
  0,
  1,
  2,
  // Where doubles and singles end, in extended precision.
  0x3c00,
  0x3c01,
  0x3bcd,
  0x3f80,
  0x3f81,
  0x3f6a,
  0x407e,
  0x407f,
  0x43fe,
  0x43ff,
  // Integers of 15, 31 and 63 bits.
  0x400d,
  0x400e,
  0x401d,
  0x401e,
  0x403d,
  0x403e,
  0x7ffd,
  0x7ffe,
];

/** A significand with long runs of equal bits, so that roundings are close. */
function significand(random: Random): bigint {
  let bits = random.wide();
  switch (random.below(6)) {
    case 0:
      bits = 0n;
      break;
    case 1:
      bits = -1n;
      break;
    case 2:
    case 3: {
      // Halfway or nearly so at a place where a format ends.
      const place = BigInt(random.pick([11, 40, 1, 63 - random.below(63)]));
      bits = (bits >> place) << place;
      bits |= 1n << (place - 1n);
      bits += BigInt(random.below(3) - 1);
      break;
    }
  }
  return BigInt.asUintN(64, bits);
}

/** An operand of the x87, 80 bits. */
export function extended(random: Random): bigint {
  const sign = random.once(2) ? 1n << 79n : 0n;
  const integer = 1n << 63n;
  const make = (exponent: number, bits: bigint): bigint =>
    sign | (BigInt(exponent) << 64n) | bits;
  switch (random.below(24)) {
    case 0:
      return make(0, 0n);
    case 1:
      return make(0, significand(random) & ~integer);
    case 2:
      return make(0, significand(random) | integer);
    case 3:
      return make(0x7fff, integer);
    case 4:
      return make(0x7fff, significand(random) | (3n << 62n));
    case 5:
      return make(0x7fff, (significand(random) | integer) & ~(1n << 62n) | 1n);
    case 6:
      return random.once(2)
        ? make(0x7fff, 3n << 62n)
        : make(random.below(0x8000), significand(random) & ~integer);
    case 7:
    case 8:
    case 9:
      return make(random.pick(EXPONENTS), significand(random) | integer);
    case 10:
      return make(random.below(0x7fff), significand(random) | integer);
    case 11:
    case 12: {
      // A small integer, or one and a half.
      const n = BigInt(1 + random.below(200));
      const shift = 63 - (n.toString(2).length - 1);
      const less = random.below(3);
      return make(0x3fff + 63 - shift - less, n << BigInt(shift));
    }
    default:
      return make(
        0x3fff + random.below(140) - 70,
        significand(random) | integer,
      );
  }
}

/** Something near another operand, for sums that cancel and comparisons that are close. */
function related(random: Random, other: bigint): bigint {
  switch (random.below(4)) {
    case 0:
      return other ^ (1n << 79n);
    case 1:
      return other;
    case 2:
      return BigInt.asUintN(80, other + BigInt(random.below(5) - 2));
    default:
      // Some 64 bits away.
      return BigInt.asUintN(
        80,
        (other + (BigInt(random.below(134) - 67) << 64n)) ^
          (random.wide() >> BigInt(random.below(64))),
      );
  }
}

/** Fills the window with operands of one of the formats that memory holds. */
function operands(random: Random): Uint8Array {
  const bytes = new Uint8Array(LENGTH);
  const view = new DataView(bytes.buffer);
  const kind = random.below(5);
  for (let at = 0; at + 10 <= LENGTH; at += 10) {
    const value = extended(random);
    const sign = value >> 79n;
    const exponent = Number((value >> 64n) & 0x7fffn) - 0x3fff;
    const fraction = value & 0x7fff_ffff_ffff_ffffn;
    switch (kind) {
      case 0: {
        const field = Math.max(0, Math.min(255, exponent + 127));
        view.setUint32(
          at,
          Number((sign << 31n) | (BigInt(field) << 23n) | (fraction >> 40n)),
          true,
        );
        break;
      }
      case 1: {
        const field = BigInt(Math.max(0, Math.min(2047, exponent + 1023)));
        view.setBigUint64(
          at,
          (sign << 63n) | (field << 52n) | (fraction >> 11n),
          true,
        );
        break;
      }
      case 2:
        view.setBigUint64(at, random.value(), true);
        break;
      case 3: {
        // Packed decimal; digits above 9 are undefined.
        for (let n = 0; n < 9; n++) {
          bytes[at + n] = random.below(10) * 16 + random.below(10);
        }
        bytes[at + 9] = random.pick([0, 0x80, random.below(256)]);
        break;
      }
      default:
        view.setBigUint64(at, value & 0xffff_ffff_ffff_ffffn, true);
        view.setUint16(at + 8, Number(value >> 64n), true);
    }
  }
  return bytes;
}

function state(random: Random, unmasked: number): Uint8Array {
  const bytes = new Uint8Array(STATE_X87);
  const view = new DataView(bytes.buffer);
  const masks = random.once(unmasked) ? random.below(64) : 63;
  const precision = random.pick([3, 3, 3, 2, 2, 0, 1]);
  view.setUint16(
    0,
    masks | 0x40 | (precision << 8) | (random.below(4) << 10),
    true,
  );
  // Flags of masked exceptions, and rarely one that waits.
  const flags = random.once(4) ? random.below(128) : 0;
  const pending = random.once(8) ? flags : flags & (masks | 0x40);
  view.setUint16(2, pending | (random.below(128) << 8) & 0x7f00, true);
  bytes[4] = random.pick([0xff, 0xff, 0x7f, 0xfe, 0xf0, random.below(256)]);
  if (random.once(2)) {
    // As usual: all that is below the top is free.
    const top = (view.getUint16(2, true) >> 11) & 7;
    bytes[4] = (0xff00 >> (8 - top)) & 0xff ^ 0xff;
  }
  // Opcode and pointers of some instruction before.
  view.setUint16(6, random.below(0x800), true);
  view.setUint32(8, random.word(), true);
  view.setUint32(16, random.word(), true);
  view.setUint32(24, 0x1f80, true);
  let last = 0n;
  for (let n = 0; n < 8; n++) {
    const value = n > 0 && random.once(3)
      ? related(random, last)
      : extended(random);
    if (n === 0) last = value;
    view.setBigUint64(32 + 16 * n, value & 0xffff_ffff_ffff_ffffn, true);
    view.setUint16(40 + 16 * n, Number(value >> 64n), true);
  }
  return bytes;
}

/** Machine code of a form; memory operands are at RBX plus a displacement. */
function encode(random: Random, form: string, displacement: number): number[] {
  return form.split(" ").filter(Boolean).flatMap((word) => {
    if (word.startsWith("/")) {
      return [0x43 | (Number(word[1]) << 3), displacement];
    }
    if (word.endsWith("+")) return [parseInt(word, 16) + random.below(8)];
    return [parseInt(word, 16)];
  });
}

/** A batch of cases of a family. Those of batches that are not recorded are as good as any. */
export function x87Cases(family: X87Family, batch: number): Case[] {
  const random = new Random(`${family.name} ${batch}`);
  return Array.from({ length: BATCH }, (): Case => {
    const form = random.pick(family.forms);
    const code = [
      ...encode(random, form, 0),
      ...encode(random, random.pick(family.after), 20),
    ];
    const registers = Array.from({ length: 16 }, () => random.wide() >> 34n);
    // One operand in 32 begins in front of the mapped pages or reaches behind them.
    registers[RBX] = BigInt(
      random.once(32) ? random.pick([WINDOW_PAGES - 4, 0xeffa]) : WINDOW,
    );
    registers[RSP] = BigInt(WINDOW_PAGES + 0x800);
    return {
      bits: random.once(4) ? 32 : 64,
      at: CODE,
      code: new Uint8Array(code),
      flags: 0x202 | (random.word() & 0x8d5),
      registers,
      window: WINDOW,
      bytes: operands(random),
      state: state(random, family.unmasked),
    };
  });
}
