import type { KdRegisters } from "./context.ts";
import { stepKind } from "./instructions.ts";
import { KdError } from "./link.ts";
import type { KdSession } from "./session.ts";
import type { ResumeOptions } from "./session_options.ts";
import type { StateChange } from "./state_change.ts";
import { NtStatus } from "./status.ts";
import type { WaitOptions } from "./waiters.ts";

/** A breakpoint of the debugger's. */
export interface KdBreakpoint {
  /** Its number, from 0. */
  id: number;
  /** Where it is. */
  address: bigint;
  /** Whether it is set when the target runs. */
  enabled: boolean;
  /** How often it was hit. */
  hits: number;
}

/** How {@linkcode KdDebugger.go} goes. */
export interface GoOptions extends WaitOptions {
  /** Stop here too, once. */
  until?: bigint;
  /** The exception was not handled. */
  unhandled?: boolean;
}

/** Handles that a target has in all. */
const HANDLES = 32;
const INT3 = 0xcc;

/**
 * What a debugger does beyond asking: breakpoints, going on from one, stepping over calls. While the target is
 * stopped no breakpoint is in its memory, as with WinDbg: they are set when it goes on and taken back when it
 * stops.
 */
export class KdDebugger {
  /** The session with the target. */
  readonly session: KdSession;
  readonly #breakpoints = new Map<number, KdBreakpoint>();
  #nextId = 0;
  /** Handles of what is set in the target, for one session of it. */
  #handles: number[] = [];
  #reclaimed = false;

  /** Debugs the target of a session. */
  constructor(session: KdSession) {
    this.session = session;
  }

  /** The breakpoints, by number. */
  get breakpoints(): KdBreakpoint[] {
    return [...this.#breakpoints.values()];
  }

  /** To be called when the target was restarted: nothing is set in it any more. */
  targetRestarted(): void {
    this.#handles = [];
    this.#reclaimed = false;
  }

  /** Adds a breakpoint; one that is there already is enabled. */
  addBreakpoint(address: bigint): KdBreakpoint {
    const there = this.breakpoints.find((entry) => entry.address === address);
    if (there !== undefined) {
      there.enabled = true;
      return there;
    }
    const breakpoint = {
      id: this.#nextId++,
      address,
      enabled: true,
      hits: 0,
    };
    this.#breakpoints.set(breakpoint.id, breakpoint);
    return breakpoint;
  }

  /** Takes a breakpoint away; false if there is none of that number. */
  removeBreakpoint(id: number): boolean {
    return this.#breakpoints.delete(id);
  }

  /** Has the target stop. @throws {KdError} As {@linkcode KdSession.breakIn}. */
  async breakIn(options: WaitOptions = {}): Promise<StateChange> {
    await this.session.breakIn(options);
    return await this.#stopped();
  }

  /** Lets the target go until it stops. @throws {KdError} As {@linkcode KdSession.waitForStop}. */
  async go(options: GoOptions = {}): Promise<StateChange> {
    const { until, unhandled, ...wait } = options;
    const pc = this.#programCounter();
    await this.#skipInt3();
    if (this.#isSet(pc)) {
      // It would be hit at once: one step without it.
      const stop = await this.#stepOnce(wait, unhandled);
      if (!isStep(stop)) return stop;
    }
    return await this.#run(until === undefined ? [] : [until], {
      ...wait,
      ...(unhandled !== undefined && { unhandled }),
    });
  }

  /** Executes one instruction. @throws {KdError} As {@linkcode KdDebugger.go}. */
  async step(options: WaitOptions = {}): Promise<StateChange> {
    await this.#skipInt3();
    return await this.#stepOnce(options);
  }

  /**
   * Executes one instruction, a called function and all repetitions included.
   *
   * @throws {KdError} As {@linkcode KdDebugger.go}.
   */
  async stepOver(options: WaitOptions = {}): Promise<StateChange> {
    const long = await this.session.isLong();
    const pc = this.#programCounter();
    const code = await this.session.readVirtual(pc, 16);
    const kind = stepKind(code, long);
    if (kind.kind === "other") return await this.step(options);
    await this.#skipInt3();
    const first = await this.#stepOnce(options);
    if (!isStep(first)) return first;
    const context = await this.session.getContext();
    const now = this.#programCounter();
    if (kind.kind === "repeat") {
      return now === pc
        ? await this.#run([pc + BigInt(kind.length)], options)
        : first;
    }
    // The call has put the return address on the stack; a deeper return to the same place does not count.
    const stack = context.get(long ? "rsp" : "esp");
    const back = await this.readPointer(stack);
    for (;;) {
      const stop = await this.#run([back], options);
      if (stop.programCounter !== back || !isBreakpoint(stop)) return stop;
      const { session } = this;
      const level = (await session.getContext()).get(long ? "rsp" : "esp");
      if (level > stack || this.#isSet(back)) return stop;
      const over = await this.#stepOnce(options);
      if (!isStep(over)) return over;
    }
  }

  /** Takes all breakpoints out of the target and lets it go on alone. @throws {KdError} If it cannot be stopped for that. */
  async detach(options: WaitOptions = {}): Promise<void> {
    if (this.session.stop === undefined) {
      if (this.#handles.length === 0) return;
      await this.breakIn(options);
    }
    await this.#skipInt3();
    await this.session.resume();
  }

  /** Reads a pointer. @throws {KdError} If memory is not there. */
  async readPointer(address: bigint): Promise<bigint> {
    const size = await this.session.isLong() ? 8 : 4;
    return await this.readNumber(address, size);
  }

  /** Reads an unsigned number of 1, 2, 4 or 8 bytes. @throws {KdError} If memory is not there. */
  async readNumber(address: bigint, size: number): Promise<bigint> {
    const bytes = await this.session.readVirtual(address, size);
    if (bytes.length < size) {
      throw new KdError(`Cannot read memory: 0x${address.toString(16)}`);
    }
    return bytes.reduceRight((sum, byte) => sum << 8n | BigInt(byte), 0n);
  }

  /** Changes registers. @throws {KdError} If the target refuses. */
  async changeContext(
    change: (context: KdRegisters) => void,
  ): Promise<KdRegisters> {
    const context = await this.session.getContext();
    change(context);
    await this.session.setContext(context);
    return context;
  }

  #programCounter(): bigint {
    const { stop } = this.session;
    if (stop === undefined) throw new KdError("Cannot go on: the target runs");
    return stop.programCounter;
  }

  #isSet(address: bigint): boolean {
    return this.breakpoints.some((entry) =>
      entry.enabled && entry.address === address
    );
  }

  /** A breakpoint that is the program's own is not executed again. */
  async #skipInt3(): Promise<void> {
    const stop = this.session.stop!;
    const hit = isBreakpoint(stop) &&
      (await this.session.readVirtual(stop.programCounter, 1))[0] === INT3;
    if (!hit) return;
    const pc = await this.session.isLong() ? "rip" : "eip";
    await this.changeContext((context) => {
      if (context.get(pc) === stop.programCounter) {
        context.set(pc, stop.programCounter + 1n);
      }
    });
  }

  async #stepOnce(
    wait: WaitOptions,
    unhandled = false,
  ): Promise<StateChange> {
    return await this.#resume({ step: true, unhandled }, wait);
  }

  /** Goes on with breakpoints set. */
  async #run(
    extra: readonly bigint[],
    { unhandled = false, ...wait }: GoOptions,
  ): Promise<StateChange> {
    const enabled = this.breakpoints.filter((entry) => entry.enabled);
    const addresses = new Set([
      ...enabled.map((entry) => entry.address),
      ...extra,
    ]);
    try {
      for (const address of addresses) {
        this.#handles.push(await this.session.setBreakpoint(address));
      }
    } catch (error) {
      await this.#takeBack();
      throw error;
    }
    return await this.#resume({ unhandled }, wait);
  }

  async #resume(
    options: ResumeOptions,
    wait: WaitOptions,
  ): Promise<StateChange> {
    await this.session.resume(options);
    await this.session.waitForStop(wait);
    return await this.#stopped();
  }

  async #stopped(): Promise<StateChange> {
    const stop = this.session.stop!;
    await this.#takeBack();
    if (isBreakpoint(stop)) {
      const hit = this.breakpoints.find((entry) =>
        entry.enabled && entry.address === stop.programCounter
      );
      if (hit !== undefined) hit.hits++;
    }
    return stop;
  }

  /** Takes breakpoints out of memory; of a target that was just found also those of a debugger before. */
  async #takeBack(): Promise<void> {
    const handles = this.#handles;
    this.#handles = [];
    if (!this.#reclaimed) {
      this.#reclaimed = true;
      for (let handle = 1; handle <= HANDLES; handle++) handles.push(handle);
    }
    for (const handle of new Set(handles)) {
      await this.session.clearBreakpoint(handle).catch((error: KdError) => {
        // That there is none is what is wanted.
        if (error.status === undefined) throw error;
      });
    }
  }
}

function isStep(stop: StateChange): boolean {
  return stop.exception?.code === NtStatus.SingleStep;
}

function isBreakpoint(stop: StateChange): boolean {
  return stop.exception?.code === NtStatus.Breakpoint;
}
