/**
 * Random instructions of a given form, with registers that make its memory operand lie in the window.
 *
 * A form is written much as in the SDM: `F3 0F BC /r v`. Words in front of the opcode are mandatory
 * prefixes; `V.F2.0F38` in their place makes a VEX encoding. After the opcode:
 * - `+r`: the opcode's low three bits are a register;
 * - `/r`, `/0` to `/7`: ModRM follows; with `m` or `x` nearly always of memory or of a register, with `M` or `r` always;
 * - `b`, `v`, `y`, `s`: operands of 8; 16, 32 or 64; 32 or 64; 16 or 64 (32 in 32-bit code) bits;
 * - `ib iw iz iv`: immediates, `o`: a direct address, `j`: 16 or 32 bits to a place near by;
 * - `64`, `32`: only in code of that kind.
 *
 * @module
 */
import { CODE_PAGE, RSP, WINDOW_END, WINDOW_PAGES } from "./cases.ts";
import type { Random } from "./random.ts";

/** A parsed form. */
export interface Form {
  readonly text: string;
  readonly prefixes: readonly number[];
  /** VEX.pp and VEX.mmmmm, if it is one. */
  readonly vex: { readonly pp: number; readonly map: number } | undefined;
  readonly opcode: readonly number[];
  readonly register: boolean;
  /** ModRM.reg, -1 for any, undefined without ModRM. */
  readonly reg: number | undefined;
  readonly prefer: "m" | "x" | "M" | "r" | undefined;
  readonly size: "b" | "v" | "y" | "s" | undefined;
  readonly immediates: readonly string[];
  readonly bits: 32 | 64 | undefined;
}

/**
 * Parses a form.
 *
 * @throws {SyntaxError} If a word is unknown.
 */
export function parseForm(text: string): Form {
  const prefixes: number[] = [];
  const opcode: number[] = [];
  const immediates: string[] = [];
  let vex: Form["vex"];
  let register = false;
  let reg: number | undefined;
  let prefer: Form["prefer"];
  let size: Form["size"];
  let bits: Form["bits"];
  for (const word of text.split(" ")) {
    if (word.startsWith("V.")) {
      const parts = word.split(".");
      vex = {
        pp: Math.max(0, ["NP", "66", "F3", "F2"].indexOf(parts[1]!)),
        map: ["0F", "0F38", "0F3A"].indexOf(parts[2]!) + 1,
      };
    } else if (
      opcode.length === 0 && (word === "66" || word === "F2" || word === "F3")
    ) prefixes.push(parseInt(word, 16));
    else if ((word === "64" || word === "32") && opcode.length > 0) {
      bits = word === "64" ? 64 : 32;
    } else if (/^[0-9A-F]{2}$/.test(word)) opcode.push(parseInt(word, 16));
    else if (word === "+r") register = true;
    else if (word === "/r") reg = -1;
    else if (/^\/[0-7]$/.test(word)) reg = Number(word[1]);
    else if (/^[mxMr]$/.test(word)) prefer = word as Form["prefer"];
    else if ("bvys".includes(word)) size = word as Form["size"];
    else if (/^(i[bwzv]|o|j)$/.test(word)) immediates.push(word);
    else throw new SyntaxError(`Cannot parse form: ${text}`);
  }
  return {
    text,
    prefixes,
    vex,
    opcode,
    register,
    reg,
    prefer,
    size,
    immediates,
    bits,
  };
}

/** An instruction being put together. */
export interface Encoded {
  readonly code: Uint8Array;
  /** Bytes of the operand. */
  readonly size: number;
  /** ModRM names memory. */
  readonly memory: boolean;
}

/** Bases and indices of 16-bit addressing. */
const PAIRS = [[3, 6], [3, 7], [5, 6], [5, 7], [6], [7], [5], [3]] as const;

/** Low `bits` of `value` replaced by `part`. */
function replaceLow(value: bigint, part: bigint, bits: number): bigint {
  return value - BigInt.asUintN(bits, value) + BigInt.asUintN(bits, part);
}

/** Where a memory operand is put. */
function target(random: Random, window: number, length: number): number {
  if (random.once(24)) {
    // At an end of the mapped pages, possibly across it.
    return random.pick([WINDOW_PAGES, WINDOW_END]) - random.below(10);
  }
  return window + random.below(length - 32);
}

/**
 * Makes an instruction of the form.
 *
 * @param registers Changed so that a memory operand lies in the window.
 * @param at Where the code will be, for addresses relative to RIP.
 * @param lock Whether it may have a LOCK prefix, allowed or not.
 */
export function encode(
  random: Random,
  form: Form,
  bits: 32 | 64,
  registers: bigint[],
  at: number,
  window: number,
  length: number,
  lock = true,
): Encoded {
  const long = bits === 64;
  const count = long ? 16 : 8;
  const prefixes = [...form.prefixes];
  let rexUsed = 0;
  let size = form.size === "b" ? 1 : 4;
  if (form.size === "v" || form.size === "s") {
    const choice = random.below(long ? 3 : 2);
    if (choice === 0) {
      size = 2;
      if (!prefixes.includes(0x66)) prefixes.push(0x66);
    } else if (choice === 2) size = 8;
  } else if (form.size === "y" && long && random.once(2)) size = 8;
  else if (form.size === "b" && random.once(16)) prefixes.push(0x66);
  if (size === 8) rexUsed |= 8;

  const opcode = [...form.opcode];
  if (form.register) {
    const r = random.below(count);
    opcode[opcode.length - 1]! |= r & 7;
    if (r > 7) rexUsed |= 1;
  }

  const tail: number[] = [];
  let memory = false;
  let relative = -1;
  const put = (value: number, bytes: number): void => {
    for (let n = 0; n < bytes; n++) tail.push((value >> (8 * n)) & 255);
  };
  if (form.reg !== undefined) {
    const r = form.reg >= 0 ? form.reg : random.below(count);
    if (r > 7) rexUsed |= 4;
    memory = form.prefer === "m"
      ? !random.once(16)
      : form.prefer === "x"
      ? random.once(16)
      : form.prefer === "M" || form.prefer === "r"
      ? form.prefer === "M"
      : random.once(2);
    const reg = (r & 7) << 3;
    if (!memory) {
      const rm = random.below(count);
      if (rm > 7) rexUsed |= 1;
      tail.push(0xc0 | reg | (rm & 7));
    } else {
      const short = random.once(8);
      if (short) prefixes.push(0x67);
      const address = BigInt(target(random, window, length));
      const mod = random.below(3);
      const disp = mod === 1
        ? random.below(256) - 128
        : mod === 2
        ? (long || !short ? random.word() | 0 : random.below(65536) - 32768)
        : 0;
      if (!long && short) {
        const rm = random.below(8);
        if (mod === 0 && rm === 6) {
          tail.push(reg | 6);
          put(Number(address), 2);
        } else {
          const [base, index] = PAIRS[rm]!;
          const add = index === undefined ? 0n : registers[index]!;
          registers[base] = replaceLow(
            registers[base]!,
            address - BigInt(disp) - add,
            16,
          );
          tail.push((mod << 6) | reg | rm);
          if (mod !== 0) put(disp, mod);
        }
      } else {
        const width = long && !short ? 64 : 32;
        const kind = random.below(8);
        if (kind === 0) {
          // A plain displacement, in 64-bit code relative to RIP.
          tail.push(reg | 5);
          if (long) relative = tail.length;
          put(Number(address), 4);
        } else if (kind === 1) {
          // No base, maybe an index.
          const index = random.below(count);
          const scale = random.below(4);
          if (index !== 4) registers[index] = BigInt(random.below(1 << 20));
          if (index > 7) rexUsed |= 2;
          tail.push(reg | 4, (scale << 6) | ((index & 7) << 3) | 5);
          const add = index === 4 ? 0n : registers[index]! << BigInt(scale);
          put(Number(BigInt.asIntN(32, address - add)), 4);
        } else {
          const base = random.below(count);
          if (base > 7) rexUsed |= 1;
          // RBP and R13 always have a displacement.
          const shown = mod === 0 && (base & 7) === 5 ? 1 : mod;
          const sib = (base & 7) === 4 || random.once(2);
          let sum = BigInt(disp);
          if (sib) {
            let index = random.below(count);
            if (index === base) index = 4;
            const scale = random.below(4);
            if (index > 7) rexUsed |= 2;
            if (index !== 4) sum += registers[index]! << BigInt(scale);
            tail.push(
              (shown << 6) | reg | 4,
              (scale << 6) | ((index & 7) << 3) | (base & 7),
            );
          } else tail.push((shown << 6) | reg | (base & 7));
          registers[base] = replaceLow(
            registers[base]!,
            address - sum,
            width,
          );
          // Nearly always canonical.
          if (long && !short && mod !== 0 && random.once(64)) {
            registers[base] = registers[base]! ^ (1n << 60n);
          }
          if (shown === 1) put(disp, 1);
          else if (shown === 2) put(disp, 4);
        }
      }
    }
  }
  for (const immediate of form.immediates) {
    const value = Number(BigInt.asIntN(32, random.value()));
    switch (immediate) {
      case "ib":
        put(value, 1);
        break;
      case "iw":
        put(value, 2);
        break;
      case "iz":
        put(value, size === 2 ? 2 : 4);
        break;
      case "iv":
        put(value, size === 2 ? 2 : 4);
        if (size === 8) put(random.word() | 0, 4);
        break;
      case "j":
        put(random.below(400) - 200, size === 2 ? 2 : 4);
        break;
      default: {
        const short = random.once(4);
        if (short) prefixes.push(0x67);
        put(target(random, window, length), long || !short ? 4 : 2);
        if (long && !short) put(0, 4);
      }
    }
  }

  const head: number[] = [];
  // A segment override that changes nothing.
  if (random.once(24)) {
    prefixes.push(random.pick(long ? [0x26, 0x3e, 0x65] : [0x3e]));
  }
  if (random.once(24) && lock) prefixes.push(0xf0);
  while (prefixes.length > 0) {
    head.push(...prefixes.splice(random.below(prefixes.length), 1));
  }
  if (form.vex !== undefined) {
    // The third map's instructions have no such operand.
    const vvvv = (form.vex.map === 3) !== random.once(32)
      ? 0
      : random.below(count);
    const low = ((~vvvv & 15) << 3) | form.vex.pp | (random.once(32) ? 4 : 0);
    const w = rexUsed & 8 ? 0x80 : 0;
    if (form.vex.map === 1 && w === 0 && (rexUsed & 3) === 0) {
      head.push(0xc5, low | (rexUsed & 4 ? 0 : 0x80));
    } else {
      head.push(0xc4, ((~rexUsed & 7) << 5) | form.vex.map, low | w);
    }
  } else if (long && (rexUsed !== 0 || random.once(8))) {
    head.push(0x40 | rexUsed);
  }
  const code = [...head, ...opcode, ...tail];
  if (relative >= 0) {
    const from = head.length + opcode.length + relative;
    const displacement = target(random, window, length) - (at + code.length);
    for (let n = 0; n < 4; n++) {
      code[from + n] = (displacement >> (8 * n)) & 255;
    }
  }
  return { code: new Uint8Array(code), size, memory };
}

/** A place for code. */
export function codeAddress(random: Random): number {
  return CODE_PAGE + 0x100 + random.below(0x200);
}

/** Registers to begin with; RSP is in the middle of the window. */
export function randomRegisters(
  random: Random,
  bits: 32 | 64,
  window: number,
  length: number,
): bigint[] {
  const registers = Array.from(
    { length: 16 },
    () => BigInt.asUintN(bits, random.value()),
  );
  registers[RSP] = BigInt(
    window + (length >> 1) + (random.once(4) ? random.below(16) : 0),
  );
  return registers;
}
