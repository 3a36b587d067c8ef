import { MmioBus, PortBus } from "./bus.ts";
import { AcpiPm, PmBlock } from "./devices/acpi_pm.ts";
import { ApicBus } from "./devices/apic_bus.ts";
import type { ApicClock } from "./devices/apic_timer.ts";
import { Cmos } from "./devices/cmos.ts";
import { IoApic, IOAPIC_PINS } from "./devices/ioapic.ts";
import { type ApicWiring, LocalApic } from "./devices/lapic.ts";
import { PicPair } from "./devices/pic.ts";
import { Pit } from "./devices/pit.ts";
import {
  debugExit,
  debugText,
  keyboardController,
  resetControl,
  sink,
  systemControl,
} from "./devices/simple.ts";
import type { DeviceState } from "./devices/state.ts";
import { Uart } from "./devices/uart.ts";
import { Interrupt, Mmio, Port } from "./memory_map.ts";

/** What a {@linkcode Board} tells the machine that it is in. */
export interface BoardEvents {
  /** The guest wrote an exit code. */
  exit(code: number): void;
  /** The guest asked for a reset. */
  reset(): void;
  /** The guest switched the machine off. */
  powerOff(): void;
  /** A byte on COM1 or port 0xE9. */
  output(byte: number): void;
  /** The guest set a timer: nanoseconds until it is due, or Infinity. */
  timerChanged(until: number): void;
}

/** The devices' state as plain data. */
export interface BoardState {
  /** The local APICs. */
  apics: DeviceState[];
  /** The devices that there is one of, by name. */
  devices: Record<string, DeviceState>;
}

interface Device {
  reset(): void;
  save(): DeviceState;
  restore(state: DeviceState): void;
}

/** What becomes due with time. */
interface Timed {
  update(): void;
  untilNext(): number;
}

/**
 * The devices of a PC of the simple kind, and how they are wired. Interrupt lines 0 to 15 are on the PIC pair
 * and on the IOAPIC, those up to 23 on the IOAPIC alone; the timer's, 0, is its pin 2.
 */
export class Board {
  /** Ports. */
  readonly ports: PortBus = new PortBus();
  /** Addresses outside RAM, those of local APICs left out. */
  readonly mmio: MmioBus = new MmioBus();
  readonly #bus = new ApicBus();
  readonly #ioapic: IoApic = new IoApic(this.#bus);
  readonly #pic: PicPair;
  readonly #uart: Uart;
  readonly #devices: Record<string, Device>;
  readonly #timed: Timed[];
  readonly #events: BoardEvents;

  /**
   * @param memorySize RAM in bytes.
   * @param now Nanoseconds, monotonic.
   */
  constructor(memorySize: number, now: () => number, events: BoardEvents) {
    this.#events = events;
    const reset = (): void => events.reset();
    const output = (byte: number): void => events.output(byte);
    const line = (n: number) => (level: boolean): void =>
      this.setLine(n, level);
    this.#pic = new PicPair((asserted) => {
      for (const apic of this.#bus.apics) apic.setLint0(asserted);
    });
    this.#uart = new Uart(Port.Com1, output, line(Interrupt.Com1));
    const pit = new Pit(now, line(Interrupt.Timer));
    const clock = new Cmos(memorySize, { now, irq: line(Interrupt.Clock) });
    const pm = new AcpiPm(
      now,
      line(Interrupt.Acpi),
      () => events.powerOff(),
    );
    const keyboard = keyboardController(reset);
    const systemPort = systemControl(reset);
    const resetRegister = resetControl(reset);
    // Those that take lines come after those that have them.
    this.#devices = {
      pit,
      uart: this.#uart,
      clock,
      pm,
      keyboard,
      systemPort,
      resetRegister,
      pic: this.#pic,
      ioapic: this.#ioapic,
    };
    this.#timed = [pit, clock, pm];
    const { ports } = this;
    ports.add(Port.Pic1, 2, this.#pic);
    ports.add(Port.Pic2, 2, this.#pic);
    ports.add(0x4d0, 2, this.#pic);
    ports.add(Port.Pit, 4, {
      readPort: (port) => pit.readPort(port),
      writePort: (port, size, value) => {
        pit.writePort(port, size, value);
        events.timerChanged(pit.untilNext());
      },
    });
    ports.add(Port.SystemB, 1, pit);
    ports.add(Port.Keyboard, 1, keyboard);
    ports.add(Port.KeyboardCommand, 1, keyboard);
    ports.add(Port.Cmos, 2, clock);
    ports.add(Port.Post, 1, sink);
    ports.add(Port.IoDelay, 1, sink);
    ports.add(Port.SystemA, 1, systemPort);
    ports.add(Port.DebugText, 1, debugText(output));
    ports.add(Port.DebugExit, 4, debugExit((code) => events.exit(code)));
    ports.add(Port.Com1, 8, this.#uart);
    ports.add(Port.AcpiPm, PmBlock.Count, pm);
    ports.add(Port.ResetControl, 1, resetRegister);
    this.mmio.add(Mmio.IoApic, 0x1000, this.#ioapic);
  }

  /** Adds the next processor's local APIC. {@linkcode Board.reset} is to follow the last. */
  addProcessor(
    clock: ApicClock,
    wiring: Omit<ApicWiring, "timerChanged">,
  ): void {
    const { apics } = this.#bus;
    const apic = new LocalApic(apics.length, this.#bus, clock, {
      ...wiring,
      endOfInterrupt: (vector, level) => {
        if (level) this.#ioapic.endOfInterrupt(vector);
        wiring.endOfInterrupt(vector, level);
      },
      timerChanged: (until) => this.#events.timerChanged(until),
    });
    apics.push(apic);
    this.#timed.push(apic);
  }

  /** The local APIC of a vCPU, which there has to be. */
  apic(vcpu: number): LocalApic {
    return this.#bus.apics[vcpu]!;
  }

  /** Sets interrupt line 0 to 23. */
  setLine(line: number, high: boolean): void {
    if (line < 16) this.#pic.setLine(line, high);
    const pin = line === Interrupt.Timer ? 2 : line;
    if (pin < IOAPIC_PINS) this.#ioapic.setLine(pin, high);
  }

  /** Bytes for the serial port. */
  sendSerial(bytes: Uint8Array): void {
    this.#uart.receive(bytes);
  }

  /** A vCPU takes an interrupt: its vector, or -1. */
  acknowledge(vcpu: number): number {
    const apic = this.apic(vcpu);
    return apic.externalInterrupt
      ? this.#pic.acknowledge()
      : apic.acknowledge();
  }

  /** Read outside RAM. */
  readMmio(vcpu: number, gpa: number, data: Uint8Array): void {
    const apic = this.apic(vcpu);
    if (apic.decodes(gpa)) apic.readMmio(gpa, data);
    else this.mmio.read(vcpu, gpa, data);
  }

  /** Write outside RAM. */
  writeMmio(vcpu: number, gpa: number, data: Uint8Array): void {
    const apic = this.apic(vcpu);
    if (apic.decodes(gpa)) apic.writeMmio(gpa, data);
    else this.mmio.write(vcpu, gpa, data);
  }

  /** Does what has become due. */
  update(): void {
    for (const device of this.#timed) device.update();
  }

  /** Nanoseconds until something becomes due. */
  untilNext(): number {
    let next = Infinity;
    for (const device of this.#timed) next = Math.min(next, device.untilNext());
    return next;
  }

  /** State after power-on, with interrupts wired as firmware leaves them. */
  reset(): void {
    for (const apic of this.#bus.apics) apic.reset();
    for (const device of Object.values(this.#devices)) device.reset();
    this.apic(0).setVirtualWire();
  }

  /** Copies the state out. */
  save(): BoardState {
    return {
      apics: this.#bus.apics.map((apic) => apic.save()),
      devices: Object.fromEntries(
        Object.entries(this.#devices).map(([name, device]) => [
          name,
          device.save(),
        ]),
      ),
    };
  }

  /**
   * Takes back what {@linkcode Board.save} gave.
   *
   * @throws {TypeError} If a device's state is missing or none.
   */
  restore(state: BoardState): void {
    const { apics, devices } = state;
    for (const [name, device] of Object.entries(this.#devices)) {
      const saved = Object.hasOwn(devices, name) ? devices[name] : undefined;
      device.restore(saved ?? {});
    }
    this.#bus.apics.forEach((apic, n) => apic.restore(apics[n]));
  }
}
