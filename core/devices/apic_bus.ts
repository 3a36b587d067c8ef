import type { LocalApic } from "./lapic.ts";

/** Delivery modes of ICR, LVT and redirection entries (SDM volume 3A, 11.6.1). */
export const Delivery = {
  Fixed: 0,
  LowestPriority: 1,
  Smi: 2,
  Nmi: 4,
  Init: 5,
  Startup: 6,
  ExtInt: 7,
} as const;

/** The destination that means every local APIC. */
export const BROADCAST = 0xffff_ffff;

/** Widens an 8-bit destination: 255 is every local APIC. */
export function wideDestination(destination: number): number {
  return destination === 0xff ? BROADCAST : destination;
}

/** What carries interrupt messages from IOAPIC, local APICs and devices to local APICs. */
export class ApicBus {
  /** The local APICs, by the number of their vCPU. */
  readonly apics: LocalApic[] = [];

  /**
   * Delivers a message to all that it is for; with lowest priority to one of them.
   *
   * @param destination An APIC ID, a logical destination or {@linkcode BROADCAST}.
   * @param logical Whether it is a logical one.
   * @param mode One of {@linkcode Delivery}.
   * @param level Whether it is level-triggered, so that its end is to be told.
   * @param except ID of the one that is left out.
   * @returns Whether anybody took it.
   */
  send(
    destination: number,
    logical: boolean,
    mode: number,
    vector: number,
    level: boolean,
    except = -1,
  ): boolean {
    let taken = false;
    let lowest: LocalApic | undefined;
    for (const apic of this.apics) {
      if (apic.id === except || !apic.matches(destination, logical)) continue;
      if (mode !== Delivery.LowestPriority) {
        taken = apic.receive(mode, vector, level) || taken;
      } else if (
        apic.enabled &&
        (lowest === undefined ||
          apic.processorPriority < lowest.processorPriority)
      ) lowest = apic;
    }
    return lowest?.receive(Delivery.Fixed, vector, level) ?? taken;
  }
}
