/**
 * All addresses of the machine that its devices and loaders agree on.
 *
 * @module
 */

/** Ports. */
export const Port = {
  Pic1: 0x20,
  Pit: 0x40,
  Keyboard: 0x60,
  SystemB: 0x61,
  KeyboardCommand: 0x64,
  Cmos: 0x70,
  Post: 0x80,
  SystemA: 0x92,
  Pic2: 0xa0,
  DebugText: 0xe9,
  IoDelay: 0xed,
  DebugExit: 0xf4,
  Com1: 0x3f8,
  AcpiPm: 0x600,
  ResetControl: 0xcf9,
} as const;

/** Interrupt lines. */
export const Interrupt = {
  Timer: 0,
  Com1: 4,
  Clock: 8,
  Acpi: 9,
  /** The first of the virtio devices', each of which has its own. */
  Virtio: 16,
} as const;

/** Guest-physical addresses of devices, above all RAM. */
export const Mmio = {
  /** virtio devices, one after the other. */
  Virtio: 0xfeb0_0000,
  IoApic: 0xfec0_0000,
} as const;

/** Guest-physical addresses that loaders use below 1 MiB. */
export const LowMemory = {
  /** Flat GDT for guests that are entered in protected or long mode. */
  Gdt: 0x500,
  /** Multiboot information, PVH start information or Linux's zero page, with the memory map. */
  BootInfo: 0x1000,
  /** Command line and module names. */
  BootText: 0x2000,
  BootTextEnd: 0x5000,
  /** Page tables for guests that are entered in long mode: one PML4, one PDPT, four PDs. */
  PageTables: 0x6_0000,
  PageTablesEnd: 0x6_6000,
  /** Stack top of an entered guest, growing down. */
  StackTop: 0x6_0000,
  /** End of conventional memory. */
  ConventionalEnd: 0xa_0000,
  /** ACPI tables, 64 KiB. Systems look for the first of them in the 128 KiB below 1 MiB. */
  Acpi: 0xe_0000,
  /** Start of extended memory. */
  Extended: 0x10_0000,
} as const;

/** A range of the memory map that a guest is told of. */
export interface MemoryRegion {
  /** Guest-physical address. */
  start: number;
  /** Bytes. */
  length: number;
  /** As e820 and multiboot number them: 1 is RAM, 2 is reserved. */
  type: 1 | 2;
}

/** The memory map of a machine with `size` bytes of RAM. */
export function memoryRegions(size: number): MemoryRegion[] {
  const { ConventionalEnd, Extended } = LowMemory;
  return [
    { start: 0, length: ConventionalEnd, type: 1 },
    { start: ConventionalEnd, length: Extended - ConventionalEnd, type: 2 },
    { start: Extended, length: size - Extended, type: 1 },
  ];
}
