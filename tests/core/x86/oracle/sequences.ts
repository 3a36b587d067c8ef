/**
 * Random sequences of instructions for comparing two backends: user code of all families, and code of the
 * kernel with system instructions among it.
 *
 * @module
 */
import { type Case, CODE_PAGE, RSP } from "./cases.ts";
import {
  codeAddress,
  encode,
  type Form,
  parseForm,
  randomRegisters,
} from "./encode.ts";
import { FAMILIES } from "./families.ts";
import { Random } from "./random.ts";

const WINDOW = 0xdf80;
const LENGTH = 256;
const MOST_INSTRUCTIONS = 5;
const MOST_BYTES = 60;
/** CF, PF, AF, ZF, SF, OF. */
const ARITHMETIC = 0x8d5;
/** Ends a sequence: INT3 in 32-bit code is one of those that some KVMs do not do. */
const UD2 = [0x0f, 0x0b];
const DF = 0x400;

/** Families that a sequence can have: branches might make it endless. */
const MIXED = [
  ...["arithmetic", "moves", "shifts", "multiplication", "bits", "bmi"],
  ...["decimal_base", "exchange", "stack", "hints"],
];
/** Of them those whose flags the manuals define whole, but for AF of logic, which all processors clear. */
const DEFINED = ["arithmetic", "moves", "exchange"];
const STRINGS = ["A4", "A6", "AA", "AC", "AE"].flatMap((code) => {
  const wide = (parseInt(code, 16) + 1).toString(16).toUpperCase();
  return ["", "F2 ", "F3 "].flatMap((prefix) => [
    `${prefix}${code} b`,
    `${prefix}${wide} v`,
  ]);
});

/** On some processors XOP is there. */
const UNSETTLED = ["8F /1 v"];
/** What the processor that QEMU emulates does in ways of its own. */
const ODD_IN_QEMU = [
  "F6 /1 b ib",
  "F7 /1 v iz",
  "0F C8 +r v",
  "8F /0 v",
  "0F C7 /1 y m",
];

/** Far pointers in memory: nearly all fault, at one part or the other. */
const FAR = [
  "0F B5 /r v m",
  "FF /3 v m",
  "FF /5 v m",
  "8E /1 v",
];

/**
 * System instructions that end where they began: they need no table but the machine's own. Null selectors in 32-bit code, and
 * in SS, are other things to QEMU than to the manuals, so nothing here loads a selector but POP.
 */
const SYSTEM = [
  "0F 00 /0 v",
  "0F 00 /1 v",
  "0F 00 /2 v",
  "0F 00 /4 v",
  "0F 00 /5 v",
  "0F 01 /0 M",
  "0F 01 /1 M",
  "0F 01 /4 v",
  "0F 01 /6 v",
  "0F 01 /7 M",
  "0F 02 /r v",
  "0F 03 /r v",
  "0F 06",
  "0F 20 /0 r",
  "0F 20 /2 r",
  "0F 20 /3 r",
  "0F 20 /4 r",
  "0F 20 /1 r",
  "0F 21 /0 r",
  "0F 21 /3 r",
  "0F 22 /2 r",
  "0F 23 /0 r",
  "0F 23 /2 r",
  "0F 08",
  "0F 09",
  "0F A0 s",
  "0F A1 s",
  "0F A8 s",
  "0F A9 s",
  "8C /r v",
  "9C s",
  "9D s",
  "CC",
  "CD ib",
  "CE 32",
  "CA iw v",
  "CB v",
  "63 /r v",
  "FA",
  "FB",
  "FF /3 v m 32",
  "FF /5 v m 32",
];

/** What the sequences are made of. */
export type Kind = "user" | "user-defined" | "kernel";

function formsOf(kind: Kind): Form[] {
  const names = kind === "user" ? MIXED : DEFINED;
  const common = FAMILIES.filter(({ name }) => names.includes(name))
    .flatMap(({ forms }) => forms).filter((form) =>
      !UNSETTLED.includes(form) &&
      (kind === "user" || !ODD_IN_QEMU.includes(form))
    );
  if (kind === "user") common.push(...STRINGS, ...FAR);
  if (kind !== "kernel") return common.map(parseForm);
  // As many of them as of all others.
  const times = Math.ceil(common.length / SYSTEM.length);
  const system = Array.from({ length: times }, () => SYSTEM).flat();
  return [...common, ...system].map(parseForm);
}

/** An endless source of sequences, the same for the same seed. */
export function* sequences(kind: Kind, seed: string): Generator<Case> {
  const random = new Random(`${kind} ${seed}`);
  const forms = formsOf(kind);
  for (;;) {
    const bits = random.once(3) ? 32 : 64;
    const registers = randomRegisters(random, bits, WINDOW, LENGTH);
    const at = codeAddress(random);
    const code: number[] = [];
    const count = 1 + random.below(MOST_INSTRUCTIONS);
    while (code.length < MOST_BYTES && code.length < 12 * count) {
      const form = random.pick(forms);
      if (form.bits !== undefined && form.bits !== bits) continue;
      // Operands are aimed with the registers at the start; later instructions may well miss.
      const aimed = code.length === 0 ? registers : [...registers];
      const encoded = encode(
        random,
        form,
        bits,
        aimed,
        at + code.length,
        WINDOW,
        LENGTH,
        kind === "user",
      );
      code.push(...encoded.code);
      if (random.once(count)) break;
    }
    // A REP that overwrites itself goes on as it was on a processor, and begins anew here.
    registers.forEach((value, n) => {
      if (value >> 12n === BigInt(CODE_PAGE >> 12)) {
        registers[n] = value ^ 0x1_0000n;
      }
    });
    if (random.once(4)) registers[RSP] = BigInt(WINDOW + random.below(LENGTH));
    const bytes = new Uint8Array(LENGTH);
    const view = new DataView(bytes.buffer);
    for (let n = 0; n < LENGTH; n += 8) {
      view.setBigUint64(n, random.value(), true);
    }
    // Nobody interrupts, but user code sees in PUSHF that they may.
    const flags = (kind === "kernel" ? 2 : 0x202) |
      (random.word() & ARITHMETIC) | (random.once(8) ? DF : 0);
    yield {
      bits,
      at,
      code: new Uint8Array([...code, ...UD2]),
      flags,
      registers,
      window: WINDOW,
      bytes,
    };
  }
}
