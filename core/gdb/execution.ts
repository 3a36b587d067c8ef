import type { Vcpu, VcpuExit } from "../backend.ts";
import type { Machine, MachineDebugger } from "../machine.ts";
import { Breakpoints, Watch } from "./breakpoints.ts";
import { linearPc, longMode } from "./registers.ts";

/** What of a machine a debugger needs. */
export type DebuggedMachine = Pick<
  Machine,
  "vcpus" | "vm" | "wake" | "stop" | "debugger"
>;

/** What a vCPU does until the next stop. */
export interface Action {
  /** Stop after one instruction; else run. */
  step: boolean;
  /** Go on stepping while RIP is in here, from the first on and below the second. */
  range?: readonly [bigint, bigint];
}

/** Numbers of signals as GDB knows them. */
export const Signal = { Int: 2, Ill: 4, Trap: 5, Segv: 11, Stop: 17 } as const;

/** Why the guest has stopped. */
export interface Stop {
  vcpu: Vcpu;
  signal: number;
  /** Field of a stop reply, for those who know it. */
  reason?: "swbreak" | "hwbreak";
  /** Field of a stop reply: a watchpoint and its address. */
  watch?: { kind: "watch" | "awatch"; address: bigint };
  /** For the user to read. */
  message?: string;
}

/** An instruction that is executed without the breakpoint on it, while all other vCPUs wait. */
interface StepOver {
  vcpu: Vcpu;
  pc: bigint;
  /** Where the instruction is in RAM, if it is. */
  gpa: number | undefined;
}

/** Linear addresses have 48 bits, or 57 with CR4.LA57, and the sign of the last. */
function canonical(linear: bigint, cr4: bigint): boolean {
  const bits = (cr4 & 0x1000n) !== 0n ? 57 : 48;
  return BigInt.asUintN(64, BigInt.asIntN(bits, linear)) === linear;
}

/** Guest-physical address of a linear one, or undefined where nothing is mapped. */
export function translate(vcpu: Vcpu, linear: bigint): number | undefined {
  const system = vcpu.getSystemRegisters();
  if (longMode(system)) {
    if (!canonical(linear, system.cr4)) return undefined;
  } else if (linear >> 32n !== 0n) return undefined;
  const gpa = vcpu.translate(linear);
  return gpa === undefined ? undefined : Number(gpa);
}

/** Runs and stops the vCPUs of a machine as a debugger says. */
export class Execution implements MachineDebugger {
  /** Its breakpoints; to be changed while the guest is stopped. */
  readonly breakpoints: Breakpoints;
  /** Told of each stop but those that {@linkcode Execution.attach} makes. */
  onStop: ((stop: Stop) => void) | undefined;
  readonly #machine: DebuggedMachine;
  /** What each vCPU does, the others wait; undefined: no debugger, all run. */
  #actions: ReadonlyMap<Vcpu, Action> | undefined;
  /** The vCPU that stands where the last stop showed it: it is past the breakpoint there. */
  #shown: Vcpu | undefined;
  #over: StepOver | undefined;

  /**
   * Takes a machine over.
   *
   * @param wait The guest waits for a debugger before its first instruction.
   */
  constructor(machine: DebuggedMachine, wait: boolean) {
    this.#machine = machine;
    this.breakpoints = new Breakpoints(machine.vm.memory);
    if (wait) this.#actions = new Map();
    machine.debugger = this;
  }

  /** Whether a vCPU runs. */
  get running(): boolean {
    return this.#actions === undefined || this.#actions.size > 0;
  }

  holds(vcpu: Vcpu): boolean {
    if (this.#over !== undefined) return vcpu !== this.#over.vcpu;
    return this.#actions !== undefined && !this.#actions.has(vcpu);
  }

  stopped(vcpu: Vcpu, exit: VcpuExit): boolean {
    const action = this.#actions?.get(vcpu);
    if (action === undefined) return false;
    switch (exit.reason) {
      case "debug":
        if (exit.breakpoint) this.#breakpoint(vcpu);
        else this.#trap(vcpu, action, exit.dr6);
        return true;
      case "hlt":
        this.#stop({
          vcpu,
          signal: Signal.Stop,
          message: "the guest halted with interrupts off",
        });
        return true;
      case "shutdown":
        this.#stop({ vcpu, signal: Signal.Segv, message: "triple fault" });
        return true;
      case "internal-error":
        this.#stop({ vcpu, signal: Signal.Ill, message: exit.message });
        return true;
      default:
        return false;
    }
  }

  /** Stops the guest for a debugger that comes. */
  attach(): void {
    this.#lower();
    this.#actions = new Map();
    this.#shown = this.#machine.vcpus[0];
  }

  /** Stops the guest on request. */
  interrupt(vcpu: Vcpu): void {
    if (this.running) this.#stop({ vcpu, signal: Signal.Int });
  }

  /** Lets the vCPUs do what `actions` says, those that it does not name wait. */
  resume(actions: ReadonlyMap<Vcpu, Action>): void {
    this.#lower();
    this.#actions = actions;
    const vcpu = this.#shown;
    if (vcpu !== undefined && actions.has(vcpu)) this.#stepOver(vcpu);
    this.#shown = undefined;
    for (const each of actions.keys()) this.#arm(each);
    this.#machine.wake();
  }

  /** The debugger has moved a vCPU to another instruction. */
  moved(vcpu: Vcpu): void {
    if (this.#shown === vcpu) this.#shown = undefined;
  }

  /** Takes all breakpoints out and lets the guest run. */
  detach(): void {
    this.#disarm();
    this.#actions = undefined;
    this.#machine.wake();
  }

  /** The debugger has gone without a word: a guest that runs goes on, one that waits waits. */
  abandon(): void {
    if (this.running) this.detach();
    else this.#disarm();
  }

  #disarm(): void {
    this.#lower();
    this.breakpoints.clear();
    for (const vcpu of this.#machine.vcpus) vcpu.setGuestDebug(undefined);
  }

  /** INT3 was met. */
  #breakpoint(vcpu: Vcpu): void {
    const pc = linearPc(vcpu);
    const gpa = translate(vcpu, pc);
    const patched = gpa !== undefined && gpa !== this.#over?.gpa &&
      this.breakpoints.isPatched(gpa);
    if (!patched) {
      // The guest's own.
      vcpu.passBreakpoint();
    } else if (this.breakpoints.hasSoftware(pc)) {
      this.#stop({
        vcpu,
        signal: Signal.Trap,
        ...this.#at(vcpu, pc, "swbreak"),
      });
    } else {
      // The same byte of RAM at an address where no breakpoint was set.
      this.#stepOver(vcpu);
      this.#arm(vcpu);
    }
  }

  /** #DB: a debug register, or the end of a step. */
  #trap(vcpu: Vcpu, action: Action, dr6: bigint): void {
    const pc = linearPc(vcpu);
    const hit = this.breakpoints.hit(dr6);
    const over = this.#over;
    this.#lower();
    if (hit !== undefined && hit.kind !== Watch.Execute) {
      this.#stop({
        vcpu,
        signal: Signal.Trap,
        watch: {
          kind: hit.kind === Watch.Write ? "watch" : "awatch",
          address: hit.address,
        },
      });
    } else if (hit !== undefined && hit.address === pc) {
      this.#stop({
        vcpu,
        signal: Signal.Trap,
        ...this.#at(vcpu, pc, "hwbreak"),
      });
    } else if (over !== undefined && !action.step) {
      this.#arm(vcpu);
    } else {
      const { rip } = vcpu.getRegisters();
      const [from, to] = action.range ?? [0n, 0n];
      if (rip >= from && rip < to) this.#arm(vcpu);
      else this.#stop({ vcpu, signal: Signal.Trap });
    }
  }

  /**
   * GDB takes a breakpoint that is named as the reason and not where RIP is for one that it has
   * removed, and goes on. With a segment base RIP is elsewhere.
   */
  #at(
    vcpu: Vcpu,
    pc: bigint,
    reason: "swbreak" | "hwbreak",
  ): Pick<Stop, "reason"> {
    return vcpu.getRegisters().rip === pc ? { reason } : {};
  }

  #stop(stop: Stop): void {
    this.#lower();
    this.#actions = new Map();
    this.#shown = stop.vcpu;
    this.onStop?.(stop);
  }

  /** Has a vCPU execute its next instruction without the breakpoint on it, if there is one. */
  #stepOver(vcpu: Vcpu): void {
    const pc = linearPc(vcpu);
    const gpa = translate(vcpu, pc);
    const patched = gpa !== undefined && this.breakpoints.isPatched(gpa);
    if (!patched && !this.breakpoints.hasHardware(pc)) return;
    this.#over = { vcpu, pc, gpa };
    if (gpa !== undefined) this.breakpoints.lift(gpa);
  }

  #lower(): void {
    const gpa = this.#over?.gpa;
    this.#over = undefined;
    if (gpa !== undefined) this.breakpoints.lower(gpa);
  }

  /** Tells a vCPU what to stop at. */
  #arm(vcpu: Vcpu): void {
    const over = this.#over?.vcpu === vcpu ? this.#over : undefined;
    const step = over !== undefined || this.#actions?.get(vcpu)?.step === true;
    vcpu.setGuestDebug({
      ...this.breakpoints.guestDebug(over?.pc),
      ...(step && { singleStep: true, blockInterrupts: true }),
    });
  }
}
