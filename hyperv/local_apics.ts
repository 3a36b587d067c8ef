/**
 * The local APICs of the virtual processors, as the partition acts on them: its timers, messages
 * and hypercalls interrupt, and three synthetic MSRs are shortcuts to registers.
 */
export interface LocalApics {
  /**
   * Raises a fixed, edge-triggered interrupt.
   *
   * @param vector 16 to 255.
   * @param autoEoi The interrupt is over once it is delivered: its end is never told.
   */
  interrupt(vcpu: number, vector: number, autoEoi: boolean): void;
  /** Ends the interrupt of highest priority that is in service. */
  endOfInterrupt(vcpu: number): void;
  /** Reads the register at an offset of the APIC's page, unsigned. */
  read(vcpu: number, offset: number): number;
  /** Writes the register at an offset of the APIC's page. */
  write(vcpu: number, offset: number, value: number): void;
}
