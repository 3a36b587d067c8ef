/**
 * Registers by their offset in the page (SDM volume 3A, table 11-1). In x2APIC mode they are the MSRs from
 * {@linkcode X2APIC_FIRST} on, one for each 16 bytes.
 */
export const ApicRegister = {
  Id: 0x20,
  Version: 0x30,
  TaskPriority: 0x80,
  ProcessorPriority: 0xa0,
  EndOfInterrupt: 0xb0,
  LogicalDestination: 0xd0,
  DestinationFormat: 0xe0,
  Spurious: 0xf0,
  InService: 0x100,
  TriggerMode: 0x180,
  Request: 0x200,
  ErrorStatus: 0x280,
  Command: 0x300,
  CommandHigh: 0x310,
  LvtTimer: 0x320,
  LvtThermal: 0x330,
  LvtPerformance: 0x340,
  LvtLint0: 0x350,
  LvtLint1: 0x360,
  LvtError: 0x370,
  InitialCount: 0x380,
  CurrentCount: 0x390,
  Divide: 0x3e0,
  SelfIpi: 0x3f0,
} as const;

/** IA32_APIC_BASE (SDM volume 4). */
export const MSR_APIC_BASE = 0x1b;
/** IA32_TSC_DEADLINE. */
export const MSR_TSC_DEADLINE = 0x6e0;
/** First of the x2APIC's MSRs. */
export const X2APIC_FIRST = 0x800;
/** Last of them. */
export const X2APIC_LAST = 0x8ff;

const R = ApicRegister;

/** Bits that software may set, by register; the others are reserved or read-only. */
export const WRITABLE: Uint32Array<ArrayBuffer> = new Uint32Array(64);
for (
  const [register, bits] of [
    [R.TaskPriority, 0xff],
    [R.LogicalDestination, 0xff00_0000],
    [R.DestinationFormat, 0xf000_0000],
    [R.Spurious, 0x1ff],
    [R.Command, 0xc_cfff],
    [R.CommandHigh, 0xffff_ffff],
    [R.LvtTimer, 0x7_00ff],
    [R.LvtThermal, 0x1_07ff],
    [R.LvtPerformance, 0x1_07ff],
    [R.LvtLint0, 0x1_a7ff],
    [R.LvtLint1, 0x1_a7ff],
    [R.LvtError, 0x1_00ff],
    [R.InitialCount, 0xffff_ffff],
    [R.Divide, 0xb],
    [R.SelfIpi, 0xff],
  ] as const
) WRITABLE[register >> 4] = bits;

/** Whether software can read a register, reserved offsets and write-only registers left out. */
export function readable(offset: number): boolean {
  return offset === R.Id || offset === R.Version ||
    offset === R.TaskPriority || offset === R.ProcessorPriority ||
    (offset >= R.LogicalDestination && offset <= R.ErrorStatus) ||
    (offset >= R.Command && offset <= R.CurrentCount) || offset === R.Divide;
}
