/**
 * What a case is: a few bytes of user-mode machine code, the registers and the memory that
 * it starts with, and how it ends. The same cases run on a processor (native.c) and on the
 * interpreter (interpreted.ts).
 *
 * @module
 */

/** Page of the snippet; the rest of it is INT3. */
export const CODE_PAGE = 0x8000;
/** Two mapped pages for operands and the stack; their neighbours are not mapped. */
export const WINDOW_PAGES = 0xd000;
/** The first address after them. */
export const WINDOW_END = 0xf000;
/** Number of RSP among the registers. */
export const RSP = 4;
/** The first address that cases have nothing at. */
const CASES_END = 0x1_0000n;
/** Flags that cases compare: CF, PF, AF, ZF, SF, DF, OF. */
export const FLAGS = 0xcd5;

/** Of a page fault's error code: the page was there. */
const PRESENT = 1;

/** A snippet and where it starts from. */
export interface Case {
  /** 64-bit mode, or 32-bit code in compatibility mode. */
  readonly bits: 32 | 64;
  /** Where the code lies in {@linkcode CODE_PAGE}. */
  readonly at: number;
  /** At most 96 bytes. */
  readonly code: Uint8Array;
  /** EFLAGS. */
  readonly flags: number;
  /** In the order of encodings: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15. */
  readonly registers: bigint[];
  /** Where the compared bytes of memory begin. */
  readonly window: number;
  /** What they are at first; a multiple of 8. All others are 0. */
  readonly bytes: Uint8Array;
  /** x87 state: the first {@linkcode STATE_X87} bytes of an XSAVE area with 64-bit pointers. */
  readonly state?: Uint8Array;
}

/**
 * An outcome without what depends on more than the instruction: which pages there are above the cases' own; and of CMPS
 * with both operands in one missing page, which of them Zen reports (the second; else the first).
 */
export function comparable(test: Case, outcome: Outcome): Outcome {
  const { vector, cr2, rip } = outcome;
  if (vector !== 14) return outcome;
  const at = Number(rip) - test.at;
  const code = test.code.subarray(at).find((byte) => !PREFIXES.includes(byte));
  return {
    ...outcome,
    error: cr2 < CASES_END ? outcome.error : outcome.error & ~PRESENT,
    cr2: code === 0xa6 || code === 0xa7 ? cr2 & ~0xfffn : cr2,
  };
}

const PREFIXES = [0x26, 0x3e, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x40, 0x48];

/** Bytes of an XSAVE area up to the end of x87 state. */
export const STATE_X87 = 160;

/** How a snippet ended. */
export interface Outcome {
  /** Exception vector; 3 is the INT3 behind the snippet. */
  readonly vector: number;
  /** Error code, 0 if there is none. */
  readonly error: number;
  /** CR2 of a page fault, else 0. */
  readonly cr2: bigint;
  /** Instruction pointer that the exception saved. */
  readonly rip: bigint;
  /** Of EFLAGS those in {@linkcode FLAGS}. */
  readonly flags: number;
  /** As in {@linkcode Case}; 32-bit code has eight, of 32 bits. */
  readonly registers: bigint[];
  /** The window. */
  readonly bytes: Uint8Array;
  /** As in {@linkcode Case}. */
  readonly state?: Uint8Array;
}

/** Only these exceptions have an error code here. */
export function hasError(vector: number): boolean {
  return vector >= 10 && vector <= 14 || vector === 17;
}

/** The register as the case's mode shows it. */
export function visible(test: Case, registers: readonly bigint[]): bigint[] {
  return test.bits === 64
    ? [...registers]
    : registers.slice(0, 8).map((value) => BigInt.asUintN(32, value));
}

/** As in native.c. */
const CODE_MAX = 96;
const REGISTERS_AT = 16 + CODE_MAX;
const STATE_LENGTH_AT = REGISTERS_AT + 128;
const REQUEST = STATE_LENGTH_AT + 8;
const RESPONSE = 32 + 128;
const NO_STATE = new Uint8Array();

/** Cases in the form that native.c reads. */
export function encodeRequests(cases: readonly Case[]): Uint8Array {
  const size = cases.reduce(
    (sum, x) => sum + REQUEST + x.bytes.length + (x.state?.length ?? 0),
    0,
  );
  const out = new Uint8Array(size);
  const view = new DataView(out.buffer);
  let at = 0;
  for (const test of cases) {
    out[at] = test.bits;
    out[at + 1] = test.code.length;
    view.setUint16(at + 2, test.bytes.length, true);
    view.setUint32(at + 4, test.window, true);
    view.setUint32(at + 8, test.flags, true);
    view.setUint32(at + 12, test.at, true);
    out.set(test.code, at + 16);
    test.registers.forEach((value, n) =>
      view.setBigUint64(at + REGISTERS_AT + 8 * n, value, true)
    );
    const state = test.state ?? NO_STATE;
    view.setUint32(at + STATE_LENGTH_AT, state.length, true);
    out.set(test.bytes, at + REQUEST);
    out.set(state, at + REQUEST + test.bytes.length);
    at += REQUEST + test.bytes.length + state.length;
  }
  return out;
}

/**
 * What native.c wrote for the cases.
 *
 * @throws {RangeError} If it is not of their number.
 */
export function decodeResponses(
  cases: readonly Case[],
  data: Uint8Array,
): Outcome[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let at = 0;
  const outcomes = cases.map((test): Outcome => {
    const vector = view.getUint32(at, true);
    const registers = Array.from(
      { length: 16 },
      (_, n) => view.getBigUint64(at + 32 + 8 * n, true),
    );
    const state = at + RESPONSE + test.bytes.length;
    const end = state + (test.state?.length ?? 0);
    const outcome = {
      vector,
      error: hasError(vector) ? view.getUint32(at + 4, true) : 0,
      cr2: vector === 14 ? view.getBigUint64(at + 8, true) : 0n,
      rip: view.getBigUint64(at + 16, true),
      flags: view.getUint32(at + 24, true) & FLAGS,
      registers: visible(test, registers),
      bytes: data.slice(at + RESPONSE, state),
      state: data.slice(state, end),
    };
    at = end;
    return outcome;
  });
  if (at !== data.length) {
    throw new RangeError(`Cannot decode outcomes: ${data.length} bytes`);
  }
  return outcomes;
}
