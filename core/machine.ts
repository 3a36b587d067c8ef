import {
  type Backend,
  type HypercallFrame,
  HypercallResult,
  MsrResult,
  type Vcpu,
  type Vm,
  type VmHost,
} from "./backend.ts";
import { PortBus } from "./bus.ts";
import { Cmos } from "./devices/cmos.ts";
import { PicPair } from "./devices/pic.ts";
import { Pit } from "./devices/pit.ts";
import {
  debugExit,
  debugText,
  keyboardController,
  sink,
  systemControl,
} from "./devices/simple.ts";
import { Uart } from "./devices/uart.ts";
import type { GuestMemory } from "./guest_memory.ts";
import { Port } from "./memory_map.ts";
import { yieldToEvents } from "./yield.ts";

/** What a hypervisor's guest interface adds to a machine. */
export type GuestInterface = Pick<
  VmHost,
  "readMsr" | "writeMsr" | "hypercall"
>;

/** How a {@linkcode Machine} is made. */
export interface MachineOptions {
  /** Executes the guest. */
  backend: Backend;
  /** RAM. */
  memory: GuestMemory;
  /** Asked for MSRs and hypercalls that the CPU itself does not know. */
  guestInterface?: GuestInterface;
  /** MSRs that nobody knows: #GP (default), or read as 0 and take writes. */
  unknownMsrs?: "gp" | "ignore";
  /** Takes what the guest sends on COM1 and port 0xE9. */
  onOutput?: (byte: number) => void;
  /** Nanoseconds, monotonic, for timers. Default the host's. */
  now?: () => number;
}

/** How a run of a {@linkcode Machine} ended. */
export type MachineOutcome =
  /** The guest wrote an exit code. */
  | { kind: "exit"; code: number }
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

/** Milliseconds that the guest runs before the event loop gets its turn. */
const SLICE = 5;
/** Longest sleep of a halted guest before its timers are looked at again. */
const NAP = 20;
const IF = 512n;

/**
 * A PC of the simple kind: RAM, one vCPU, interrupt controllers, timer, clock, serial port and
 * debug ports, around any backend.
 */
export class Machine implements VmHost {
  /** The virtual machine. */
  readonly vm: Vm;
  /** Its vCPUs. */
  readonly vcpus: readonly Vcpu[];
  /** Ports; add devices before running. */
  readonly ports: PortBus = new PortBus();
  readonly #o: MachineOptions;
  readonly #pic: PicPair;
  readonly #pit: Pit;
  readonly #uart: Uart;
  #outcome: MachineOutcome | undefined;
  #wake: (() => void) | undefined;

  /** Makes the machine with its devices; nothing runs yet. */
  constructor(options: MachineOptions) {
    this.#o = options;
    const now = options.now ?? (() => performance.now() * 1e6);
    const output = options.onOutput ?? (() => {});
    const reset = (): void => this.stop({ kind: "reset" });
    this.vm = options.backend.createVm(options.memory, this);
    this.vcpus = [this.vm.createVcpu()];
    this.#pic = new PicPair((asserted) => {
      this.vcpus[0]!.setInterruptRequest(asserted);
    });
    this.#pit = new Pit(now, (level) => this.#pic.setLine(0, level));
    this.#uart = new Uart(
      Port.Com1,
      output,
      (level) => this.#pic.setLine(4, level),
    );
    this.#pit.reset();
    const { ports } = this;
    ports.add(Port.Pic1, 2, this.#pic);
    ports.add(Port.Pic2, 2, this.#pic);
    ports.add(0x4d0, 2, this.#pic);
    ports.add(Port.Pit, 4, this.#pit);
    ports.add(Port.SystemB, 1, this.#pit);
    const keyboard = keyboardController(reset);
    ports.add(Port.Keyboard, 1, keyboard);
    ports.add(Port.KeyboardCommand, 1, keyboard);
    ports.add(Port.Cmos, 2, new Cmos(options.memory.size));
    ports.add(Port.Post, 1, sink);
    ports.add(Port.IoDelay, 1, sink);
    ports.add(Port.SystemA, 1, systemControl(reset));
    ports.add(Port.DebugText, 1, debugText(output));
    ports.add(
      Port.DebugExit,
      4,
      debugExit((code) => this.stop({ kind: "exit", code })),
    );
    ports.add(Port.Com1, 8, this.#uart);
  }

  /** Bytes for the guest's serial port. */
  sendSerial(bytes: Uint8Array): void {
    this.#uart.receive(bytes);
    this.wake();
  }

  /** Wakes the machine from waiting for an event, and ends a time slice early. */
  wake(): void {
    this.#wake?.();
  }

  /** Ends the run with an outcome. */
  stop(outcome: MachineOutcome): void {
    this.#outcome ??= outcome;
    this.vcpus[0]!.kick();
    this.wake();
  }

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
    const vcpu = this.vcpus[0]!;
    try {
      while (this.#outcome === undefined) {
        const left = timeout - (performance.now() - start);
        if (left <= 0) return { kind: "timeout" };
        this.#pit.update();
        const slice = Math.min(SLICE, this.#untilTimer(), left);
        const exit = vcpu.run(Math.max(0.05, slice));
        if (this.#outcome !== undefined) break;
        switch (exit.reason) {
          case "hlt":
            if ((vcpu.getRegisters().rflags & IF) === 0n) {
              return { kind: "halted" };
            }
            // The guest may have set the timer just now.
            await this.#sleep(Math.min(NAP, this.#untilTimer(), left));
            break;
          case "shutdown":
            return { kind: "shutdown" };
          case "internal-error":
            return { kind: "error", message: exit.message };
          case "debug":
            return { kind: "error", message: "stopped by a debug event" };
          default:
            await yieldToEvents();
        }
      }
      return this.#outcome!;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Milliseconds until the timer wants to interrupt. */
  #untilTimer(): number {
    return this.#pit.untilNext() / 1e6;
  }

  #sleep(milliseconds: number): Promise<void> {
    return new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, milliseconds));
      this.#wake = (): void => {
        clearTimeout(timer);
        resolve();
      };
    }).then(() => {
      this.#wake = undefined;
    });
  }

  /** Frees the VM. */
  close(): void {
    this.vm.close();
  }

  readMsr(vcpu: number, index: number, value: Uint32Array): MsrResult {
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
    const result = this.#o.guestInterface?.writeMsr(vcpu, index, low, high) ??
      MsrResult.Unknown;
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

  readMmio(_vcpu: number, _gpa: number, data: Uint8Array): void {
    data.fill(0xff);
  }

  writeMmio(_vcpu: number, _gpa: number, _data: Uint8Array): void {}

  hypercall(frame: HypercallFrame): HypercallResult {
    return this.#o.guestInterface?.hypercall(frame) ?? HypercallResult.Unknown;
  }

  acknowledgeInterrupt(_vcpu: number): number {
    return this.#pic.acknowledge();
  }
}
