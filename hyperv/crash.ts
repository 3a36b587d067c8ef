import type { GuestMemory } from "../core/guest_memory.ts";

/** What the guest reports when it crashes (TLFS 2.4, guest crash MSRs). */
export interface CrashReport {
  /** P0 to P4. */
  parameters: readonly [bigint, bigint, bigint, bigint, bigint];
  /** Text that the guest left in memory, if it said so. */
  message: string | undefined;
}

const MESSAGE_MAX = 4096;

/**
 * Puts a report together.
 *
 * @param hasMessage P3 and P4 are a message's address and length.
 */
export function crashReport(
  memory: GuestMemory,
  parameters: CrashReport["parameters"],
  hasMessage: boolean,
): CrashReport {
  const gpa = Number(parameters[3]);
  const length = Math.min(Number(parameters[4]), MESSAGE_MAX);
  const message = hasMessage && memory.contains(gpa, length)
    ? new TextDecoder().decode(memory.read(gpa, length))
    : undefined;
  return { parameters, message };
}
