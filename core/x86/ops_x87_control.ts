/**
 * x87 instructions that control it: control and status word, environment, stack (SDM volume 2; APM volume 5).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { fault, Vector } from "./fault.ts";
import { CR0, FCW, FSW } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { Cr } from "./paging.ts";
import {
  begin,
  checkAvailable,
  checkPending,
  free,
  initialize,
  pop,
  settle,
  source,
  summarize,
  turn,
} from "./x87.ts";
import {
  CONTROL_BITS,
  fldenv,
  fnsave,
  fnstenv,
  frstor,
} from "./x87_environment.ts";
import {
  fixed,
  keepC1,
  memory,
  number,
  put,
  register,
  target,
} from "./x87_operand.ts";

function fldcw(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  const value = cpu.dv.getUint16(source(cpu, pc, 2), true);
  cpu.i32[FCW] = (value & CONTROL_BITS) | 0x40;
  summarize(cpu);
}

/** FNSTCW and FNSTSW. */
function storeWord(word: number): Handler {
  return (cpu, _a, _b, pc) => {
    checkAvailable(cpu);
    put(cpu, target(cpu, pc, 2), 2, BigInt(cpu.i32[word]!));
  };
}

function fnstswAx(cpu: Cpu): void {
  checkAvailable(cpu);
  cpu.dv.setUint16(0, cpu.i32[FSW]!, true);
}

function fninit(cpu: Cpu): void {
  checkAvailable(cpu);
  initialize(cpu);
}

function fnclex(cpu: Cpu): void {
  checkAvailable(cpu);
  cpu.i32[FSW] = cpu.i32[FSW]! & 0x7f00;
}

function fnop(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  keepC1(cpu);
  settle(cpu, pc);
}

function ffree(pops: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    settle(cpu, pc);
    free(cpu, number(cpu, pc));
    if (pops) pop(cpu);
  };
}

/** FDECSTP and FINCSTP. */
function turnStack(by: number): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    settle(cpu, pc);
    turn(cpu, by);
  };
}

function wait(cpu: Cpu): void {
  const both = Cr.MP | Cr.TS;
  if ((cpu.i32[CR0]! & both) === both) fault(cpu, Vector.NM);
  checkPending(cpu);
}

/** By operand size: 16 bits, or 32 also in 64-bit mode. */
function sized(make: (size: number) => Handler): OpDef["run"] {
  return { 16: make(2), 32: make(4) };
}

/** The family's lines of the opcode tables. */
export const x87ControlOps: readonly OpDef[] = [
  { code: "9B", run: wait },
  memory("D9 /4", sized(fldenv)),
  memory("D9 /5", fldcw),
  memory("D9 /6", sized(fnstenv)),
  memory("D9 /7", storeWord(FCW)),
  fixed("D9 D0", fnop),
  fixed("D9 F6", turnStack(-1)),
  fixed("D9 F7", turnStack(1)),
  // FNENI and FNDISI of the 8087 and FNSETPM of the 287 do nothing.
  fixed("DB E0", checkAvailable),
  fixed("DB E1", checkAvailable),
  fixed("DB E2", fnclex),
  fixed("DB E3", fninit),
  fixed("DB E4", checkAvailable),
  memory("DD /4", sized(frstor)),
  memory("DD /6", sized(fnsave)),
  memory("DD /7", storeWord(FSW)),
  register("DD /0", ffree(false)),
  register("DF /0", ffree(true)),
  fixed("DF E0", fnstswAx),
];
