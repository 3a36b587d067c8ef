/**
 * Registers of a vCPU that enters a guest past its firmware.
 *
 * @module
 */
import type { Registers, Segment, Vcpu } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";
import { LowMemory } from "../memory_map.ts";

/** Modes that a guest can be entered in. */
export type EntryMode = "real" | "protected" | "long";

/** Selectors of the flat segments. */
export interface Selectors {
  /** Code. */
  code: number;
  /** Data and stack. */
  data: number;
}

const SELECTORS: Selectors = { code: 0x08, data: 0x10 };

function segment(selector: number, code: boolean, long: boolean): Segment {
  return {
    selector,
    base: 0n,
    limit: 0xffff_ffff,
    type: code ? 11 : 3,
    s: true,
    dpl: 0,
    present: true,
    avl: false,
    l: code && long,
    db: !(code && long),
    g: true,
    unusable: false,
  };
}

/** A segment as real mode has it. */
function realSegment(base: number): Segment {
  return {
    ...segment(base >>> 4, false, false),
    base: BigInt(base),
    limit: 0xffff,
    db: false,
    g: false,
  };
}

/** Identity-maps the first 4 GiB with 2 MiB pages. */
function writePageTables(memory: GuestMemory): void {
  const base = LowMemory.PageTables;
  memory.fill(base, LowMemory.PageTablesEnd - base);
  memory.writeU64(base, BigInt(base + 0x1000) | 3n);
  for (let gib = 0; gib < 4; gib++) {
    const directory = base + 0x2000 + gib * 0x1000;
    memory.writeU64(base + 0x1000 + gib * 8, BigInt(directory) | 3n);
    for (let n = 0; n < 512; n++) {
      const page = gib * 0x4000_0000 + n * 0x20_0000;
      memory.writeU64(directory + n * 8, BigInt(page) | 0x83n);
    }
  }
}

/** Writes a flat GDT, which ends with the data segment. */
function writeGdt(
  memory: GuestMemory,
  long: boolean,
  { code, data }: Selectors,
): void {
  memory.fill(LowMemory.Gdt, data);
  memory.writeU64(
    LowMemory.Gdt + code,
    long ? 0x00af_9b00_0000_ffffn : 0x00cf_9b00_0000_ffffn,
  );
  memory.writeU64(LowMemory.Gdt + data, 0x00cf_9300_0000_ffffn);
}

/**
 * Puts a vCPU at `entry` in a mode: flat segments, interrupts off, a stack below
 * {@linkcode LowMemory.StackTop}. Real mode is entered at segment entry / 16 with IP the rest.
 */
export function enter(
  memory: GuestMemory,
  vcpu: Vcpu,
  entry: number,
  mode: EntryMode,
  registers: Partial<Registers> = {},
  selectors = SELECTORS,
): void {
  vcpu.reset();
  if (mode === "real") {
    // Below 64 KiB segment 0 serves, as a boot sector expects.
    const base = entry < 0x1_0000 ? 0 : entry & ~15;
    const data = realSegment(0);
    vcpu.setSystemRegisters({
      cs: { ...realSegment(base), type: 11 },
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
    });
    vcpu.setRegisters({
      rsp: 0x7000n,
      rflags: 2n,
      ...registers,
      rip: BigInt(entry - base),
    });
    return;
  }
  const long = mode === "long";
  writeGdt(memory, long, selectors);
  const data = segment(selectors.data, false, long);
  if (long) writePageTables(memory);
  vcpu.setSystemRegisters({
    cs: segment(selectors.code, true, long),
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    gdt: { base: BigInt(LowMemory.Gdt), limit: selectors.data + 7 },
    idt: { base: 0n, limit: 0 },
    ...(long
      ? {
        cr3: BigInt(LowMemory.PageTables),
        cr4: 0x20n,
        efer: 0x500n,
        cr0: 0x8000_0011n,
      }
      : { cr0: 0x11n }),
  });
  vcpu.setRegisters({
    rsp: BigInt(LowMemory.StackTop),
    rflags: 2n,
    ...registers,
    rip: BigInt(entry),
  });
}
