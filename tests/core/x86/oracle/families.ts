/**
 * The instructions that are compared, by family. A family's cases follow from its name and
 * lines alone, and recorded outcomes are valid for these very cases: who changes a line or
 * anything that makes cases records anew (record.ts).
 *
 * @module
 */
import { type Case, RSP, WINDOW_END, WINDOW_PAGES } from "./cases.ts";
import { codeAddress, encode, parseForm, randomRegisters } from "./encode.ts";
import { Random } from "./random.ts";

/** Registers by number. */
const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RBP = 5, RSI = 6, RDI = 7;
const ALL_FLAGS = 0x8d5;
const DF = 0x400;

/** A case while it is made. */
interface Draft {
  readonly bits: 32 | 64;
  at: number;
  code: Uint8Array;
  flags: number;
  readonly registers: bigint[];
  readonly window: number;
  readonly bytes: Uint8Array;
}

/** Changes a case so that its instruction has something sensible to do. */
type Adjust = (
  draft: Draft,
  random: Random,
  size: number,
  memory: boolean,
) => void;

/** Forms, and how often each is tried in each kind of code. */
interface Group {
  readonly forms: readonly string[];
  readonly times: number;
  readonly adjust?: Adjust;
}

const WINDOW = 0xdf80;
const LENGTH = 256;

function randomBytes(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < length; at += 8) {
    view.setBigUint64(at, random.value(), true);
  }
  return bytes;
}

function randomFlags(random: Random): number {
  const arithmetic = random.pick([0, ALL_FLAGS, random.word() & ALL_FLAGS]);
  return 0x202 | arithmetic | (random.once(8) ? DF : 0);
}

function draft(random: Random, bits: 32 | 64): Draft {
  return {
    bits,
    at: codeAddress(random),
    code: new Uint8Array(),
    flags: randomFlags(random),
    registers: randomRegisters(random, bits, WINDOW, LENGTH),
    window: WINDOW,
    bytes: randomBytes(random, LENGTH),
  };
}

/** Cases of groups of forms. */
function formCases(name: string, groups: readonly Group[]): Case[] {
  const random = new Random(name);
  const cases: Case[] = [];
  for (const { forms, times, adjust } of groups) {
    for (const text of forms) {
      const form = parseForm(text);
      for (const bits of [64, 32] as const) {
        if (form.bits !== undefined && form.bits !== bits) continue;
        for (let n = 0; n < times; n++) {
          const test = draft(random, bits);
          // First the values, for the operand's address may depend on them.
          const size = form.size === "b" ? 1 : 0;
          adjust?.(test, random, size, false);
          const encoded = encode(
            random,
            form,
            bits,
            test.registers,
            test.at,
            WINDOW,
            LENGTH,
          );
          test.code = encoded.code;
          if (adjust !== branches || !mayLoop(test.code)) cases.push(test);
        }
      }
    }
  }
  return cases;
}

/** Whether a branch with these last bytes may go back into its own code, for ever. */
function mayLoop(code: Uint8Array): boolean {
  const view = new DataView(code.buffer, code.byteOffset, code.length);
  const back = (displacement: number): boolean =>
    displacement < 0 && displacement >= -code.length;
  return back(view.getInt8(code.length - 1)) ||
    (code.length >= 2 && back(view.getInt16(code.length - 2, true)));
}

/** A family of instructions. */
export interface Family {
  readonly name: string;
  /** The forms that its cases are made of, where they are made of forms. */
  readonly forms: readonly string[];
  readonly cases: () => Case[];
}

function family(name: string, ...groups: readonly Group[]): Family {
  return {
    name,
    forms: groups.flatMap(({ forms }) => forms),
    cases: () => formCases(name, groups),
  };
}

function hex(n: number): string {
  return n.toString(16).toUpperCase().padStart(2, "0");
}

function alu(): string[] {
  const forms: string[] = [];
  for (let n = 0; n < 8; n++) {
    const at = 8 * n;
    forms.push(
      `${hex(at)} /r b`,
      `${hex(at + 1)} /r v`,
      `${hex(at + 2)} /r b`,
      `${hex(at + 3)} /r v`,
      `${hex(at + 4)} b ib`,
      `${hex(at + 5)} v iz`,
      `80 /${n} b ib`,
      `81 /${n} v iz`,
      `83 /${n} v ib`,
    );
  }
  return forms;
}

function conditions(make: (code: number) => string): string[] {
  return Array.from({ length: 16 }, (_, code) => make(code));
}

function shifts(): string[] {
  const forms: string[] = [];
  for (let n = 0; n < 8; n++) {
    forms.push(
      `C0 /${n} b ib`,
      `C1 /${n} v ib`,
      `D0 /${n} b`,
      `D1 /${n} v`,
      `D2 /${n} b`,
      `D3 /${n} v`,
    );
  }
  return forms;
}

/** Dividends whose quotient has a chance to fit. */
const dividend: Adjust = ({ bits, registers }, random) => {
  const width = random.pick([8, 16, 32, 64]);
  const low = BigInt.asIntN(width, registers[RAX]!);
  switch (random.below(4)) {
    case 0:
      registers[RDX] = 0n;
      break;
    case 1:
      registers[RDX] = BigInt.asUintN(bits, low >> 63n);
      break;
    case 2:
      registers[RDX] = BigInt(random.below(300));
      break;
  }
  if (random.once(4)) registers[RAX] = BigInt(random.below(65536));
};

/** Counts and bit offsets from the register that shifts and strings use. */
const smallCount: Adjust = ({ registers, bits }, random) => {
  if (random.once(2)) {
    registers[RCX] = BigInt.asUintN(
      bits,
      (registers[RCX]! & ~0xffn) | BigInt(random.below(72)),
    );
  }
};

/** Bit offsets that keep bit strings in the mapped pages, in every register. */
const bitOffsets: Adjust = ({ registers, bits }, random) => {
  registers.forEach((_, n) => {
    if (n === RSP) return;
    const offset = random.below(1200) - 600;
    registers[n] = BigInt.asUintN(bits, BigInt(offset));
    // Of the 16-bit form only the low word counts.
    if (random.once(4)) {
      registers[n] = (registers[n]! & 0xffffn) |
        BigInt.asUintN(bits, BigInt(random.word()) << 16n);
    }
  });
};

/** RAX (and RDX) equal to what may be in memory. */
const comparable: Adjust = ({ registers, bytes, bits }, random) => {
  if (random.once(2)) return;
  const wide = random.value();
  const value = BigInt.asUintN(bits, wide);
  const other = BigInt.asUintN(bits, random.value());
  registers[RAX] = value;
  if (random.once(2)) registers[random.below(bits / 4)] = value;
  if (registers[RSP] === value) registers[RSP] = BigInt(WINDOW + 128);
  registers[RDX] = other;
  const view = new DataView(bytes.buffer);
  const step = bits === 64 ? 16 : 8;
  for (let at = 0; at < LENGTH; at += step) {
    if (bits === 64) {
      view.setBigUint64(at, value, true);
      view.setBigUint64(at + 8, other, true);
    } else {
      view.setUint32(at, Number(value), true);
      view.setUint32(at + 4, Number(other), true);
    }
  }
};

/** Frame pointers for ENTER and LEAVE, a table for XLAT, bounds for BOUND. */
const frame: Adjust = ({ registers, bits }, random) => {
  registers[RBP] = BigInt(WINDOW + 64 + random.below(128));
  // The high half counts as well.
  if (bits === 64 && random.once(16)) registers[RBP]! += 1n << 40n;
  if (random.once(16)) registers[RSP] = BigInt(WINDOW_PAGES + random.below(40));
  if (random.once(16)) registers[RSP] = BigInt(WINDOW_END - random.below(40));
};

const table: Adjust = ({ registers, bits }, random) => {
  registers[RBX] = BigInt(WINDOW - 8 + random.below(16));
  if (random.once(4)) {
    registers[RBX] = BigInt.asUintN(
      bits,
      BigInt(WINDOW) - (registers[RAX]! & 0xffn),
    );
  }
};

const bounds: Adjust = ({ bytes, registers }, random) => {
  const view = new DataView(bytes.buffer);
  const width = random.pick([2, 4]);
  for (let at = 0; at < LENGTH; at += 2 * width) {
    const low = random.below(20) - 10;
    const high = low + random.below(20);
    if (width === 2) {
      view.setInt16(at, low, true);
      view.setInt16(at + 2, high, true);
    } else {
      view.setInt32(at, low, true);
      view.setInt32(at + 4, high, true);
    }
  }
  registers.forEach((_, n) => {
    if (n !== RSP) {
      registers[n] = BigInt.asUintN(32, BigInt(random.below(40) - 20));
    }
  });
};

/** Branches: what follows is INT3, so the saved RIP tells where they went. */
const branches: Adjust = ({ registers, bytes, at, bits }, random) => {
  if (random.once(2)) registers[RCX] = BigInt(random.below(3));
  if (random.once(8)) registers[RCX] = 1n << BigInt(bits / 2);
  const view = new DataView(bytes.buffer);
  // Behind the code, which is full of INT3.
  const place = (): bigint => BigInt(at + 16 + random.below(100));
  for (let n = 0; n < LENGTH; n += 8) {
    if (bits === 64) view.setBigUint64(n, place(), true);
    else {
      view.setUint32(n, Number(place()), true);
      view.setUint32(n + 4, Number(place()), true);
    }
  }
  registers.forEach((_, n) => {
    if (n !== RSP && n !== RCX && random.once(2)) registers[n] = place();
  });
};

/** Values for POPF that neither trap nor change the compared outcome. */
const safeFlags: Adjust = ({ bytes, registers }, random) => {
  const view = new DataView(bytes.buffer);
  registers[RSP] = BigInt(WINDOW + 8 * random.below(16));
  for (let at = 0; at < LENGTH; at += 8) {
    view.setBigUint64(at, BigInt(random.word() & 0xed7), true);
  }
};

/** A string instruction with everything that can go with it. */
function stringCases(name: string): Case[] {
  const random = new Random(name);
  const cases: Case[] = [];
  for (let n = 0; n < 3200; n++) {
    const bits = n % 2 === 0 ? 64 : 32;
    const test = draft(random, bits);
    const opcode = random.pick([0xa4, 0xa6, 0xaa, 0xac, 0xae]);
    const comparing = opcode === 0xa6 || opcode === 0xae;
    const wide = random.below(bits === 64 ? 4 : 3);
    const size = [1, 2, 4, 8][wide]!;
    const code: number[] = [];
    const short = random.once(4);
    if (short) code.push(0x67);
    if (wide === 1) code.push(0x66);
    if (random.once(16)) code.push(bits === 64 ? 0x65 : 0x3e);
    if (!random.once(4)) code.push(random.once(2) ? 0xf2 : 0xf3);
    if (wide === 3) code.push(0x48);
    code.push(wide === 0 ? opcode : opcode + 1);
    test.code = new Uint8Array(code);
    test.flags = (test.flags & ~DF) | (random.once(3) ? DF : 0);
    const backward = (test.flags & DF) !== 0;
    if (comparing) {
      // Runs of equal elements, so that comparing goes on for a while.
      const byte = random.below(256);
      test.bytes.fill(byte);
      test.registers[RAX] = BigInt.asUintN(
        bits,
        0x0101_0101_0101_0101n * BigInt(byte),
      );
      for (let k = random.below(4); k > 0; k--) {
        test.bytes[random.below(LENGTH)] = random.below(256);
      }
    }
    const place = (): bigint => {
      if (random.once(16)) {
        return BigInt(
          random.pick([WINDOW_PAGES, WINDOW_END]) + random.below(64) - 32,
        );
      }
      return BigInt(WINDOW + (backward ? 128 : 0) + random.below(112));
    };
    const from = place();
    const to = random.once(3)
      ? from + BigInt(random.below(9) - 4) * BigInt(random.pick([1, size]))
      : place();
    const count = random.pick([0, 1, 2, 3, random.below(1 + 100 / size)]);
    // The address size says how much of the registers counts.
    const counts = bits === 64 ? (short ? 32 : 64) : short ? 16 : 32;
    const garbage = BigInt.asUintN(bits, random.value());
    const cut = (value: bigint): bigint =>
      counts === 64
        ? value
        : ((garbage >> BigInt(counts)) << BigInt(counts)) | value;
    test.registers[RSI] = cut(from);
    test.registers[RDI] = cut(to);
    test.registers[RCX] = cut(BigInt(count));
    cases.push(test);
  }
  return cases;
}

/** Repeated moves and fills over both pages. */
function longStringCases(name: string): Case[] {
  const random = new Random(name);
  const cases: Case[] = [];
  const length = WINDOW_END - WINDOW_PAGES;
  for (let n = 0; n < 48; n++) {
    const bits = n % 2 === 0 ? 64 : 32;
    const bytes = new Uint8Array(length);
    for (let k = 0; k < 64; k++) bytes[random.below(length)] = random.word();
    const move = random.once(2);
    const wide = random.below(bits === 64 ? 4 : 3);
    const size = [1, 2, 4, 8][wide]!;
    const backward = random.once(4);
    const code = [0xf3];
    if (wide === 1) code.push(0x66);
    if (wide === 3) code.push(0x48);
    code.push((move ? 0xa4 : 0xaa) + (wide === 0 ? 0 : 1));
    const registers = randomRegisters(random, bits, WINDOW, LENGTH);
    // A fill's value repeats, or the recorded outcome would be long.
    registers[RAX] = 0n;
    const from = random.below(0x900);
    const to = move
      ? random.pick([
        from + size,
        from + random.below(40),
        Math.max(0, from - random.below(40)),
        0x1000 + random.below(0x600),
      ])
      : from;
    const count = Math.floor(random.below(0xa00) / size);
    const start = WINDOW_PAGES + (backward ? count * size : 0);
    registers[RSI] = BigInt(start + from);
    registers[RDI] = BigInt(start + to);
    registers[RCX] = BigInt(random.once(8) ? 0x7fff_ffff : count);
    cases.push({
      bits,
      at: codeAddress(random),
      code: new Uint8Array(code),
      flags: 0x202 | (backward ? DF : 0),
      registers,
      window: WINDOW_PAGES,
      bytes,
    });
  }
  return cases;
}

/** All values of AL, and flags, of the decimal instructions. */
function decimalCases(name: string): Case[] {
  const random = new Random(name);
  const cases: Case[] = [];
  for (const opcode of [0x27, 0x2f, 0x37, 0x3f]) {
    for (let al = 0; al < 256; al++) {
      for (const flags of [0, 0x01, 0x10, 0x11]) {
        const test = draft(random, 32);
        test.code = new Uint8Array([opcode]);
        test.flags = 0x202 | flags | (random.word() & 0x8c4);
        test.registers[RAX] = BigInt(random.below(256) << 8 | al);
        test.bytes.fill(0);
        cases.push(test);
      }
    }
  }
  return cases;
}

/** All families. */
export const FAMILIES: readonly Family[] = [
  family("arithmetic", { forms: alu(), times: 24 }, {
    forms: [
      "84 /r b",
      "85 /r v",
      "A8 b ib",
      "A9 v iz",
      "F6 /0 b ib",
      "F7 /0 v iz",
      "F6 /1 b ib",
      "F7 /1 v iz",
      "FE /0 b",
      "FF /0 v",
      "FE /1 b",
      "FF /1 v",
      "F6 /2 b",
      "F7 /2 v",
      "F6 /3 b",
      "F7 /3 v",
    ],
    times: 30,
  }, {
    forms: ["40 +r v 32", "48 +r v 32", "82 /0 b ib", "82 /7 b ib"],
    times: 20,
  }),
  family(
    "moves",
    {
      forms: [
        "88 /r b",
        "89 /r v",
        "8A /r b",
        "8B /r v",
        "B0 +r b ib",
        "B8 +r v iv",
        "C6 /0 b ib",
        "C7 /0 v iz",
        "0F B6 /r v",
        "0F B7 /r v",
        "0F BE /r v",
        "0F BF /r v",
        "63 /r v 64",
        "86 /r b",
        "87 /r v",
        "90 +r v",
        "A0 b o",
        "A1 v o",
        "A2 b o",
        "A3 v o",
        "0F C3 /r y m",
        "0F C8 +r v",
        "0F 38 F0 /r v m",
        "0F 38 F1 /r v m",
      ],
      times: 40,
    },
    { forms: ["8D /r v m"], times: 160 },
    {
      forms: conditions((code) => `0F ${hex(0x40 + code)} /r v`),
      times: 24,
    },
    {
      forms: conditions((code) => `0F ${hex(0x90 + code)} /0 b`),
      times: 20,
    },
    {
      forms: [
        "98 v",
        "99 v",
        "9E",
        "9F",
        "F5",
        "F8",
        "F9",
        "FC",
        "FD",
        "D6 32",
      ],
      times: 24,
    },
    { forms: ["D7", "67 D7"], times: 60, adjust: table },
  ),
  family("shifts", { forms: shifts(), times: 48, adjust: smallCount }, {
    forms: ["0F A4 /r v ib", "0F A5 /r v", "0F AC /r v ib", "0F AD /r v"],
    times: 160,
    adjust: smallCount,
  }),
  family("multiplication", {
    forms: ["F6 /4 b", "F7 /4 v", "F6 /5 b", "F7 /5 v"],
    times: 100,
  }, {
    forms: ["0F AF /r v", "69 /r v iz", "6B /r v ib", "V.F2.0F38 F6 /r y"],
    times: 80,
  }, {
    forms: ["F6 /6 b", "F7 /6 v", "F6 /7 b", "F7 /7 v"],
    times: 240,
    adjust: dividend,
  }),
  family("bits", {
    forms: ["A3", "AB", "B3", "BB"].map((code) => `0F ${code} /r v`),
    times: 120,
    adjust: bitOffsets,
  }, {
    forms: [4, 5, 6, 7].map((n) => `0F BA /${n} v ib`),
    times: 80,
  }, {
    forms: [
      "0F BC /r v",
      "0F BD /r v",
      "F3 0F BC /r v",
      "F3 0F BD /r v",
      "F3 0F B8 /r v",
    ],
    times: 80,
  }),
  family("bmi", {
    forms: [
      "V.NP.0F38 F2 /r y",
      "V.NP.0F38 F3 /1 y",
      "V.NP.0F38 F3 /2 y",
      "V.NP.0F38 F3 /3 y",
      "V.NP.0F38 F7 /r y",
      "V.NP.0F38 F5 /r y",
      "V.66.0F38 F7 /r y",
      "V.F2.0F38 F7 /r y",
      "V.F3.0F38 F7 /r y",
      "V.F2.0F3A F0 /r y ib",
      "V.F2.0F38 F5 /r y",
      "V.F3.0F38 F5 /r y",
      "66 0F 38 F6 /r y",
      "F3 0F 38 F6 /r y",
      "F2 0F 38 F0 /r b",
      "F2 0F 38 F0 /r y",
      "F2 0F 38 F1 /r v",
    ],
    times: 90,
  }, {
    // Undefined neighbours.
    forms: [
      "V.NP.0F38 F3 /0 y",
      "V.NP.0F38 F3 /4 y",
      "V.66.0F38 F2 /r y",
      "V.NP.0F3A F0 /r y ib",
      "F3 0F 38 F0 /r v m",
    ],
    times: 12,
  }),
  { name: "decimal", forms: [], cases: () => decimalCases("decimal") },
  family("decimal_base", { forms: ["D4 ib 32", "D5 ib 32"], times: 400 }, {
    forms: ["27", "2F", "37", "3F", "D4 ib", "D5 ib", "D6"].map((x) =>
      `${x} 64`
    ),
    times: 4,
  }),
  family("exchange", {
    forms: ["0F C0 /r b", "0F C1 /r v"],
    times: 120,
  }, {
    forms: ["0F B0 /r b", "0F B1 /r v", "0F C7 /1 y m"],
    times: 200,
    adjust: comparable,
  }),
  { name: "strings", forms: [], cases: () => stringCases("strings") },
  {
    name: "long_strings",
    forms: [],
    cases: () => longStringCases("long_strings"),
  },
  family(
    "stack",
    {
      forms: [
        "50 +r v",
        "58 +r v",
        "68 s iz",
        "6A s ib",
        "FF /6 v",
        "8F /0 v",
        "9C s",
      ],
      times: 60,
    },
    { forms: ["9D s"], times: 60, adjust: safeFlags },
    {
      forms: ["C8 s iw ib", "C9 s", "60 s 32", "61 s 32"],
      times: 120,
      adjust: frame,
    },
    { forms: ["62 /r v m 32"], times: 160, adjust: bounds },
    {
      forms: ["60 64", "61 64", "CE 64", "8F /1 v", "FF /7 v"],
      times: 4,
    },
  ),
  family("branches", {
    forms: conditions((code) => `${hex(0x70 + code)} ib`),
    times: 12,
    adjust: branches,
  }, {
    forms: conditions((code) => `0F ${hex(0x80 + code)} s j`),
    times: 8,
    adjust: branches,
  }, {
    forms: ["E8 s j", "E9 s j"],
    times: 50,
    adjust: branches,
  }, {
    forms: [
      "E0 ib",
      "E1 ib",
      "E2 ib",
      "E3 ib",
      "67 E2 ib",
      "67 E3 ib",
      "EB ib",
    ],
    times: 50,
    adjust: branches,
  }, {
    forms: ["FF /2 s", "FF /4 s", "C3 s", "C2 s iw"],
    times: 60,
    adjust: branches,
  }, { forms: ["CE 32", "CC"], times: 8 }),
  family("hints", {
    forms: [
      "0F 0D /r v",
      "0F 18 /r v",
      "0F 19 /r v",
      "0F 1A /r v",
      "0F 1B /r v",
      "0F 1C /r v",
      "0F 1D /r v",
      "0F 1E /r v",
      "0F 1F /r v",
      "0F AE /7 m",
      "66 0F AE /7 m",
      "66 0F AE /6 m",
      "0F AE /5 r",
      "0F AE /6 r",
      "0F AE /7 r",
      "0F 0B",
      "0F B9 /r v",
      "0F FF /r v",
      "F3 90 +r",
      "F3 0F 1E /r v",
      "66 0F AE /5 r",
      "F3 0F AE /7 r",
      "F2 0F AE /7 r",
    ],
    times: 24,
  }),
];
