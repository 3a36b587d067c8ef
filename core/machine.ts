import {
  type Backend,
  type CpuidEntry,
  type HypercallFrame,
  HypercallResult,
  MsrResult,
  type Vcpu,
  type VcpuExit,
  type VcpuState,
  type Vm,
  type VmHost,
} from "./backend.ts";
import { Board, type BoardState } from "./board.ts";
import type { MmioBus, PortBus } from "./bus.ts";
import {
  MSR_APIC_BASE,
  MSR_TSC_DEADLINE,
  X2APIC_FIRST,
  X2APIC_LAST,
} from "./devices/apic_registers.ts";
import type { DeviceState } from "./devices/state.ts";
import type { GuestMemory } from "./guest_memory.ts";
import { platformCpuid } from "./platform_cpuid.ts";
import { Processor } from "./processor.ts";
import { yieldToEvents } from "./yield.ts";

/** What a hypervisor's guest interface adds to a machine. */
export interface GuestInterface
  extends Pick<VmHost, "readMsr" | "writeMsr" | "hypercall"> {
  /** Does what has become due: expired timers, waiting messages. Called in each turn of the run loop. */
  update?(): void;
  /** Nanoseconds until {@linkcode GuestInterface.update} has something to do; Infinity for nothing. */
  untilNext?(): number;
  /** Whether something may come from outside any moment: the event loop gets its turn the more often. */
  expectsEvents?(): boolean;
  /** The guest has ended an interrupt at its local APIC. */
  endOfInterrupt?(vcpu: number, vector: number): void;
  /** The machine was reset. */
  reset?(): void;
}

/** A local APIC, for who offers the guest other ways to it. */
export interface ApicRegisters {
  /** Reads the register at an offset in its page. */
  readRegister(offset: number): number;
  /** Writes it. */
  writeRegister(offset: number, value: number): void;
  /** Ends the interrupt in service. */
  endOfInterrupt(): void;
}

/** How a {@linkcode Machine} is made. */
export interface MachineOptions {
  /** Executes the guest. */
  backend: Backend;
  /** RAM. */
  memory: GuestMemory;
  /** vCPUs, 1 to 255. Default 1. */
  cpus?: number;
  /** Asked for MSRs and hypercalls that the CPU itself does not know. */
  guestInterface?: GuestInterface;
  /** MSRs that nobody knows: #GP (default), or read as 0 and take writes. */
  unknownMsrs?: "gp" | "ignore";
  /** Takes what the guest sends on COM1 and port 0xE9. */
  onOutput?: (byte: number) => void;
  /** Nanoseconds, monotonic, for timers. Default the host's. */
  now?: () => number;
}

/** Decides when vCPUs run, as {@linkcode Machine.debugger}. */
export interface MachineDebugger {
  /** Whether a vCPU has to wait. When it no longer has to, the machine is to be woken. */
  holds(vcpu: Vcpu): boolean;
  /**
   * A vCPU stopped at a debug event, or the run is to end. False: as without a debugger; else the
   * debugger holds it, or it runs on.
   */
  stopped(vcpu: Vcpu, exit: VcpuExit): boolean;
}

/** How a run of a {@linkcode Machine} ended. */
export type MachineOutcome =
  /** The guest wrote an exit code. */
  | { kind: "exit"; code: number }
  /** The guest switched the machine off. */
  | { kind: "poweroff" }
  /** The guest halted, and nothing can wake it. */
  | { kind: "halted" }
  /** The guest asked for a reset. */
  | { kind: "reset" }
  /** Triple fault. */
  | { kind: "shutdown" }
  /** The time given was over. */
  | { kind: "timeout" }
  /** The caller's signal. */
  | { kind: "aborted" }
  /** The backend cannot go on. */
  | { kind: "error"; message: string };

/** All state of a {@linkcode Machine} but its RAM, as plain data. */
export interface MachineState extends BoardState {
  /** Name and version of the layout. */
  format: string;
  /** The vCPUs as their backend keeps them. */
  vcpus: VcpuState[];
  /** What each of them waits for. */
  processors: DeviceState[];
}

const FORMAT = "syndbg-machine-1";
/** Milliseconds that the guest runs before the event loop gets its turn. */
const SLICE = 5;
/** The same while something is expected from outside. */
const BUSY_SLICE = 0.2;
/** Shortest slice of a vCPU that runs alone. */
const SHORTEST_SLICE = 0.05;
/** Longest sleep of a halted guest before its timers are looked at again. */
const NAP = 20;
/** Milliseconds that a sleep takes longer than it should (1 to 2 in Deno 2.9). */
const OVERSLEEP = 1;
const IA32_TSC = 0x10;

/**
 * A PC of the simple kind: RAM, vCPUs with their local APICs, interrupt controllers, timers, clock,
 * serial port, ACPI's fixed hardware and debug ports, around any backend.
 *
 * vCPUs that share the thread take turns that are as long as the backend makes them: with the interpreter, and a
 * clock that is deterministic, a run is the same every time.
 */
export class Machine implements VmHost {
  /** The virtual machine. */
  readonly vm: Vm;
  /** Its vCPUs. */
  readonly vcpus: readonly Vcpu[];
  /** Ports; add devices before running. */
  readonly ports: PortBus;
  /** Addresses outside RAM; add devices before running. */
  readonly mmio: MmioBus;
  /** Whoever debugs the guest. Set before a run. */
  debugger: MachineDebugger | undefined;
  readonly #o: MachineOptions;
  readonly #now: () => number;
  readonly #board: Board;
  readonly #processors: readonly Processor[];
  /** The vCPU that runs on this thread now. */
  #running: Processor | undefined;
  /** When its slice ends; -Infinity where the backend decides that. */
  #sliceEnd = -Infinity;
  #outcome: MachineOutcome | undefined;
  #wake: (() => void) | undefined;

  /**
   * Makes the machine with its devices; nothing runs yet.
   *
   * @throws {RangeError} If the number of vCPUs is out of range.
   */
  constructor(options: MachineOptions) {
    const { backend, memory, cpus = 1 } = options;
    if (!Number.isInteger(cpus) || cpus < 1 || cpus > 255) {
      throw new RangeError(
        `Cannot create machine: vCPUs must be 1 to 255: ${cpus}`,
      );
    }
    this.#o = options;
    this.#now = options.now ?? (() => performance.now() * 1e6);
    this.#board = new Board(memory.size, this.#now, {
      exit: (code) => this.stop({ kind: "exit", code }),
      reset: () => this.stop({ kind: "reset" }),
      powerOff: () => this.stop({ kind: "poweroff" }),
      output: (byte) => options.onOutput?.(byte),
      timerChanged: (until) => this.#timerChanged(until),
    });
    this.ports = this.#board.ports;
    this.mmio = this.#board.mmio;
    this.vm = backend.createVm(memory, this);
    this.vcpus = Array.from({ length: cpus }, () => this.vm.createVcpu());
    this.#processors = this.vcpus.map((vcpu) => this.#addProcessor(vcpu));
    this.#board.reset();
    this.setCpuid(backend.supportedCpuid());
  }

  #addProcessor(vcpu: Vcpu): Processor {
    const processor = new Processor(vcpu, () => this.#onEvent(processor));
    this.#board.addProcessor({
      now: this.#now,
      readTsc: () => vcpu.getMsr(IA32_TSC) ?? 0n,
      tscFrequency: this.#o.backend.tscFrequency,
    }, {
      interrupt: (asserted) => processor.interrupt(asserted),
      taskPriority: (priority) => processor.taskPriority(priority),
      nmi: () => processor.nmi(),
      init: () => processor.init(),
      startup: (vector) => processor.startup(vector),
      endOfInterrupt: (vector) =>
        this.#o.guestInterface?.endOfInterrupt?.(vcpu.id, vector),
    });
    return processor;
  }

  // For its owner. -------------------------------------------------------------------

  /**
   * Sets the CPUID leaves of all vCPUs, to which the machine adds what follows from its local APICs. At first they
   * are the backend's.
   */
  setCpuid(entries: readonly CpuidEntry[]): void {
    const { apicMsrs } = this.#o.backend;
    const count = this.vcpus.length;
    for (const vcpu of this.vcpus) {
      vcpu.setCpuid(platformCpuid(entries, vcpu.id, count, apicMsrs));
    }
  }

  /** Bytes for the guest's serial port. */
  sendSerial(bytes: Uint8Array): void {
    this.#board.sendSerial(bytes);
  }

  /** Wakes the machine from waiting for an event. */
  wake(): void {
    this.#wake?.();
  }

  /** Ends the run with an outcome. */
  stop(outcome: MachineOutcome): void {
    this.#outcome ??= outcome;
    for (const processor of this.#processors) {
      if (processor === this.#running || processor.flight !== undefined) {
        processor.vcpu.kick();
      }
    }
    this.wake();
  }

  /** Puts the machine into its state after power-on; RAM stays. Not while it runs. */
  reset(): void {
    for (const processor of this.#processors) processor.reset();
    this.#board.reset();
    this.#o.guestInterface?.reset?.();
  }

  /** Copies all state but RAM out. Not while it runs. */
  save(): MachineState {
    return {
      format: FORMAT,
      vcpus: this.vcpus.map((vcpu) => vcpu.save()),
      processors: this.#processors.map((processor) => processor.save()),
      ...this.#board.save(),
    };
  }

  /**
   * Takes state back that {@linkcode Machine.save} of the same kind of machine gave. RAM is to be there
   * already, by {@linkcode GuestMemory.write}. After an error the machine has to be reset.
   *
   * @throws {TypeError} If it is not such state.
   */
  restore(state: MachineState): void {
    const { length } = this.vcpus;
    const { format, vcpus, processors, apics, devices } = state;
    if (
      format !== FORMAT ||
      [vcpus, processors, apics].some((list) =>
        !Array.isArray(list) || list.length !== length
      ) || typeof devices !== "object" || devices === null
    ) {
      throw new TypeError(
        `Cannot restore machine: not of format ${FORMAT} with ${length} vCPUs`,
      );
    }
    this.vcpus.forEach((vcpu, n) => vcpu.restore(vcpus[n]!));
    this.#processors.forEach((processor, n) =>
      processor.restore(processors[n])
    );
    // It has lines to them.
    this.#board.restore(state);
  }

  /** Frees the VM. */
  close(): void {
    this.vm.close();
  }

  // For devices and for the guest interface. -----------------------------------------------

  /** Sets interrupt line 0 to 23; from 16 on they are free. */
  setLine(line: number, high: boolean): void {
    this.#board.setLine(line, high);
  }

  /**
   * Gives a vCPU's local APIC an interrupt: fixed, edge-triggered.
   *
   * @param vcpu Its number; one that there is not gets nothing.
   * @param autoEoi It ends when it is taken.
   */
  interrupt(vcpu: number, vector: number, autoEoi = false): void {
    if (vcpu in this.vcpus) {
      this.#board.apic(vcpu).request(vector & 255, false, autoEoi);
    }
  }

  /** Gives a vCPU a non-maskable interrupt. */
  nmi(vcpu: number): void {
    this.#processors[vcpu]?.nmi();
  }

  /** The local APIC of a vCPU. @throws {RangeError} If there is no such vCPU. */
  apic(vcpu: number): ApicRegisters {
    if (!(vcpu in this.vcpus)) {
      throw new RangeError(`Cannot reach local APIC: no such vCPU: ${vcpu}`);
    }
    return this.#board.apic(vcpu);
  }

  // Running. -----------------------------------------------------------------------

  /**
   * Runs the guest until something ends it. The event loop gets its turn every few milliseconds, so
   * sockets, timers and signals live while the guest spins.
   *
   * @param options.timeout Milliseconds; Infinity by default.
   */
  async run(
    options: { timeout?: number; signal?: AbortSignal } = {},
  ): Promise<MachineOutcome> {
    const { timeout = Infinity, signal } = options;
    const start = performance.now();
    this.#outcome = signal?.aborted ? { kind: "aborted" } : undefined;
    const abort = (): void => this.stop({ kind: "aborted" });
    signal?.addEventListener("abort", abort);
    let yielded = start;
    for (const processor of this.#processors) processor.look();
    try {
      while (this.#outcome === undefined) {
        const left = timeout - (performance.now() - start);
        if (left <= 0) return { kind: "timeout" };
        this.#update();
        this.#hold();
        const ready = this.#takeSignals();
        if (ready > 0) {
          this.#turn(ready > 1 ? 0 : this.#slice(left));
          if (performance.now() - yielded < this.#patience()) continue;
          await yieldToEvents();
        } else if (
          this.#processors.some(({ wakeable, held }) => wakeable || held)
        ) await this.#wait(Math.min(NAP, this.#untilNext(), left));
        else if (!this.debugger?.stopped(this.vcpus[0]!, { reason: "hlt" })) {
          return { kind: "halted" };
        }
        yielded = performance.now();
      }
      return this.#outcome;
    } finally {
      signal?.removeEventListener("abort", abort);
      for (const { flight, vcpu } of this.#processors) {
        if (flight === undefined) continue;
        vcpu.kick();
        await flight;
      }
    }
  }

  /** Milliseconds that a processor may run alone. */
  #slice(left: number): number {
    const most = Math.min(this.#patience(), this.#untilNext(), left);
    return Math.max(SHORTEST_SLICE, most);
  }

  /** Milliseconds that the event loop may wait for its turn. */
  #patience(): number {
    return this.#o.guestInterface?.expectsEvents?.() ? BUSY_SLICE : SLICE;
  }

  /** Looks which processors have to wait for a debugger. */
  #hold(): void {
    for (const processor of this.#processors) {
      processor.hold(this.debugger?.holds(processor.vcpu) ?? false);
    }
  }

  /** Has INIT and startup IPIs done; how many processors are ready then. */
  #takeSignals(): number {
    let ready = 0;
    for (const processor of this.#processors) {
      if (processor.flight === undefined) {
        processor.takeSignals(() => this.#board.apic(processor.vcpu.id).init());
      }
      if (processor.ready) ready++;
    }
    return ready;
  }

  /** Lets every processor run that is ready. */
  #turn(slice: number): void {
    for (const processor of this.#processors) {
      if (!processor.ready) continue;
      const { vcpu } = processor;
      processor.begin();
      // A debugger wants all of them to stand while it looks.
      if (vcpu.runAsync !== undefined && this.debugger === undefined) {
        processor.flight = vcpu.runAsync(SLICE).then(
          (exit) => this.#landed(processor, exit),
          (error) =>
            this.#landed(processor, {
              reason: "internal-error",
              message: String(error),
            }),
        );
        continue;
      }
      this.#running = processor;
      this.#sliceEnd = slice === 0 ? -Infinity : this.#now() + slice * 1e6;
      const exit = vcpu.run(slice);
      this.#running = undefined;
      this.#onExit(processor, exit);
      if (this.#outcome !== undefined) return;
      if (this.debugger !== undefined) this.#hold();
    }
  }

  /** A run on another thread came back. */
  #landed(processor: Processor, exit: VcpuExit): void {
    processor.flight = undefined;
    this.#onExit(processor, exit);
    this.wake();
  }

  #onExit(processor: Processor, exit: VcpuExit): void {
    const { reason } = exit;
    if (
      reason !== "interrupted" && reason !== "hlt" &&
      this.debugger?.stopped(processor.vcpu, exit)
    ) return;
    switch (exit.reason) {
      case "hlt":
        processor.halt();
        break;
      case "shutdown":
        this.#outcome ??= { kind: "shutdown" };
        break;
      case "internal-error":
        this.#outcome ??= { kind: "error", message: exit.message };
        break;
      case "debug":
        this.#outcome ??= {
          kind: "error",
          message: "stopped by a debug event",
        };
        break;
    }
  }

  /** A processor has something to do: a sleep ends, and the turn of another. */
  #onEvent(processor: Processor): void {
    if (this.#running !== processor || processor.signalled) {
      this.#running?.vcpu.kick();
    }
    this.wake();
  }

  /** A timer was set: a slice that would end after its time ends now. */
  #timerChanged(until: number): void {
    if (until < Infinity && this.#now() + until < this.#sliceEnd) {
      this.#running?.vcpu.kick();
    }
  }

  /** Does what has become due. */
  #update(): void {
    this.#board.update();
    this.#o.guestInterface?.update?.();
  }

  /** Milliseconds until something becomes due. */
  #untilNext(): number {
    const next = this.#o.guestInterface?.untilNext?.() ?? Infinity;
    return Math.min(next, this.#board.untilNext()) / 1e6;
  }

  /** Waits for an event, at most that long. */
  #wait(milliseconds: number): Promise<void> {
    if (milliseconds <= OVERSLEEP) return yieldToEvents();
    return new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds - OVERSLEEP);
      this.#wake = (): void => {
        clearTimeout(timer);
        resolve();
      };
    }).then(() => {
      this.#wake = undefined;
    });
  }

  // What the guest asks for. -----------------------------------------------------------

  readMsr(vcpu: number, index: number, value: Uint32Array): MsrResult {
    if (isApicMsr(index)) {
      return this.#board.apic(vcpu).readMsr(index, value)
        ? MsrResult.Handled
        : MsrResult.Refused;
    }
    const result = this.#o.guestInterface?.readMsr(vcpu, index, value) ??
      MsrResult.Unknown;
    if (result !== MsrResult.Unknown || this.#o.unknownMsrs !== "ignore") {
      return result;
    }
    value[0] = 0;
    value[1] = 0;
    return MsrResult.Handled;
  }

  writeMsr(
    vcpu: number,
    index: number,
    low: number,
    high: number,
  ): MsrResult {
    if (isApicMsr(index)) {
      return this.#board.apic(vcpu).writeMsr(index, low, high)
        ? MsrResult.Handled
        : MsrResult.Refused;
    }
    const { guestInterface } = this.#o;
    const result = guestInterface?.writeMsr(vcpu, index, low, high) ??
      MsrResult.Unknown;
    this.#timerChanged(guestInterface?.untilNext?.() ?? Infinity);
    return result === MsrResult.Unknown && this.#o.unknownMsrs === "ignore"
      ? MsrResult.Handled
      : result;
  }

  readPort(_vcpu: number, port: number, size: number): number {
    return this.ports.read(port, size);
  }

  writePort(_vcpu: number, port: number, size: number, value: number): void {
    this.ports.write(port, size, value);
  }

  readMmio(vcpu: number, gpa: number, data: Uint8Array): void {
    this.#board.readMmio(vcpu, gpa, data);
  }

  writeMmio(vcpu: number, gpa: number, data: Uint8Array): void {
    this.#board.writeMmio(vcpu, gpa, data);
  }

  hypercall(frame: HypercallFrame): HypercallResult {
    return this.#o.guestInterface?.hypercall(frame) ?? HypercallResult.Unknown;
  }

  acknowledgeInterrupt(vcpu: number): number {
    return this.#board.acknowledge(vcpu);
  }

  setTaskPriority(vcpu: number, priority: number): void {
    this.#board.apic(vcpu).setTaskPriority(priority);
  }
}

/** MSRs of the local APIC, which is ours. */
function isApicMsr(index: number): boolean {
  return (index >= X2APIC_FIRST && index <= X2APIC_LAST) ||
    index === MSR_APIC_BASE || index === MSR_TSC_DEADLINE;
}
