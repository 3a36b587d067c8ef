import type { Registers, Segment, SystemRegisters } from "../core/backend.ts";
import { DtableField, Regs, SegmentField, Sregs } from "./kvm_layout.ts";

const REGISTERS = Object.keys(Regs) as (keyof Registers)[];
const SEGMENTS = ["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"] as const;
const TABLES = ["gdt", "idt"] as const;
const WORDS = ["cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apicBase"] as const;

/** Reads `struct kvm_regs`. */
export function decodeRegisters(view: DataView): Registers {
  const registers: Partial<Registers> = {};
  for (const name of REGISTERS) {
    registers[name] = view.getBigUint64(Regs[name], true);
  }
  return registers as Registers;
}

/** Writes the given registers into `struct kvm_regs`. */
export function encodeRegisters(
  view: DataView,
  values: Partial<Registers>,
): void {
  for (const name of REGISTERS) {
    const value = values[name];
    if (value !== undefined) view.setBigUint64(Regs[name], value, true);
  }
}

function decodeSegment(view: DataView, at: number): Segment {
  const byte = (field: number): number => view.getUint8(at + field);
  return {
    selector: view.getUint16(at + SegmentField.selector, true),
    base: view.getBigUint64(at + SegmentField.base, true),
    limit: view.getUint32(at + SegmentField.limit, true),
    type: byte(SegmentField.type),
    s: byte(SegmentField.s) !== 0,
    dpl: byte(SegmentField.dpl),
    present: byte(SegmentField.present) !== 0,
    avl: byte(SegmentField.avl) !== 0,
    l: byte(SegmentField.l) !== 0,
    db: byte(SegmentField.db) !== 0,
    g: byte(SegmentField.g) !== 0,
    unusable: byte(SegmentField.unusable) !== 0,
  };
}

function encodeSegment(view: DataView, at: number, value: Segment): void {
  const set = (field: number, byte: number | boolean): void =>
    view.setUint8(at + field, Number(byte));
  view.setUint16(at + SegmentField.selector, value.selector, true);
  view.setBigUint64(at + SegmentField.base, value.base, true);
  view.setUint32(at + SegmentField.limit, value.limit, true);
  set(SegmentField.type, value.type & 15);
  set(SegmentField.s, value.s);
  set(SegmentField.dpl, value.dpl & 3);
  set(SegmentField.present, value.present);
  set(SegmentField.avl, value.avl);
  set(SegmentField.l, value.l);
  set(SegmentField.db, value.db);
  set(SegmentField.g, value.g);
  set(SegmentField.unusable, value.unusable);
}

/** Reads `struct kvm_sregs`. */
export function decodeSystemRegisters(view: DataView): SystemRegisters {
  const registers: Partial<SystemRegisters> = {};
  for (const name of SEGMENTS) {
    registers[name] = decodeSegment(view, Sregs[name]);
  }
  for (const name of TABLES) {
    registers[name] = {
      base: view.getBigUint64(Sregs[name] + DtableField.base, true),
      limit: view.getUint16(Sregs[name] + DtableField.limit, true),
    };
  }
  for (const name of WORDS) {
    registers[name] = view.getBigUint64(Sregs[name], true);
  }
  return registers as SystemRegisters;
}

/** Writes the given registers into `struct kvm_sregs`. */
export function encodeSystemRegisters(
  view: DataView,
  values: Partial<SystemRegisters>,
): void {
  for (const name of SEGMENTS) {
    const value = values[name];
    if (value !== undefined) encodeSegment(view, Sregs[name], value);
  }
  for (const name of TABLES) {
    const value = values[name];
    if (value === undefined) continue;
    view.setBigUint64(Sregs[name] + DtableField.base, value.base, true);
    view.setUint16(Sregs[name] + DtableField.limit, value.limit, true);
  }
  for (const name of WORDS) {
    const value = values[name];
    if (value !== undefined) view.setBigUint64(Sregs[name], value, true);
  }
}
