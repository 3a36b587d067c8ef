/**
 * Numbers of the instructions that the loop in execute.ts carries out itself, and their lines in the
 * opcode tables. For operations on 8, 16, 32 and 64 bits the number is base + 0 to 3.
 *
 * @module
 */
import type { OpDef } from "./opcode.ts";

/** Built-in operations. */
export const Hot = {
  ADD: 0,
  OR: 4,
  ADC: 8,
  SBB: 12,
  AND: 16,
  SUB: 20,
  XOR: 24,
  CMP: 28,
  TEST: 32,
  MOV: 36,
  INC: 40,
  DEC: 44,
  NOT: 48,
  NEG: 52,
  XCHG: 56,
  /** Jcc: + condition code. */
  JCC: 60,
  JMP: 76,
  CALL32: 77,
  CALL64: 78,
  RET32: 79,
  RET64: 80,
  PUSH32: 81,
  PUSH64: 82,
  POP32: 83,
  POP64: 84,
  MOVZX16_8: 85,
  MOVZX32_8: 86,
  MOVZX32_16: 87,
  MOVSX16_8: 88,
  MOVSX32_8: 89,
  MOVSX32_16: 90,
  MOVSX64_8: 91,
  MOVSX64_16: 92,
  MOVSX64_32: 93,
  LEA16: 94,
  LEA32: 95,
  LEA64: 96,
  SETCC: 97,
  CMOV16: 98,
  CMOV32: 99,
  CMOV64: 100,
  /** The end of a block that no instruction ended. */
  END: 101,
  /** Handlers outside the loop are numbered from here. */
  COUNT: 102,
} as const;

/** Operation sizes 16, 32 and 64 of a built-in. */
function sizes(base: number): { 16: number; 32: number; 64: number } {
  return { 16: base + 1, 32: base + 2, 64: base + 3 };
}

function byte(n: number): string {
  return n.toString(16).toUpperCase().padStart(2, "0");
}

/** ADD, OR, ADC, SBB, AND, SUB, XOR, CMP in all their forms. */
function arithmetic(): OpDef[] {
  const defs: OpDef[] = [];
  for (let n = 0; n < 8; n++) {
    const op = 4 * n;
    const run = sizes(op);
    const first = n === 7 ? "" : "+";
    const flags = n === 7 ? "" : "lock";
    const at = 8 * n;
    defs.push(
      { code: byte(at), operands: `${first}Eb Gb`, run: op, flags },
      { code: byte(at + 1), operands: `${first}Ev Gv`, run, flags },
      { code: byte(at + 2), operands: `${first}Gb Eb`, run: op },
      { code: byte(at + 3), operands: `${first}Gv Ev`, run },
      { code: byte(at + 4), operands: `${first}AL Ib`, run: op },
      { code: byte(at + 5), operands: `${first}rAX Iz`, run },
      { code: `80 /${n}`, operands: `${first}Eb Ib`, run: op, flags },
      { code: `81 /${n}`, operands: `${first}Ev Iz`, run, flags },
      {
        code: `82 /${n}`,
        operands: `${first}Eb Ib`,
        run: op,
        flags: `${flags} no64`,
      },
      { code: `83 /${n}`, operands: `${first}Ev Ibs`, run, flags },
    );
  }
  return defs;
}

function conditional(): OpDef[] {
  const defs: OpDef[] = [];
  for (let cc = 0; cc < 16; cc++) {
    defs.push(
      {
        code: byte(0x70 + cc),
        operands: "Jb",
        run: Hot.JCC + cc,
        flags: "d64",
      },
      {
        code: `0F ${byte(0x80 + cc)}`,
        operands: "Jz",
        run: Hot.JCC + cc,
        flags: "d64",
      },
      { code: `0F ${byte(0x90 + cc)}`, operands: "=Eb cc", run: Hot.SETCC },
      {
        code: `0F ${byte(0x40 + cc)}`,
        operands: "+Gv Ev cc",
        run: { 16: Hot.CMOV16, 32: Hot.CMOV32, 64: Hot.CMOV64 },
      },
    );
  }
  return defs;
}

/** The lines of the opcode tables that lead to built-ins. */
export function hotOps(): OpDef[] {
  return [
    ...arithmetic(),
    ...conditional(),
    { code: "84", operands: "Eb Gb", run: Hot.TEST },
    { code: "85", operands: "Ev Gv", run: sizes(Hot.TEST) },
    { code: "A8", operands: "AL Ib", run: Hot.TEST },
    { code: "A9", operands: "rAX Iz", run: sizes(Hot.TEST) },
    { code: "F6 /0", operands: "Eb Ib", run: Hot.TEST },
    { code: "F6 /1", operands: "Eb Ib", run: Hot.TEST },
    { code: "F7 /0", operands: "Ev Iz", run: sizes(Hot.TEST) },
    { code: "F7 /1", operands: "Ev Iz", run: sizes(Hot.TEST) },
    { code: "F6 /2", operands: "+Eb", run: Hot.NOT, flags: "lock" },
    { code: "F7 /2", operands: "+Ev", run: sizes(Hot.NOT), flags: "lock" },
    { code: "F6 /3", operands: "+Eb", run: Hot.NEG, flags: "lock" },
    { code: "F7 /3", operands: "+Ev", run: sizes(Hot.NEG), flags: "lock" },
    { code: "FE /0", operands: "+Eb", run: Hot.INC, flags: "lock" },
    { code: "FF /0", operands: "+Ev", run: sizes(Hot.INC), flags: "lock" },
    { code: "FE /1", operands: "+Eb", run: Hot.DEC, flags: "lock" },
    { code: "FF /1", operands: "+Ev", run: sizes(Hot.DEC), flags: "lock" },
    { code: "40 +r", operands: "+Zv", run: sizes(Hot.INC), flags: "no64" },
    { code: "48 +r", operands: "+Zv", run: sizes(Hot.DEC), flags: "no64" },
    { code: "86", operands: "+Eb +Gb", run: Hot.XCHG, flags: "lock" },
    { code: "87", operands: "+Ev +Gv", run: sizes(Hot.XCHG), flags: "lock" },
    { code: "88", operands: "=Eb Gb", run: Hot.MOV },
    { code: "89", operands: "=Ev Gv", run: sizes(Hot.MOV) },
    { code: "8A", operands: "=Gb Eb", run: Hot.MOV },
    { code: "8B", operands: "=Gv Ev", run: sizes(Hot.MOV) },
    { code: "B0 +r", operands: "=Zb Ib", run: Hot.MOV },
    { code: "B8 +r", operands: "=Zv Iv", run: sizes(Hot.MOV) },
    { code: "C6 /0", operands: "=Eb Ib", run: Hot.MOV },
    { code: "C7 /0", operands: "=Ev Iz", run: sizes(Hot.MOV) },
    {
      code: "0F B6",
      operands: "=Gv Eb",
      run: { 16: Hot.MOVZX16_8, 32: Hot.MOVZX32_8 },
    },
    {
      code: "0F B7",
      operands: "=Gv Ew",
      run: { 16: Hot.MOV + 1, 32: Hot.MOVZX32_16 },
    },
    {
      code: "0F BE",
      operands: "=Gv Eb",
      run: { 16: Hot.MOVSX16_8, 32: Hot.MOVSX32_8, 64: Hot.MOVSX64_8 },
    },
    {
      code: "0F BF",
      operands: "=Gv Ew",
      run: { 16: Hot.MOV + 1, 32: Hot.MOVSX32_16, 64: Hot.MOVSX64_16 },
    },
    {
      code: "63",
      operands: "=Gv Ed",
      run: { 16: Hot.MOV + 1, 32: Hot.MOV + 2, 64: Hot.MOVSX64_32 },
      flags: "only64",
    },
    {
      code: "8D m",
      operands: "=Gv M",
      run: { 16: Hot.LEA16, 32: Hot.LEA32, 64: Hot.LEA64 },
    },
    {
      code: "E8",
      operands: "Jz",
      run: { 16: Hot.CALL32, 32: Hot.CALL32, 64: Hot.CALL64 },
      flags: "d64 ends",
    },
    { code: "EB", operands: "Jb", run: Hot.JMP, flags: "d64 ends" },
    { code: "E9", operands: "Jz", run: Hot.JMP, flags: "d64 ends" },
  ];
}
