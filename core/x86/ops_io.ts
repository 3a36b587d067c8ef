/**
 * Ports: IN, OUT, INS, OUTS (SDM volume 1, chapter 19).
 *
 * @module
 */
import { commit, load16, load32, load8, writeAddress } from "./access.ts";
import { linear, segmentOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { gp0 } from "./fault.ts";
import {
  COMMIT_SIZE,
  CPL,
  EA,
  EFLAGS,
  Flag,
  MODE,
  Mode,
  R_META,
  Seg,
} from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32 } from "./operand.ts";
import {
  advanceIndex,
  countIsZero,
  decrementCount,
  index,
  indexHigh,
  repeatAgain,
  REPEATED,
} from "./repeat.ts";
import { portAllowed } from "./tasks.ts";

const RSI = 12;
const RDI = 14;

/** Raises #GP(0) unless IOPL or the I/O permission bitmap allows the port. */
function checkPort(cpu: Cpu, port: number, size: number): void {
  const i = cpu.i32;
  const mode = i[MODE]!;
  if ((mode & Mode.Protected) === 0) return;
  const iopl = (i[EFLAGS]! >>> 12) & 3;
  if (
    ((mode & Mode.V86) !== 0 || i[CPL]! > iopl) &&
    !portAllowed(cpu, port, size)
  ) gp0(cpu);
}

function input(cpu: Cpu, port: number, size: number): number {
  return cpu.host.readPort(cpu.vcpu, port, size);
}

function inPort(size: number, immediate: boolean): Handler {
  return (cpu, a, b) => {
    const port = immediate ? cpu.u8[b]! : cpu.dv.getUint16(b, true);
    checkPort(cpu, port, size);
    const value = input(cpu, port, size);
    if (size === 1) cpu.u8[a] = value;
    else if (size === 2) cpu.dv.setUint16(a, value, true);
    else put32(cpu, a, value | 0);
  };
}

function outPort(size: number, immediate: boolean): Handler {
  return (cpu, a, b) => {
    const port = immediate ? cpu.u8[a]! : cpu.dv.getUint16(a, true);
    checkPort(cpu, port, size);
    const value = size === 1
      ? cpu.u8[b]!
      : size === 2
      ? cpu.dv.getUint16(b, true)
      : cpu.dv.getUint32(b, true);
    cpu.host.writePort(cpu.vcpu, port, size, value);
  };
}

/** INS: the destination is checked before the port is read, so a fault loses nothing. */
function ins(size: number): Handler {
  return (cpu, _a, _b, pc) => {
    const repeated = (cpu.i32[pc + R_META]! & REPEATED) !== 0;
    const port = cpu.i32[4]! & 0xffff;
    checkPort(cpu, port, size);
    if (repeated && countIsZero(cpu, pc)) return;
    linear(
      cpu,
      Seg.ES,
      index(cpu, pc, RDI),
      indexHigh(cpu, pc, RDI),
      size,
      true,
    );
    const at = writeAddress(cpu, cpu.i32[EA]!, cpu.i32[EA + 1]!, size);
    const value = input(cpu, port, size);
    if (size === 1) cpu.u8[at] = value;
    else if (size === 2) cpu.dv.setUint16(at, value, true);
    else cpu.dv.setUint32(at, value, true);
    if (cpu.i32[COMMIT_SIZE] !== 0) commit(cpu);
    advanceIndex(cpu, pc, RDI, step(cpu, size));
    if (repeated) {
      decrementCount(cpu, pc);
      repeatAgain(cpu, pc);
    }
  };
}

function outs(size: number): Handler {
  return (cpu, _a, _b, pc) => {
    const repeated = (cpu.i32[pc + R_META]! & REPEATED) !== 0;
    const port = cpu.i32[4]! & 0xffff;
    checkPort(cpu, port, size);
    if (repeated && countIsZero(cpu, pc)) return;
    linear(
      cpu,
      segmentOf(cpu, pc),
      index(cpu, pc, RSI),
      indexHigh(cpu, pc, RSI),
      size,
      false,
    );
    const low = cpu.i32[EA]!, high = cpu.i32[EA + 1]!;
    const value = size === 1
      ? load8(cpu, low, high)
      : size === 2
      ? load16(cpu, low, high)
      : load32(cpu, low, high) >>> 0;
    cpu.host.writePort(cpu.vcpu, port, size, value);
    advanceIndex(cpu, pc, RSI, step(cpu, size));
    if (repeated) {
      decrementCount(cpu, pc);
      repeatAgain(cpu, pc);
    }
  };
}

function step(cpu: Cpu, size: number): number {
  return (cpu.i32[EFLAGS]! & Flag.DF) !== 0 ? -size : size;
}

/** The family's lines of the opcode tables. */
export const ioOps: readonly OpDef[] = [
  { code: "E4", operands: "=AL Ib", run: inPort(1, true), flags: "ends" },
  {
    code: "E5",
    operands: "=rAX Ib",
    run: { 16: inPort(2, true), 32: inPort(4, true) },
    flags: "ends",
  },
  { code: "EC", operands: "=AL DX", run: inPort(1, false), flags: "ends" },
  {
    code: "ED",
    operands: "=rAX DX",
    run: { 16: inPort(2, false), 32: inPort(4, false) },
    flags: "ends",
  },
  { code: "E6", operands: "Ib AL", run: outPort(1, true), flags: "ends" },
  {
    code: "E7",
    operands: "Ib rAX",
    run: { 16: outPort(2, true), 32: outPort(4, true) },
    flags: "ends",
  },
  { code: "EE", operands: "DX AL", run: outPort(1, false), flags: "ends" },
  {
    code: "EF",
    operands: "DX rAX",
    run: { 16: outPort(2, false), 32: outPort(4, false) },
    flags: "ends",
  },
  { code: "6C", run: ins(1), flags: "ends" },
  { code: "6D", run: { 16: ins(2), 32: ins(4) }, flags: "ends" },
  { code: "6E", run: outs(1), flags: "ends" },
  { code: "6F", run: { 16: outs(2), 32: outs(4) }, flags: "ends" },
];
