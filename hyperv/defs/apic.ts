/**
 * Registers of the local APIC that synthetic MSRs reach, as offsets in its page (SDM volume 3A,
 * table 11-1).
 *
 * @module
 */
export const ApicRegister = {
  TaskPriority: 0x80,
  InterruptCommandLow: 0x300,
  InterruptCommandHigh: 0x310,
} as const;
