/**
 * The loop that executes decoded instructions. It is one function on purpose: V8
 * keeps its locals in registers, and everything frequent is in its switch. What
 * is rare is a call away, so that the function stays below the size that V8 is
 * willing to optimize.
 *
 * The cases are literal numbers, with their names beside them: only of such does V8 make a jump table, and a
 * chain of comparisons takes twice the time.
 *
 * Registers and guest RAM share one linear memory, so an operand is a byte
 * address in it, and most instructions need not know which of the two it is.
 *
 * @module
 */
import { commit, readAddress, writeAddress } from "./access.ts";
import { canonicalRun, linearOf, segmentFault, segmentOf } from "./address.ts";
import type { Blocks } from "./blocks.ts";
import type { Cpu } from "./cpu.ts";
import { FAULT, gp0 } from "./fault.ts";
import { carry, condition } from "./flags.ts";
import {
  flagsOfAdc32,
  flagsOfAdc64,
  flagsOfSbb32,
  flagsOfSbb64,
} from "./adc.ts";
import { Hot } from "./hot.ts";
import { afterSingle, beforeSingle, raise, takeEvents } from "./interrupts.ts";
import {
  BLOCK_RIP,
  Cc,
  CC_A,
  CC_B,
  CC_OP,
  CC_R,
  CODE_GEN,
  COMMIT_SIZE,
  EA,
  EFLAGS,
  Event,
  EVENTS,
  Flag,
  GPR_END_B,
  HIGH,
  Mem,
  MemKind,
  Meta,
  MODE,
  Mode,
  R_A,
  R_B,
  R_DISP,
  R_IMM,
  R_MEM,
  R_META,
  R_OP,
  REC_WORDS,
  RIP,
  SHADOW,
  TLB_ENTRIES,
  TLB_GEN,
  TLB_R,
  TLB_W,
} from "./layout.ts";
import { offsetOf } from "./address.ts";
import type { Handler } from "./opcode.ts";
import { nearReturn } from "./ops_near.ts";
import { canonical } from "./paging.ts";
import { pop, push, RSP } from "./stack.ts";

/** Translates the memory operand of a decoded instruction the slow way. */
function operandAddress(
  cpu: Cpu,
  pc: number,
  low: number,
  high: number,
): number {
  const meta = cpu.i32[pc + R_META]!;
  const size = ((meta >>> Meta.SizeShift) & Meta.SizeMask) + 1;
  if (
    (cpu.i32[MODE]! & Mode.Long) !== 0
      ? !canonicalRun(low, high, size)
      // A flat segment ends at 4 GiB; others have been looked at, and their bases moved the address.
      : isFlat(cpu, pc) && (low >>> 0) + size > 0x1_0000_0000
  ) segmentFault(cpu, segmentOf(cpu, pc));
  if ((meta & Meta.Aligned) !== 0 && (low & (size - 1)) !== 0) gp0(cpu);
  return (meta & Meta.Write) !== 0
    ? writeAddress(cpu, low, high, size, (meta & Meta.Modify) !== 0)
    : readAddress(cpu, low, high, size);
}

function isFlat(cpu: Cpu, pc: number): boolean {
  const kind = (cpu.i32[pc + R_MEM]! >>> Mem.KindShift) & Mem.KindMask;
  return kind === MemKind.Flat32;
}

/** Sets RIP to `offset` bytes after the start of the block. */
function setRip(i: Int32Array, offset: number): void {
  const start = i[BLOCK_RIP]!;
  const low = (start + offset) | 0;
  i[RIP] = low;
  i[RIP + 1] = (i[MODE]! & Mode.Long) === 0
    ? 0
    : (i[BLOCK_RIP + 1]! + (offset >> 31) +
      ((low >>> 0) < (start >>> 0) ? 1 : 0)) | 0;
}

/**
 * Executes until about `budget` instructions are done or an event says to leave.
 *
 * @returns The instructions executed.
 */
export function execute(
  cpu: Cpu,
  blocks: Blocks,
  handlers: readonly Handler[],
  budget: number,
): number {
  const i = cpu.i32;
  const u8 = cpu.u8;
  const dv = cpu.dv;
  let left = budget | 0;
  let pc = 0;
  /** First record of the block, or 0 between blocks. */
  let start = 0;
  /** The branch that waits to be linked to the next block. */
  let link = 0;
  let linkGeneration = 0;

  for (;;) {
    try {
      outer: for (;;) {
        start = 0;
        left = (left - cpu.spent) | 0;
        cpu.spent = 0;
        if (i[EVENTS] !== 0) {
          if (takeEvents(cpu)) return budget - left;
          link = 0;
        }
        if (left <= 0) return budget - left;
        const single = (i[MODE]! & Mode.Single) !== 0;
        if (single) {
          beforeSingle(cpu);
          link = 0;
        }
        const trap = single && (i[EFLAGS]! & Flag.TF) !== 0;
        const shadowed = single && i[SHADOW] !== 0;
        if ((i[EVENTS]! & Event.Stopped) !== 0) continue;
        pc = blocks.find();
        if (link !== 0) {
          if (blocks.linkable && i[CODE_GEN] === linkGeneration) {
            i[link + R_MEM] = pc;
            i[link + R_DISP] = linkGeneration;
          }
          link = 0;
        }
        i[BLOCK_RIP] = i[RIP]!;
        i[BLOCK_RIP + 1] = i[RIP + 1]!;
        start = pc;

        for (;;) {
          const meta = i[pc + R_META]!;
          let a = i[pc + R_A]!;
          let b = i[pc + R_B]!;
          /** The operand is not plain RAM: something is left to do after the switch. */
          let special = false;
          if ((meta & Meta.Memory) !== 0) {
            const mem = i[pc + R_MEM]!;
            const kind = (mem >>> Mem.KindShift) & Mem.KindMask;
            let low = 0, high = 0;
            if (kind <= MemKind.Index64) {
              const disp = i[pc + R_DISP]!;
              const base = mem & Mem.BaseMask;
              low = (disp + i[base]!) | 0;
              high = ((disp >> 31) + i[base + 1]! +
                ((low >>> 0) < (disp >>> 0) ? 1 : 0)) | 0;
              if (kind === MemKind.Index64) {
                const index = (mem >>> Mem.IndexShift) & Mem.BaseMask;
                const scale = (mem >>> Mem.ScaleShift) & 3;
                const x = i[index]!;
                const scaled = x << scale;
                low = (low + scaled) | 0;
                high = (high + (i[index + 1]! << scale) +
                  ((x >>> 1) >>> (31 - scale)) +
                  ((low >>> 0) < (scaled >>> 0) ? 1 : 0)) | 0;
              }
            } else if (kind === MemKind.Flat32) {
              low = (i[pc + R_DISP]! + i[mem & Mem.BaseMask]! +
                (i[(mem >>> Mem.IndexShift) & Mem.BaseMask]! <<
                  ((mem >>> Mem.ScaleShift) & 3))) | 0;
            } else {
              linearOf(
                cpu,
                pc,
                ((meta >>> Meta.SizeShift) & Meta.SizeMask) + 1,
                (meta & Meta.Write) !== 0,
              );
              low = i[EA]!;
              high = i[EA + 1]!;
            }
            const at = i[(meta & Meta.Write) !== 0 ? TLB_W : TLB_R]! +
              (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
            let host: number;
            if (
              i[at] === ((low & -4096) | i[TLB_GEN]!) &&
              i[at + 1] === high &&
              (low & 4095) + ((meta >>> Meta.SizeShift) & Meta.SizeMask) < 4096
            ) host = (low + i[at + 2]!) | 0;
            else {
              host = operandAddress(cpu, pc, low, high);
              special = true;
            }
            if ((meta & Meta.MemoryIsA) !== 0) a = host;
            else b = host;
          }

          let taken = true;
          normal: {
            switch (i[pc + R_OP]) {
              // Of 8 bits. Operands are sign-extended so that the flags of 32 bits serve.
              case 0 /* Hot.ADD */: {
                const x = dv.getInt8(a), y = dv.getInt8(b);
                const r = ((x + y) << 24) >> 24;
                u8[a] = r;
                i[CC_OP] = Cc.Add32;
                i[CC_A] = x;
                i[CC_B] = y;
                i[CC_R] = r;
                break normal;
              }
              case 4 /* Hot.OR */: {
                const r = dv.getInt8(a) | dv.getInt8(b);
                u8[a] = r;
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 8 /* Hot.ADC */: {
                const x = dv.getInt8(a), y = dv.getInt8(b);
                const r = ((x + y + carry(cpu)) << 24) >> 24;
                flagsOfAdc32(cpu, x, y, r);
                u8[a] = r;
                break normal;
              }
              case 12 /* Hot.SBB */: {
                const x = dv.getInt8(a), y = dv.getInt8(b);
                const r = ((x - y - carry(cpu)) << 24) >> 24;
                flagsOfSbb32(cpu, x, y, r);
                u8[a] = r;
                break normal;
              }
              case 16 /* Hot.AND */: {
                const r = dv.getInt8(a) & dv.getInt8(b);
                u8[a] = r;
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 20 /* Hot.SUB */:
              case 28 /* Hot.CMP */: {
                const x = dv.getInt8(a), y = dv.getInt8(b);
                const r = ((x - y) << 24) >> 24;
                if (i[pc + R_OP] === Hot.SUB) u8[a] = r;
                i[CC_OP] = Cc.Sub32;
                i[CC_A] = x;
                i[CC_B] = y;
                i[CC_R] = r;
                break normal;
              }
              case 24 /* Hot.XOR */: {
                const r = dv.getInt8(a) ^ dv.getInt8(b);
                u8[a] = r;
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 32 /* Hot.TEST */:
                i[CC_R] = dv.getInt8(a) & dv.getInt8(b);
                i[CC_OP] = Cc.Logic32;
                break normal;
              case 36 /* Hot.MOV */:
                u8[a] = u8[b]!;
                break normal;
              case 40 /* Hot.INC */: {
                const c = carry(cpu);
                const x = dv.getInt8(a);
                const r = ((x + 1) << 24) >> 24;
                u8[a] = r;
                i[CC_OP] = Cc.Inc32;
                i[CC_A] = x;
                i[CC_B] = c;
                i[CC_R] = r;
                break normal;
              }
              case 44 /* Hot.DEC */: {
                const c = carry(cpu);
                const x = dv.getInt8(a);
                const r = ((x - 1) << 24) >> 24;
                u8[a] = r;
                i[CC_OP] = Cc.Dec32;
                i[CC_A] = x;
                i[CC_B] = c;
                i[CC_R] = r;
                break normal;
              }
              case 48 /* Hot.NOT */:
                u8[a] = ~u8[a]!;
                break normal;
              case 52 /* Hot.NEG */: {
                const x = dv.getInt8(a);
                const r = ((-x) << 24) >> 24;
                u8[a] = r;
                i[CC_OP] = Cc.Sub32;
                i[CC_A] = 0;
                i[CC_B] = x;
                i[CC_R] = r;
                break normal;
              }
              case 56 /* Hot.XCHG */: {
                const x = u8[a]!;
                u8[a] = u8[b]!;
                u8[b] = x;
                break normal;
              }

              // Of 16 bits.
              case 1 /* Hot.ADD + 1 */: {
                const x = dv.getInt16(a, true), y = dv.getInt16(b, true);
                const r = ((x + y) << 16) >> 16;
                dv.setInt16(a, r, true);
                i[CC_OP] = Cc.Add32;
                i[CC_A] = x;
                i[CC_B] = y;
                i[CC_R] = r;
                break normal;
              }
              case 5 /* Hot.OR + 1 */: {
                const r = dv.getInt16(a, true) | dv.getInt16(b, true);
                dv.setInt16(a, r, true);
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 9 /* Hot.ADC + 1 */: {
                const x = dv.getInt16(a, true), y = dv.getInt16(b, true);
                const r = ((x + y + carry(cpu)) << 16) >> 16;
                flagsOfAdc32(cpu, x, y, r);
                dv.setInt16(a, r, true);
                break normal;
              }
              case 13 /* Hot.SBB + 1 */: {
                const x = dv.getInt16(a, true), y = dv.getInt16(b, true);
                const r = ((x - y - carry(cpu)) << 16) >> 16;
                flagsOfSbb32(cpu, x, y, r);
                dv.setInt16(a, r, true);
                break normal;
              }
              case 17 /* Hot.AND + 1 */: {
                const r = dv.getInt16(a, true) & dv.getInt16(b, true);
                dv.setInt16(a, r, true);
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 21 /* Hot.SUB + 1 */:
              case 29 /* Hot.CMP + 1 */: {
                const x = dv.getInt16(a, true), y = dv.getInt16(b, true);
                const r = ((x - y) << 16) >> 16;
                if (i[pc + R_OP] === Hot.SUB + 1) dv.setInt16(a, r, true);
                i[CC_OP] = Cc.Sub32;
                i[CC_A] = x;
                i[CC_B] = y;
                i[CC_R] = r;
                break normal;
              }
              case 25 /* Hot.XOR + 1 */: {
                const r = dv.getInt16(a, true) ^ dv.getInt16(b, true);
                dv.setInt16(a, r, true);
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 33 /* Hot.TEST + 1 */:
                i[CC_R] = dv.getInt16(a, true) & dv.getInt16(b, true);
                i[CC_OP] = Cc.Logic32;
                break normal;
              case 37 /* Hot.MOV + 1 */:
                dv.setInt16(a, dv.getInt16(b, true), true);
                break normal;
              case 41 /* Hot.INC + 1 */: {
                const c = carry(cpu);
                const x = dv.getInt16(a, true);
                const r = ((x + 1) << 16) >> 16;
                dv.setInt16(a, r, true);
                i[CC_OP] = Cc.Inc32;
                i[CC_A] = x;
                i[CC_B] = c;
                i[CC_R] = r;
                break normal;
              }
              case 45 /* Hot.DEC + 1 */: {
                const c = carry(cpu);
                const x = dv.getInt16(a, true);
                const r = ((x - 1) << 16) >> 16;
                dv.setInt16(a, r, true);
                i[CC_OP] = Cc.Dec32;
                i[CC_A] = x;
                i[CC_B] = c;
                i[CC_R] = r;
                break normal;
              }
              case 49 /* Hot.NOT + 1 */:
                dv.setInt16(a, ~dv.getInt16(a, true), true);
                break normal;
              case 53 /* Hot.NEG + 1 */: {
                const x = dv.getInt16(a, true);
                const r = ((-x) << 16) >> 16;
                dv.setInt16(a, r, true);
                i[CC_OP] = Cc.Sub32;
                i[CC_A] = 0;
                i[CC_B] = x;
                i[CC_R] = r;
                break normal;
              }
              case 57 /* Hot.XCHG + 1 */: {
                const x = dv.getInt16(a, true);
                dv.setInt16(a, dv.getInt16(b, true), true);
                dv.setInt16(b, x, true);
                break normal;
              }

              // Of 32 bits. A register's upper half becomes 0.
              case 2 /* Hot.ADD + 2 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                const r = (x + y) | 0;
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[CC_OP] = Cc.Add32;
                i[CC_A] = x;
                i[CC_B] = y;
                i[CC_R] = r;
                break normal;
              }
              case 6 /* Hot.OR + 2 */: {
                const r = dv.getInt32(a, true) | dv.getInt32(b, true);
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 10 /* Hot.ADC + 2 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                const r = (x + y + carry(cpu)) | 0;
                flagsOfAdc32(cpu, x, y, r);
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                break normal;
              }
              case 14 /* Hot.SBB + 2 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                const r = (x - y - carry(cpu)) | 0;
                flagsOfSbb32(cpu, x, y, r);
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                break normal;
              }
              case 18 /* Hot.AND + 2 */: {
                const r = dv.getInt32(a, true) & dv.getInt32(b, true);
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 22 /* Hot.SUB + 2 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                const r = (x - y) | 0;
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[CC_OP] = Cc.Sub32;
                i[CC_A] = x;
                i[CC_B] = y;
                i[CC_R] = r;
                break normal;
              }
              case 26 /* Hot.XOR + 2 */: {
                const r = dv.getInt32(a, true) ^ dv.getInt32(b, true);
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[CC_OP] = Cc.Logic32;
                i[CC_R] = r;
                break normal;
              }
              case 30 /* Hot.CMP + 2 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                i[CC_OP] = Cc.Sub32;
                i[CC_A] = x;
                i[CC_B] = y;
                i[CC_R] = (x - y) | 0;
                break normal;
              }
              case 34 /* Hot.TEST + 2 */:
                i[CC_R] = dv.getInt32(a, true) & dv.getInt32(b, true);
                i[CC_OP] = Cc.Logic32;
                break normal;
              case 38 /* Hot.MOV + 2 */:
                dv.setInt32(a, dv.getInt32(b, true), true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                break normal;
              case 42 /* Hot.INC + 2 */: {
                const c = carry(cpu);
                const x = dv.getInt32(a, true);
                const r = (x + 1) | 0;
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[CC_OP] = Cc.Inc32;
                i[CC_A] = x;
                i[CC_B] = c;
                i[CC_R] = r;
                break normal;
              }
              case 46 /* Hot.DEC + 2 */: {
                const c = carry(cpu);
                const x = dv.getInt32(a, true);
                const r = (x - 1) | 0;
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[CC_OP] = Cc.Dec32;
                i[CC_A] = x;
                i[CC_B] = c;
                i[CC_R] = r;
                break normal;
              }
              case 50 /* Hot.NOT + 2 */:
                dv.setInt32(a, ~dv.getInt32(a, true), true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                break normal;
              case 54 /* Hot.NEG + 2 */: {
                const x = dv.getInt32(a, true);
                const r = (0 - x) | 0;
                dv.setInt32(a, r, true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[CC_OP] = Cc.Sub32;
                i[CC_A] = 0;
                i[CC_B] = x;
                i[CC_R] = r;
                break normal;
              }
              case 58 /* Hot.XCHG + 2 */: {
                const x = dv.getInt32(a, true);
                dv.setInt32(a, dv.getInt32(b, true), true);
                if (a < GPR_END_B) i[(a >> 2) + 1] = 0;
                i[b >> 2] = x;
                i[(b >> 2) + 1] = 0;
                break normal;
              }

              // Of 64 bits.
              case 3 /* Hot.ADD + 3 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                const xh = dv.getInt32(a + 4, true);
                const yh = dv.getInt32(b + 4, true);
                const r = (x + y) | 0;
                const rh = (xh + yh + ((r >>> 0) < (x >>> 0) ? 1 : 0)) | 0;
                dv.setInt32(a, r, true);
                dv.setInt32(a + 4, rh, true);
                i[CC_OP] = Cc.Add64;
                i[CC_A] = x;
                i[CC_A + 1] = xh;
                i[CC_B] = y;
                i[CC_B + 1] = yh;
                i[CC_R] = r;
                i[CC_R + 1] = rh;
                break normal;
              }
              case 7 /* Hot.OR + 3 */: {
                const r = dv.getInt32(a, true) | dv.getInt32(b, true);
                const rh = dv.getInt32(a + 4, true) | dv.getInt32(b + 4, true);
                dv.setInt32(a, r, true);
                dv.setInt32(a + 4, rh, true);
                i[CC_OP] = Cc.Logic64;
                i[CC_R] = r;
                i[CC_R + 1] = rh;
                break normal;
              }
              case 11 /* Hot.ADC + 3 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                const xh = dv.getInt32(a + 4, true);
                const yh = dv.getInt32(b + 4, true);
                const r = flagsOfAdc64(cpu, x, xh, y, yh);
                const rh = i[HIGH]!;
                dv.setInt32(a, r, true);
                dv.setInt32(a + 4, rh, true);
                break normal;
              }
              case 15 /* Hot.SBB + 3 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                const xh = dv.getInt32(a + 4, true);
                const yh = dv.getInt32(b + 4, true);
                const r = flagsOfSbb64(cpu, x, xh, y, yh);
                const rh = i[HIGH]!;
                dv.setInt32(a, r, true);
                dv.setInt32(a + 4, rh, true);
                break normal;
              }
              case 19 /* Hot.AND + 3 */: {
                const r = dv.getInt32(a, true) & dv.getInt32(b, true);
                const rh = dv.getInt32(a + 4, true) & dv.getInt32(b + 4, true);
                dv.setInt32(a, r, true);
                dv.setInt32(a + 4, rh, true);
                i[CC_OP] = Cc.Logic64;
                i[CC_R] = r;
                i[CC_R + 1] = rh;
                break normal;
              }
              case 23 /* Hot.SUB + 3 */:
              case 31 /* Hot.CMP + 3 */: {
                const x = dv.getInt32(a, true), y = dv.getInt32(b, true);
                const xh = dv.getInt32(a + 4, true);
                const yh = dv.getInt32(b + 4, true);
                const r = (x - y) | 0;
                const rh = (xh - yh - ((x >>> 0) < (y >>> 0) ? 1 : 0)) | 0;
                if (i[pc + R_OP] === Hot.SUB + 3) {
                  dv.setInt32(a, r, true);
                  dv.setInt32(a + 4, rh, true);
                }
                i[CC_OP] = Cc.Sub64;
                i[CC_A] = x;
                i[CC_A + 1] = xh;
                i[CC_B] = y;
                i[CC_B + 1] = yh;
                i[CC_R] = r;
                i[CC_R + 1] = rh;
                break normal;
              }
              case 27 /* Hot.XOR + 3 */: {
                const r = dv.getInt32(a, true) ^ dv.getInt32(b, true);
                const rh = dv.getInt32(a + 4, true) ^ dv.getInt32(b + 4, true);
                dv.setInt32(a, r, true);
                dv.setInt32(a + 4, rh, true);
                i[CC_OP] = Cc.Logic64;
                i[CC_R] = r;
                i[CC_R + 1] = rh;
                break normal;
              }
              case 35 /* Hot.TEST + 3 */:
                i[CC_R] = dv.getInt32(a, true) & dv.getInt32(b, true);
                i[CC_R + 1] = dv.getInt32(a + 4, true) &
                  dv.getInt32(b + 4, true);
                i[CC_OP] = Cc.Logic64;
                break normal;
              case 39 /* Hot.MOV + 3 */: {
                const low = dv.getInt32(b, true);
                dv.setInt32(a + 4, dv.getInt32(b + 4, true), true);
                dv.setInt32(a, low, true);
                break normal;
              }
              case 43 /* Hot.INC + 3 */:
              case 47 /* Hot.DEC + 3 */: {
                const c = carry(cpu);
                const x = dv.getInt32(a, true), xh = dv.getInt32(a + 4, true);
                const up = i[pc + R_OP] === Hot.INC + 3;
                const r = (up ? x + 1 : x - 1) | 0;
                const rh =
                  (up ? xh + (r === 0 ? 1 : 0) : xh - (x === 0 ? 1 : 0)) | 0;
                dv.setInt32(a, r, true);
                dv.setInt32(a + 4, rh, true);
                i[CC_OP] = up ? Cc.Inc64 : Cc.Dec64;
                i[CC_A] = x;
                i[CC_A + 1] = xh;
                i[CC_B] = c;
                i[CC_R] = r;
                i[CC_R + 1] = rh;
                break normal;
              }
              case 51 /* Hot.NOT + 3 */:
                dv.setInt32(a, ~dv.getInt32(a, true), true);
                dv.setInt32(a + 4, ~dv.getInt32(a + 4, true), true);
                break normal;
              case 55 /* Hot.NEG + 3 */: {
                const x = dv.getInt32(a, true), xh = dv.getInt32(a + 4, true);
                const r = (0 - x) | 0;
                const rh = (0 - xh - (x !== 0 ? 1 : 0)) | 0;
                dv.setInt32(a, r, true);
                dv.setInt32(a + 4, rh, true);
                i[CC_OP] = Cc.Sub64;
                i[CC_A] = 0;
                i[CC_A + 1] = 0;
                i[CC_B] = x;
                i[CC_B + 1] = xh;
                i[CC_R] = r;
                i[CC_R + 1] = rh;
                break normal;
              }
              case 59 /* Hot.XCHG + 3 */: {
                const x = dv.getInt32(a, true), xh = dv.getInt32(a + 4, true);
                dv.setInt32(a, i[b >> 2]!, true);
                dv.setInt32(a + 4, i[(b >> 2) + 1]!, true);
                i[b >> 2] = x;
                i[(b >> 2) + 1] = xh;
                break normal;
              }

              // Moves with extension.
              case 85 /* Hot.MOVZX16_8 */:
                dv.setInt16(a, u8[b]!, true);
                break normal;
              case 86 /* Hot.MOVZX32_8 */:
                i[a >> 2] = u8[b]!;
                i[(a >> 2) + 1] = 0;
                break normal;
              case 87 /* Hot.MOVZX32_16 */:
                i[a >> 2] = dv.getUint16(b, true);
                i[(a >> 2) + 1] = 0;
                break normal;
              case 88 /* Hot.MOVSX16_8 */:
                dv.setInt16(a, dv.getInt8(b), true);
                break normal;
              case 89 /* Hot.MOVSX32_8 */:
                i[a >> 2] = dv.getInt8(b);
                i[(a >> 2) + 1] = 0;
                break normal;
              case 90 /* Hot.MOVSX32_16 */:
                i[a >> 2] = dv.getInt16(b, true);
                i[(a >> 2) + 1] = 0;
                break normal;
              case 91 /* Hot.MOVSX64_8 */: {
                const x = dv.getInt8(b);
                i[a >> 2] = x;
                i[(a >> 2) + 1] = x >> 31;
                break normal;
              }
              case 92 /* Hot.MOVSX64_16 */: {
                const x = dv.getInt16(b, true);
                i[a >> 2] = x;
                i[(a >> 2) + 1] = x >> 31;
                break normal;
              }
              case 93 /* Hot.MOVSX64_32 */: {
                const x = dv.getInt32(b, true);
                i[a >> 2] = x;
                i[(a >> 2) + 1] = x >> 31;
                break normal;
              }
              case 94 /* Hot.LEA16 */:
                dv.setInt16(a, offsetOf(cpu, pc), true);
                break normal;
              case 95 /* Hot.LEA32 */:
                i[a >> 2] = offsetOf(cpu, pc);
                i[(a >> 2) + 1] = 0;
                break normal;
              case 96 /* Hot.LEA64 */: {
                const low = offsetOf(cpu, pc);
                i[a >> 2] = low;
                i[(a >> 2) + 1] = i[HIGH]!;
                break normal;
              }
              case 97 /* Hot.SETCC */:
                u8[a] = condition(cpu, i[pc + R_IMM + 1]!) ? 1 : 0;
                break normal;
              case 98 /* Hot.CMOV16 */:
                if (condition(cpu, i[pc + R_IMM + 1]!)) {
                  dv.setInt16(a, dv.getInt16(b, true), true);
                }
                break normal;
              case 99 /* Hot.CMOV32 */:
                if (condition(cpu, i[pc + R_IMM + 1]!)) {
                  i[a >> 2] = dv.getInt32(b, true);
                }
                // Even when nothing is moved (SDM volume 2A, CMOVcc).
                i[(a >> 2) + 1] = 0;
                break normal;
              case 100 /* Hot.CMOV64 */:
                if (condition(cpu, i[pc + R_IMM + 1]!)) {
                  const low = dv.getInt32(b, true);
                  i[(a >> 2) + 1] = dv.getInt32(b + 4, true);
                  i[a >> 2] = low;
                }
                break normal;

              // The stack. The fast way is a TLB hit in flat memory.
              case 82 /* Hot.PUSH64 */: {
                const sp = i[RSP]!;
                const low = (sp - 8) | 0;
                const high = (i[RSP + 1]! - ((sp >>> 0) < 8 ? 1 : 0)) | 0;
                const at = i[TLB_W]! +
                  (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
                if (
                  i[at] === ((low & -4096) | i[TLB_GEN]!) &&
                  i[at + 1] === high && (low & 4095) <= 4088
                ) {
                  const host = (low + i[at + 2]!) | 0;
                  const value = dv.getInt32(a, true);
                  dv.setInt32(host + 4, dv.getInt32(a + 4, true), true);
                  dv.setInt32(host, value, true);
                  i[RSP] = low;
                  i[RSP + 1] = high;
                } else {
                  push(cpu, dv.getInt32(a, true), dv.getInt32(a + 4, true), 8);
                  special = true;
                }
                break normal;
              }
              case 84 /* Hot.POP64 */: {
                const low = i[RSP]!;
                const high = i[RSP + 1]!;
                const at = i[TLB_R]! +
                  (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
                if (
                  i[at] === ((low & -4096) | i[TLB_GEN]!) &&
                  i[at + 1] === high && (low & 4095) <= 4088
                ) {
                  const host = (low + i[at + 2]!) | 0;
                  const next = (low + 8) | 0;
                  i[RSP] = next;
                  i[RSP + 1] = (high + ((next >>> 0) < 8 ? 1 : 0)) | 0;
                  i[a >> 2] = dv.getInt32(host, true);
                  i[(a >> 2) + 1] = dv.getInt32(host + 4, true);
                } else {
                  i[a >> 2] = pop(cpu, 8);
                  i[(a >> 2) + 1] = i[HIGH]!;
                }
                break normal;
              }
              case 81 /* Hot.PUSH32 */: {
                const low = (i[RSP]! - 4) | 0;
                const at = i[TLB_W]! +
                  (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
                if (
                  (i[MODE]! & FLAT_STACK) === FLAT_STACK &&
                  i[at] === ((low & -4096) | i[TLB_GEN]!) &&
                  i[at + 1] === 0 && (low & 4095) <= 4092
                ) {
                  dv.setInt32(
                    (low + i[at + 2]!) | 0,
                    dv.getInt32(a, true),
                    true,
                  );
                  i[RSP] = low;
                } else {
                  push(cpu, dv.getInt32(a, true), 0, 4);
                  special = true;
                }
                break normal;
              }
              case 83 /* Hot.POP32 */: {
                const low = i[RSP]!;
                const at = i[TLB_R]! +
                  (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
                if (
                  (i[MODE]! & FLAT_STACK) === FLAT_STACK &&
                  i[at] === ((low & -4096) | i[TLB_GEN]!) &&
                  i[at + 1] === 0 && (low & 4095) <= 4092
                ) {
                  i[RSP] = (low + 4) | 0;
                  i[a >> 2] = dv.getInt32((low + i[at + 2]!) | 0, true);
                } else i[a >> 2] = pop(cpu, 4);
                break normal;
              }

              // Control transfers.
              case 80 /* Hot.RET64 */: {
                const low = i[RSP]!;
                const high = i[RSP + 1]!;
                const at = i[TLB_R]! +
                  (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
                left = (left - ((pc - start) >> 3) - 1) | 0;
                start = pc;
                if (
                  i[at] === ((low & -4096) | i[TLB_GEN]!) &&
                  i[at + 1] === high && (low & 4095) <= 4088
                ) {
                  const host = (low + i[at + 2]!) | 0;
                  const target = dv.getInt32(host + 4, true);
                  if (canonical(target)) {
                    const next = (low + 8) | 0;
                    i[RSP] = next;
                    i[RSP + 1] = (high + ((next >>> 0) < 8 ? 1 : 0)) | 0;
                    i[RIP] = dv.getInt32(host, true);
                    i[RIP + 1] = target;
                    if (single) afterSingle(cpu, trap, shadowed);
                    continue outer;
                  }
                }
                nearReturn(cpu, 8, 0);
                if (single) afterSingle(cpu, trap, shadowed);
                continue outer;
              }
              case 79 /* Hot.RET32 */:
                left = (left - ((pc - start) >> 3) - 1) | 0;
                start = pc;
                nearReturn(cpu, 4, 0);
                if (single) afterSingle(cpu, trap, shadowed);
                continue outer;
              case 78 /* Hot.CALL64 */: {
                setRip(
                  i,
                  (meta & Meta.OffsetMask) +
                    ((meta >>> Meta.LengthShift) & Meta.LengthMask),
                );
                push(cpu, i[RIP]!, i[RIP + 1]!, 8);
                break;
              }
              case 77 /* Hot.CALL32 */: {
                setRip(
                  i,
                  (meta & Meta.OffsetMask) +
                    ((meta >>> Meta.LengthShift) & Meta.LengthMask),
                );
                push(cpu, i[RIP]!, 0, 4);
                break;
              }
              case 76 /* Hot.JMP */:
                break;
              case 62 /* Hot.JCC + 2 */:
                taken = i[CC_OP] === Cc.Sub32
                  ? (i[CC_A]! >>> 0) < (i[CC_B]! >>> 0)
                  : carry(cpu) !== 0;
                break;
              case 63 /* Hot.JCC + 3 */:
                taken = i[CC_OP] === Cc.Sub32
                  ? (i[CC_A]! >>> 0) >= (i[CC_B]! >>> 0)
                  : carry(cpu) === 0;
                break;
              case 64 /* Hot.JCC + 4 */: {
                const op = i[CC_OP]!;
                taken = op === Cc.Explicit
                  ? (i[EFLAGS]! & 64) !== 0
                  : i[CC_R] === 0 && (op < Cc.Add64 || i[CC_R + 1] === 0);
                break;
              }
              case 65 /* Hot.JCC + 5 */: {
                const op = i[CC_OP]!;
                taken = op === Cc.Explicit
                  ? (i[EFLAGS]! & 64) === 0
                  : i[CC_R] !== 0 || (op >= Cc.Add64 && i[CC_R + 1] !== 0);
                break;
              }
              case 72 /* Hot.JCC + 12 */:
                taken = i[CC_OP] === Cc.Sub32
                  ? i[CC_A]! < i[CC_B]!
                  : condition(cpu, 12);
                break;
              case 73 /* Hot.JCC + 13 */:
                taken = i[CC_OP] === Cc.Sub32
                  ? i[CC_A]! >= i[CC_B]!
                  : condition(cpu, 13);
                break;
              case 74 /* Hot.JCC + 14 */:
                taken = i[CC_OP] === Cc.Sub32
                  ? i[CC_A]! <= i[CC_B]!
                  : condition(cpu, 14);
                break;
              case 75 /* Hot.JCC + 15 */:
                taken = i[CC_OP] === Cc.Sub32
                  ? i[CC_A]! > i[CC_B]!
                  : condition(cpu, 15);
                break;
              case 60 /* Hot.JCC */:
              case 61 /* Hot.JCC + 1 */:
              case 66 /* Hot.JCC + 6 */:
              case 67 /* Hot.JCC + 7 */:
              case 68 /* Hot.JCC + 8 */:
              case 69 /* Hot.JCC + 9 */:
              case 70 /* Hot.JCC + 10 */:
              case 71 /* Hot.JCC + 11 */:
                taken = condition(cpu, i[pc + R_OP]! - Hot.JCC);
                break;

              case 101 /* Hot.END */:
                left = (left - ((pc - start) >> 3)) | 0;
                setRip(i, meta & Meta.OffsetMask);
                start = 0;
                if (single) afterSingle(cpu, trap, shadowed);
                continue outer;

              default:
                // Registers are aligned, so are copies.
                if (meta < 0 && ((a | b) & 15) !== 0) gp0(cpu);
                if ((meta & Meta.Ends) !== 0) {
                  setRip(
                    i,
                    (meta & Meta.OffsetMask) +
                      ((meta >>> Meta.LengthShift) & Meta.LengthMask),
                  );
                  handlers[i[pc + R_OP]!]!(cpu, a, b, pc);
                  left = (left - ((pc - start) >> 3) - 1) | 0;
                  if (special) commit(cpu);
                  start = 0;
                  if (single) afterSingle(cpu, trap, shadowed);
                  continue outer;
                }
                handlers[i[pc + R_OP]!]!(cpu, a, b, pc);
                if (i[EVENTS] !== 0) special = true;
                break normal;
            }

            // A branch to a place relative to the block.
            if (!taken) {
              pc += REC_WORDS;
              continue;
            }
            left = (left - ((pc - start) >> 3) - 1) | 0;
            setRip(i, i[pc + R_IMM]!);
            if (
              left > 0 && i[pc + R_DISP] === i[CODE_GEN] && !single &&
              i[EVENTS] === 0
            ) {
              i[BLOCK_RIP] = i[RIP]!;
              i[BLOCK_RIP + 1] = i[RIP + 1]!;
              pc = i[pc + R_MEM]!;
              start = pc;
              continue;
            }
            if ((meta & Meta.Linkable) !== 0) {
              link = pc;
              linkGeneration = i[CODE_GEN]!;
            }
            start = 0;
            if (single) afterSingle(cpu, trap, shadowed);
            continue outer;
          }

          pc += REC_WORDS;
          if (special) {
            if (i[COMMIT_SIZE] !== 0) commit(cpu);
            left = (left - cpu.spent) | 0;
            cpu.spent = 0;
            if (i[EVENTS] !== 0) {
              left = (left - ((pc - start) >> 3)) | 0;
              setRip(i, i[pc + R_META]! & Meta.OffsetMask);
              start = 0;
              if (single) afterSingle(cpu, trap, shadowed);
              continue outer;
            }
          }
        }
      }
    } catch (error) {
      if (error !== FAULT) throw error;
      i[COMMIT_SIZE] = 0;
      link = 0;
      if (start !== 0) {
        left = (left - ((pc - start) >> 3) - 1) | 0;
        if (!cpu.newTask) setRip(i, i[pc + R_META]! & Meta.OffsetMask);
        start = 0;
      }
      raise(cpu);
    }
  }
}

/** What lets 32-bit pushes and pops skip segmentation. */
const FLAT_STACK = Mode.Stack32 | Mode.FlatData;
