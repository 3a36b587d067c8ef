/**
 * VEX encodings of what SSE has already: the same handlers work on each 128 bits, with the second source copied
 * to where they expect the first operand, and what lies above the result becomes 0 (SDM volume 1,
 * chapter 14). Results stay in {@linkcode VEX_B} until nothing can fault any more.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { R_IMM, VEC_B, VEX_B } from "./layout.ts";
import type { Action, Handler, OpDef } from "./opcode.ts";
import { copy } from "./simd.ts";
import { hold, release } from "./simd_float.ts";

/** Bytes from an XMM register to the upper half of its YMM register. */
const UPPER = 256;

/** Where the upper 128 bits of an operand are. */
export function upperOf(b: number): number {
  return b >= VEC_B && b < VEC_B + UPPER ? b + UPPER : b + 16;
}

/** Address of the register that VEX.vvvv names. */
export function sourceOf(cpu: Cpu, pc: number): number {
  return cpu.i32[pc + R_IMM + 1]!;
}

/** Clears the upper half of a register. */
export function clearUpper(cpu: Cpu, a: number): void {
  for (let at = UPPER; at < UPPER + 16; at += 4) {
    cpu.dv.setInt32(a + at, 0, true);
  }
}

/** Moves a result from {@linkcode VEX_B} to a register. */
export function put(cpu: Cpu, a: number, wide: boolean): void {
  copy(cpu, a, VEX_B, 16);
  if (wide) copy(cpu, a + UPPER, VEX_B + 16, 16);
  else clearUpper(cpu, a);
}

/** a = run on (vvvv, b), of 128 bits or less. */
export function three(run: Handler): Handler {
  return (cpu, a, b, pc) => {
    copy(cpu, VEX_B, sourceOf(cpu, pc), 16);
    run(cpu, VEX_B, b, pc);
    put(cpu, a, false);
  };
}

/** a = run on b, of 128 bits or less. */
export function two(run: Handler): Handler {
  return (cpu, a, b, pc) => {
    run(cpu, VEX_B, b, pc);
    put(cpu, a, false);
  };
}

/** The upper part of an operand, and of an immediate: the bits by which it is shifted. */
interface Wide {
  /** 0 where both halves use the same bits of the immediate. */
  readonly shift: number;
  /** Whether b is one operand of 128 bits for both halves: the count of a shift. */
  readonly shared: boolean;
}

const SAME: Wide = { shift: 0, shared: false };

function bothHalves(
  cpu: Cpu,
  run: Handler,
  b: number,
  pc: number,
  { shift, shared }: Wide,
): void {
  const i = cpu.i32;
  const imm = i[pc + R_IMM]!;
  hold();
  run(cpu, VEX_B, b, pc);
  i[pc + R_IMM] = imm >>> shift;
  run(cpu, VEX_B + 16, shared ? b : upperOf(b), pc);
  i[pc + R_IMM] = imm;
  release(cpu);
}

/** As {@linkcode three}, of 256 bits. */
export function threeWide(run: Handler, wide: Wide = SAME): Handler {
  return (cpu, a, b, pc) => {
    const source = sourceOf(cpu, pc);
    copy(cpu, VEX_B, source, 16);
    copy(cpu, VEX_B + 16, source + UPPER, 16);
    bothHalves(cpu, run, b, pc, wide);
    put(cpu, a, true);
  };
}

/** As {@linkcode two}, of 256 bits. */
export function twoWide(run: Handler, wide: Wide = SAME): Handler {
  return (cpu, a, b, pc) => {
    bothHalves(cpu, run, b, pc, wide);
    put(cpu, a, true);
  };
}

/** Of the form `+Ux Ib`, where VEX.vvvv is the result and `a` the source. */
function shiftedBy(run: Handler, wide: boolean): Handler {
  return (cpu, a, b, pc) => {
    copy(cpu, VEX_B, a, 16);
    run(cpu, VEX_B, b, pc);
    if (wide) {
      copy(cpu, VEX_B + 16, a + UPPER, 16);
      run(cpu, VEX_B + 16, b, pc);
    }
    put(cpu, sourceOf(cpu, pc), wide);
  };
}

/** The opcode column of a VEX form: `66 0F 38 00` becomes `VEX.66.L1 0F38 00`. */
export function vexCode(code: string, l: "" | ".L0" | ".L1"): string {
  const [prefix, ...rest] = code.split(" ");
  const escape = rest[1] === "38" || rest[1] === "3A" ? `0F${rest[1]}` : "0F";
  const opcode = rest.slice(escape === "0F" ? 1 : 2).join(" ");
  return `VEX.${prefix}${l} ${escape} ${opcode}`;
}

/** Applies a wrapper to a handler, or to those for each operand size. */
export function wrap(
  run: OpDef["run"],
  wrapper: (run: Handler) => Handler,
): OpDef["run"] {
  const one = (action: Action): Handler => wrapper(action as Handler);
  if (typeof run !== "object") return one(run);
  const narrow = one(run[32]);
  return { 16: narrow, 32: narrow, 64: one(run[64]!) };
}

/** How the upper halves of instructions differ, by code: bits of the immediate, or a shared operand. */
const DIFFERENT: Readonly<Record<string, Wide>> = {
  "66 0F C6": { shift: 2, shared: false },
  "66 0F 3A 0C": { shift: 4, shared: false },
  "66 0F 3A 0D": { shift: 2, shared: false },
  "66 0F 3A 42": { shift: 3, shared: false },
  ...Object.fromEntries(
    ["D1", "D2", "D3", "E1", "E2", "F1", "F2", "F3"].map((opcode) => [
      `66 0F ${opcode}`,
      { shift: 0, shared: true },
    ]),
  ),
};

/** Instructions that have no form of 256 bits, or one that is no pair of narrow ones. */
const NARROW: ReadonlySet<string> = new Set([
  "66 0F 3A 40",
  "66 0F 3A 41",
  "66 0F 38 41",
  "66 0F 38 DB",
  "66 0F 38 DC",
  "66 0F 38 DD",
  "66 0F 38 DE",
  "66 0F 38 DF",
  "66 0F 3A DF",
  "66 0F 3A 44",
  "66 0F 5A",
  "66 0F E6",
  "F2 0F E6",
]);

/** Instructions that have no VEX form: blends by XMM0. */
const LEGACY: ReadonlySet<string> = new Set([
  "66 0F 38 10",
  "66 0F 38 14",
  "66 0F 38 15",
]);

/**
 * The VEX forms of a legacy line whose operands say all about them: two whole registers, or a scalar and a
 * register. Of others, none.
 */
export function vexForms({ code, operands = "", run }: OpDef): OpDef[] {
  if (LEGACY.has(code)) return [];
  const [first, second, ...rest] = operands.split(" ").filter(Boolean);
  const more = rest.join(" ");
  const handler = run as Handler;
  const line = (
    l: "" | ".L0" | ".L1",
    operands: string,
    run: OpDef["run"],
  ): OpDef => ({ code: vexCode(code, l), operands, run });
  switch (`${first} ${second}`) {
    case "+Vx Wx": {
      const narrow = line(".L0", `=Vx Wdq ${more} Hx`, three(handler));
      if (NARROW.has(code)) return [narrow];
      const wide = DIFFERENT[code];
      const memory = wide?.shared ? "Wdq" : "Wqq";
      return [
        narrow,
        line(".L1", `=Vx ${memory} ${more} Hx`, threeWide(handler, wide)),
      ];
    }
    case "=Vx Wx": {
      const narrow = line(".L0", `=Vx Wdq ${more}`, two(handler));
      if (NARROW.has(code)) return [narrow];
      return [narrow, line(".L1", `=Vx Wqq ${more}`, twoWide(handler))];
    }
    case "+Vx Wd":
    case "+Vx Wq":
    case "+Vx Ey":
      return [line("", `=Vx ${second} ${more} Hx`, wrap(run, three))];
    case "=Gy Wd":
    case "=Gy Wq":
    case "Vx Wd":
    case "Vx Wq":
      return [line("", operands, run)];
    case "+Ux Ib":
      return [
        line(".L0", "Ux Ib Hx", shiftedBy(handler, false)),
        line(".L1", "Ux Ib Hx", shiftedBy(handler, true)),
      ];
    default:
      return [];
  }
}

/**
 * The VEX form of 128 bits of a legacy line: a register that it writes in part takes the rest from VEX.vvvv.
 * Of lines with MMX registers, none.
 */
export function narrowForm(
  { code, operands = "", run, flags = "" }: OpDef,
  l: "" | ".L0" = ".L0",
): OpDef[] {
  if (/[PQN]/.test(operands)) return [];
  const form = { code: vexCode(code, l), flags: flags.replace("sse", "avx") };
  if (/^=[VU]/.test(operands)) {
    return [{ ...form, operands, run: wrap(run, two) }];
  }
  if (/^\+[VU]/.test(operands)) {
    const changed = `=${operands.slice(1)} Hx`;
    return [{ ...form, operands: changed, run: wrap(run, three) }];
  }
  return [{ ...form, operands, run }];
}
