import type { DebugTransport } from "../debug_transport.ts";
import { isListening } from "../transports/listening.ts";
import type { KdnetCounters } from "./counters.ts";
import { contextRegisters, KdMachine, type KdRegisters } from "./context.ts";
import { KdnetHost } from "./kdnet_host.ts";
import { KdError, KdLink, type KdTiming } from "./link.ts";
import {
  encodeRequest,
  type KdVersion,
  MANIPULATE,
  type ManipulateName,
  parseManipulate,
  type ReplyFields,
  replyFields,
  type RequestFields,
} from "./manipulate.ts";
import { type KdPacket, KdPacketType } from "./packet.ts";
import type {
  KdSessionEvents,
  KdSessionOptions,
  ResumeOptions,
} from "./session_options.ts";
import { parseStateChange, type StateChange } from "./state_change.ts";
import { NtStatus } from "./status.ts";
import {
  type DebugIo,
  encodeFileAnswer,
  encodePromptAnswer,
  KdDebugIo,
  parseDebugIo,
  parseFileIo,
} from "./target_io.ts";
import { Waiters, type WaitOptions } from "./waiters.ts";

/** Most bytes of a memory call: what a reply over KDNET holds. */
const MAX_TRANSFER = 1096;
/** Most answers under way. */
const MAX_ANSWERS = 4;

/** A reply: its fields and the data that follow them. */
export interface KdReply<N extends ManipulateName> {
  /** The fields. */
  fields: ReplyFields<N>;
  /** What follows. */
  data: Uint8Array;
}

/** Fields that tell the reply of one request from that of another. */
const IDENTIFYING = ["address", "port", "msr"] as const;

/**
 * A debugger's session with a KDNET target: waits for it, breaks in, asks, lets it go on. It survives lost
 * packets and the target's restart.
 */
export class KdSession {
  readonly #transport: DebugTransport;
  readonly #events: KdSessionEvents;
  readonly #timing: KdTiming;
  readonly #host: KdnetHost;
  readonly #link: KdLink;
  #pumping: Promise<void> | undefined;
  #stop: StateChange | undefined;
  #version: KdVersion | undefined;
  #wasConnected = false;
  #answering = 0;
  #closed = false;
  readonly #waiters = new Waiters();

  private constructor(options: KdSessionOptions, host: KdnetHost) {
    this.#transport = options.transport;
    this.#events = options.events ?? {};
    this.#timing = options.timing ?? { interval: 500, tries: 12 };
    this.#host = host;
    this.#link = new KdLink(host, this.#timing);
    this.#link.onPacket = (packet) => this.#packet(packet);
    this.#transport.onActivity = () => this.#pump();
    this.#pump();
  }

  /**
   * Opens a session; a target may come at any time.
   *
   * @throws {SyntaxError} If the key is none.
   */
  static async open(options: KdSessionOptions): Promise<KdSession> {
    const { transport, key } = options;
    const host = await KdnetHost.create(
      key,
      (data, answer) =>
        answer && isListening(transport)
          ? transport.reply(data)
          : transport.send(data),
    );
    return new KdSession(options, host);
  }

  /** Whether the target has taken the session. */
  get connected(): boolean {
    return this.#host.connected;
  }

  /** The stop that the target is in; undefined while it runs. */
  get stop(): StateChange | undefined {
    return this.#stop;
  }

  /** What came in. */
  get counters(): Readonly<KdnetCounters> {
    return this.#host.counters;
  }

  /** Ends the session; the target stays as it is. The transport is the caller's. */
  close(): void {
    this.#closed = true;
    this.#transport.onActivity = undefined;
    this.#link.close();
    this.#waiters.close();
  }

  /** Waits until the target has taken the session. @throws {KdError} When the time is over or at the signal. */
  async waitForConnection(options: WaitOptions = {}): Promise<void> {
    await this.#waiters.until(() => this.connected, options);
  }

  /** Waits until the target stops. @throws {KdError} When the time is over or at the signal. */
  async waitForStop(options: WaitOptions = {}): Promise<StateChange> {
    await this.#waiters.until(() => this.#stop !== undefined, options);
    return this.#stop!;
  }

  /** Has the target stop. @throws {KdError} When the time is over or at the signal. */
  async breakIn(options: WaitOptions = {}): Promise<StateChange> {
    const knock = (reset: boolean): void => {
      if (this.#stop) return;
      this.#link.breakIn(reset).catch(() => {});
    };
    let tries = 0;
    const timer = setInterval(() => {
      // A target that is stopped already hears no break-in, but says so again after a reset.
      knock(++tries % 2 === 0);
    }, this.#timing.interval);
    // A target that comes meanwhile is not kept waiting.
    const come = (): void => knock(false);
    this.#waiters.add(come);
    come();
    try {
      return await this.waitForStop(options);
    } finally {
      clearInterval(timer);
      this.#waiters.delete(come);
    }
  }

  /** What the target is; asked once in a session. @throws {KdError} If it does not answer. */
  async version(): Promise<KdVersion> {
    this.#version ??= (await this.request("GetVersion", {})).fields;
    return this.#version;
  }

  /**
   * Makes a call of the KD API and waits for the reply.
   *
   * @throws {KdError} If the target runs, does not answer, or answers with an error.
   */
  async request<N extends ManipulateName>(
    name: N,
    fields: Readonly<Partial<RequestFields<N>>>,
    data?: Uint8Array,
  ): Promise<KdReply<N>> {
    const payload = encodeRequest(name, fields, data, this.#stopped(name));
    const values = fields as Record<string, number | bigint>;
    const accept = (packet: KdPacket): boolean => {
      if (packet.type !== KdPacketType.StateManipulate) return false;
      const reply = parseManipulate(packet.payload);
      if (reply?.api !== MANIPULATE[name].number) return false;
      const found = replyFields(name, reply.header) as Record<
        string,
        number | bigint
      >;
      return name === "SearchMemory" ||
        IDENTIFYING.every((field) =>
          !(field in values && field in found) || values[field] === found[field]
        );
    };
    const reply = parseManipulate(
      await this.#link.request(KdPacketType.StateManipulate, payload, accept),
    )!;
    // Errors and warnings have the highest bit.
    if (reply.status >= 0x8000_0000) {
      const status = `0x${reply.status.toString(16)}`;
      throw new KdError(
        `Cannot do ${name}: the target answered ${status}`,
        reply.status,
      );
    }
    return { fields: replyFields(name, reply.header), data: reply.data };
  }

  /**
   * Makes a call that the target acknowledges and does not answer; afterwards it runs.
   *
   * @throws {KdError} If the target runs already or does not acknowledge.
   */
  async command<N extends ManipulateName>(
    name: N,
    fields: Readonly<Partial<RequestFields<N>>>,
    processor?: number,
  ): Promise<void> {
    const { level, processor: current } = this.#stopped(name);
    const payload = encodeRequest(name, fields, undefined, {
      level,
      processor: processor ?? current,
    });
    // The next stop may come before the acknowledgement.
    this.#stop = undefined;
    await this.#link.send(KdPacketType.StateManipulate, payload);
  }

  /** Lets the target go on. @throws {KdError} If it runs already or does not acknowledge. */
  async resume(options: ResumeOptions = {}): Promise<void> {
    const { report } = this.#stopped("Continue2");
    const common = {
      continueStatus: options.unhandled
        ? NtStatus.ExceptionNotHandled
        : NtStatus.DebugContinue,
      trace: options.step ? 1 : 0,
    };
    // A start of 1 says that there is no range of symbols.
    if (await this.isLong()) {
      const dr7 = options.dr7 ?? report.dr7;
      await this.command("Continue2", { ...common, dr7, symbolStart: 1n });
    } else {
      // On i386 DR7 and the start have 32 bits.
      const dr7 = options.dr7 ?? (await this.getContext()).get("dr7");
      const low = BigInt.asUintN(32, dr7);
      await this.command("Continue2", { ...common, dr7: 1n << 32n | low });
    }
  }

  /** Goes on as another processor, which stops at once. @throws {KdError} As {@linkcode KdSession.command}. */
  async switchProcessor(
    processor: number,
    options: WaitOptions = {},
  ): Promise<StateChange> {
    await this.command("SwitchProcessor", {}, processor);
    return await this.waitForStop(options);
  }

  /**
   * Reads memory, as much of it as there is.
   *
   * @throws {KdError} If there is none at `address`.
   */
  readVirtual(address: bigint, length: number): Promise<Uint8Array> {
    return this.#read("ReadVirtualMemory", address, length);
  }

  /** Reads physical memory, as {@linkcode KdSession.readVirtual} does. */
  readPhysical(address: bigint, length: number): Promise<Uint8Array> {
    return this.#read("ReadPhysicalMemory", address, length);
  }

  /** Reads from a control space, as {@linkcode KdSession.readVirtual} does. */
  readControlSpace(space: bigint, length: number): Promise<Uint8Array> {
    return this.#read("ReadControlSpace", space, length);
  }

  /** Writes memory. @throws {KdError} If not all could be written. */
  writeVirtual(address: bigint, data: Uint8Array): Promise<void> {
    return this.#write("WriteVirtualMemory", address, data);
  }

  /** Writes physical memory. @throws {KdError} If not all could be written. */
  writePhysical(address: bigint, data: Uint8Array): Promise<void> {
    return this.#write("WritePhysicalMemory", address, data);
  }

  /** Writes a control space, at most 1096 bytes. @throws {KdError} If not all could be written. */
  writeControlSpace(space: bigint, data: Uint8Array): Promise<void> {
    return this.#write("WriteControlSpace", space, data);
  }

  /** Reads the registers. @throws {KdError} If the target refuses. */
  async getContext(): Promise<KdRegisters> {
    this.#stopped("GetContext");
    const { machine } = await this.version();
    const { data } = await this.request("GetContext", {});
    try {
      return contextRegisters(machine, data);
    } catch (error) {
      throw new KdError((error as Error).message);
    }
  }

  /** Writes the registers that {@linkcode KdSession.getContext} gave. @throws {KdError} If the target refuses. */
  async setContext(context: KdRegisters): Promise<void> {
    const flags = Number(context.get("contextFlags"));
    await this.request("SetContext", { flags }, context.bytes);
  }

  /** Whether the target's addresses have 64 bits. @throws {KdError} If it does not answer. */
  async isLong(): Promise<boolean> {
    return (await this.version()).machine !== KdMachine.X86;
  }

  /** Reads an MSR. @throws {KdError} If the target refuses. */
  async readMsr(msr: number): Promise<bigint> {
    const { fields } = await this.request("ReadMachineSpecificRegister", {
      msr,
    });
    return BigInt(fields.high) << 32n | BigInt(fields.low);
  }

  /** Writes an MSR. @throws {KdError} If the target refuses. */
  async writeMsr(msr: number, value: bigint): Promise<void> {
    await this.request("WriteMachineSpecificRegister", {
      msr,
      low: Number(BigInt.asUintN(32, value)),
      high: Number(BigInt.asUintN(32, value >> 32n)),
    });
  }

  /** Sets a breakpoint; returns its handle. @throws {KdError} If the target refuses. */
  async setBreakpoint(address: bigint): Promise<number> {
    return (await this.request("WriteBreakPoint", { address })).fields.handle;
  }

  /** Takes a breakpoint away. @throws {KdError} If there is none with this handle. */
  async clearBreakpoint(handle: number): Promise<void> {
    await this.request("RestoreBreakPoint", { handle });
  }

  /** Looks for bytes; undefined if they are not there. @throws {KdError} If the target refuses. */
  async search(
    address: bigint,
    length: bigint,
    pattern: Uint8Array,
  ): Promise<bigint | undefined> {
    const fields = { address, length, patternLength: pattern.length };
    try {
      return (await this.request("SearchMemory", fields, pattern)).fields
        .address;
    } catch (error) {
      if ((error as KdError).status === NtStatus.NotFound) return undefined;
      throw error;
    }
  }

  /** The stop that the target is in. @throws {KdError} If it runs. */
  #stopped(name: string): StateChange {
    if (this.#stop === undefined) {
      throw new KdError(`Cannot do ${name}: the target runs`);
    }
    return this.#stop;
  }

  async #read(
    name: "ReadVirtualMemory" | "ReadPhysicalMemory" | "ReadControlSpace",
    address: bigint,
    length: number,
  ): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length;) {
      const count = Math.min(length - at, MAX_TRANSFER);
      try {
        const { fields, data } = await this.request(name, {
          address: BigInt.asUintN(64, address + BigInt(at)),
          count,
        });
        // A target that claims more than it sent is not believed.
        const got = Math.min(fields.actual, data.length, count);
        bytes.set(data.subarray(0, got), at);
        if (got === 0) return bytes.subarray(0, at);
        at += got;
      } catch (error) {
        // A part is better than nothing.
        if (at === 0 || (error as KdError).status === undefined) throw error;
        return bytes.subarray(0, at);
      }
    }
    return bytes;
  }

  async #write(
    name: "WriteVirtualMemory" | "WritePhysicalMemory" | "WriteControlSpace",
    address: bigint,
    data: Uint8Array,
  ): Promise<void> {
    for (let at = 0; at < data.length;) {
      const part = data.subarray(at, at + MAX_TRANSFER);
      const { fields } = await this.request(name, {
        address: BigInt.asUintN(64, address + BigInt(at)),
        count: part.length,
      }, part);
      const done = Math.min(fields.actual, part.length);
      if (done === 0) {
        throw new KdError(`Cannot do ${name}: ${at} of ${data.length} bytes`);
      }
      at += done;
    }
  }

  /** Takes all that waits; one run at a time. */
  #pump(): void {
    this.#pumping ??= this.#receiveAll().finally(() => {
      this.#pumping = undefined;
      // What came between the last look and now.
      if (!this.#closed && this.#transport.pending > 0) this.#pump();
    });
  }

  async #receiveAll(): Promise<void> {
    for (;;) {
      const data = this.#closed ? undefined : this.#transport.receive();
      if (data === undefined) return;
      const event = await this.#host.receive(data);
      if (event === undefined) continue;
      // An offer may be a replayed one: while there is a session it moves nothing.
      if (
        isListening(this.#transport) &&
        (event.kind === "data" || !this.#host.connected)
      ) this.#transport.confirm();
      if (event.kind !== "data") {
        this.#events.onPoke?.(event);
        this.#waiters.wake();
        continue;
      }
      if (event.fresh) this.#begin();
      await this.#link.receive(event.payload);
    }
  }

  /** The target has taken a session. */
  #begin(): void {
    this.#link.restart("Cannot reach the target: it was restarted");
    this.#stop = undefined;
    this.#version = undefined;
    this.#events.onConnected?.(this.#wasConnected);
    this.#wasConnected = true;
    this.#waiters.wake();
  }

  #packet({ type, payload }: KdPacket): void {
    switch (type) {
      case KdPacketType.StateChange64: {
        const change = parseStateChange(payload);
        if (change !== undefined) this.#changed(change);
        return;
      }
      case KdPacketType.DebugIo: {
        const io = parseDebugIo(payload);
        if (io?.api === KdDebugIo.PrintString) this.#events.onPrint?.(io.text);
        // A target that gets no answer waits for ever.
        if (io?.api === KdDebugIo.GetString) {
          this.#answer(() => this.#prompt(io));
        }
        return;
      }
      case KdPacketType.FileIo: {
        const request = parseFileIo(payload);
        if (request === undefined) return;
        this.#events.onFile?.(request);
        const answer = encodeFileAnswer(payload, NtStatus.NoSuchFile);
        this.#answer(() => this.#link.send(type, answer));
      }
    }
  }

  async #prompt(io: DebugIo): Promise<void> {
    const text = await this.#events.onPrompt?.(io) ?? "";
    await this.#link.send(KdPacketType.DebugIo, encodePromptAnswer(io, text));
  }

  #changed(change: StateChange): void {
    if (!change.exception) {
      if (change.image) this.#events.onImage?.(change.image);
      const fields = { continueStatus: NtStatus.DebugContinue };
      const go = encodeRequest("Continue", fields, undefined, change);
      const type = KdPacketType.StateManipulate;
      this.#answer(() => this.#link.send(type, go));
      return;
    }
    // After a reset the target says again that it has stopped.
    const known = this.#stop !== undefined;
    this.#stop = change;
    if (!known) this.#events.onStop?.(change);
    this.#waiters.wake();
  }

  /**
   * Answers what the target waits for. If that is lost the target asks again; one that asks and never
   * takes an answer does not make them pile up.
   */
  #answer(work: () => Promise<void>): void {
    if (this.#answering === MAX_ANSWERS) return;
    this.#answering++;
    work().catch(() => {}).finally(() => this.#answering--);
  }
}
