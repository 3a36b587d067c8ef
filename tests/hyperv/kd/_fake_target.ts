import type { DebugTransport } from "../../../hyperv/debug_transport.ts";
import {
  AMD64_CONTEXT_LAYOUT,
  AMD64_CONTEXT_LENGTH,
  AMD64_SPECIAL_LAYOUT,
  AMD64_SPECIAL_LENGTH,
  KdMachine,
  KdRegisters,
} from "../../../hyperv/kd/context.ts";
import { KdnetTarget } from "../../../hyperv/kd/kdnet_target.ts";
import {
  encodeReply,
  type Manipulate,
  type ManipulateName,
  parseManipulate,
  type ReplyFields,
  requestFields,
} from "../../../hyperv/kd/manipulate.ts";
import {
  encodeKdControl,
  encodeKdPacket,
  encodeOpening,
  type KdPacket,
  KdPacketType,
  parseKdContent,
} from "../../../hyperv/kd/packet.ts";
import {
  encodeStateChange,
  KdStateChange,
} from "../../../hyperv/kd/state_change.ts";
import { NtStatus } from "../../../hyperv/kd/status.ts";
import {
  encodeDebugIo,
  encodeFileCreate,
  parseFileIo,
} from "../../../hyperv/kd/target_io.ts";
import { FakeCpu } from "./_cpu.ts";

export interface FakeTargetOptions {
  transport: DebugTransport;
  key: string;
  version?: number;
  /** Milliseconds between two tries. */
  interval?: number;
  /** Packet ids count up by 2, as Windows' do over KDNET, or toggle, as on a serial line. */
  ids?: "counter" | "toggle";
  base?: bigint;
  memorySize?: number;
}

const INT3 = 0xcc;
const MAX_READ = 1096;
/** Instructions between two looks at the wire. */
const SLICE = 100;

/** A KDNET target with a processor of a few instructions: what a debugger's end is tested against. */
export class FakeTarget {
  readonly cpu: FakeCpu;
  readonly msrs = new Map<number, bigint>([[0x1b, 0xfee0_0900n]]);
  /** Requests that were executed, by name. */
  readonly executed = new Map<string, number>();
  stopped = false;
  net!: KdnetTarget;
  readonly #o: Required<FakeTargetOptions>;
  readonly #breakpoints = new Map<number, [address: bigint, old: number]>();
  #id: number;
  #lastReceived: number | undefined;
  #lastReply: Uint8Array | undefined;
  #acknowledged: (() => void) | undefined;
  #sending: Promise<unknown> = Promise.resolve();
  #wanted: ((packet: KdPacket) => void) | undefined;
  #stopPayload: Uint8Array | undefined;
  #step = false;
  #closed = false;
  #pumping = false;
  #timer: ReturnType<typeof setInterval> | undefined;

  private constructor(options: FakeTargetOptions) {
    this.#o = {
      version: 5,
      interval: 50,
      ids: "counter",
      base: 0x10_0000n,
      memorySize: 0x1_0000,
      ...options,
    };
    this.cpu = new FakeCpu(this.#o.base, this.#o.memorySize);
    this.#id = this.#firstId();
  }

  /** Makes a target that pokes, and runs from the beginning of its memory once it is connected. */
  static async start(options: FakeTargetOptions): Promise<FakeTarget> {
    const target = new FakeTarget(options);
    await target.restart();
    target.moveTo(options.transport);
    target.#timer = setInterval(() => {
      if (!target.net.connected) target.net.poke().catch(() => {});
      else if (!target.stopped) target.#run();
    }, target.#o.interval);
    return target;
  }

  /** Begins anew, as after a reset: another session is offered. */
  async restart(): Promise<void> {
    const { key, version, base, memorySize } = this.#o;
    this.net = await KdnetTarget.create(
      key,
      (data) => this.#o.transport.send(data),
      { version },
    );
    this.#id = this.#firstId();
    this.#lastReceived = undefined;
    this.#lastReply = undefined;
    this.#stopPayload = undefined;
    this.#breakpoints.clear();
    this.stopped = false;
    this.cpu.registers.rip = base;
    this.cpu.registers.rsp = base + BigInt(memorySize);
    await this.net.poke();
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#o.transport.onActivity = undefined;
    this.#acknowledged?.();
  }

  /** Goes on over another wire. */
  moveTo(transport: DebugTransport): void {
    this.#o.transport = transport;
    transport.onActivity = () => void this.#pump();
  }

  print(text: string): Promise<void> {
    return this.#send(KdPacketType.DebugIo, encodeDebugIo(text));
  }

  async prompt(text: string, maximum: number): Promise<string> {
    const answer = new Promise<KdPacket>((resolve) => {
      this.#wanted = resolve;
    });
    await this.#send(KdPacketType.DebugIo, encodeDebugIo(text, maximum));
    const { payload } = await answer;
    const count = new DataView(payload.buffer, payload.byteOffset).getUint32(
      12,
      true,
    );
    return new TextDecoder().decode(payload.subarray(16, 16 + count));
  }

  /** Asks for a file; returns the status of the answer. */
  async openFile(name: string): Promise<number> {
    const answer = new Promise<KdPacket>((resolve) => {
      this.#wanted = resolve;
    });
    await this.#send(KdPacketType.FileIo, encodeFileCreate(name));
    return parseFileIo((await answer).payload)!.status;
  }

  /** Reports a loaded image. */
  loadImage(path: string, base: bigint): Promise<void> {
    return this.#send(
      KdPacketType.StateChange64,
      encodeStateChange({
        state: KdStateChange.LoadSymbols,
        image: { path, base, size: 0x1000 },
      }),
    );
  }

  /** Stops with an exception and waits for the debugger. */
  async stop(code: number): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    const { rip, eflags } = this.cpu.registers;
    for (const [address, old] of this.#breakpoints.values()) {
      this.cpu.bytes(address, 1)[0] = old;
    }
    this.#stopPayload = encodeStateChange({
      state: KdStateChange.Exception,
      processors: 1,
      programCounter: rip!,
      exception: { code, address: rip!, firstChance: 1 },
      report: {
        eflags: Number(eflags),
        dr7: 0x400n,
        cs: 0x10,
        instructions: this.cpu.bytes(rip!, 16),
      },
    });
    await this.#send(KdPacketType.StateChange64, this.#stopPayload);
  }

  /** Runs a slice of instructions. */
  #run(): void {
    for (let n = 0; n < SLICE && !this.stopped; n++) {
      if (this.#step) {
        this.#step = false;
        this.cpu.step();
        void this.stop(NtStatus.SingleStep);
      } else if (!this.cpu.step()) {
        void this.stop(
          this.cpu.bytes(this.cpu.registers.rip!, 1)[0] === INT3
            ? NtStatus.Breakpoint
            : NtStatus.IllegalInstruction,
        );
      }
    }
  }

  #resume(): void {
    this.stopped = false;
    this.#stopPayload = undefined;
    for (const [address] of this.#breakpoints.values()) {
      this.cpu.bytes(address, 1)[0] = INT3;
    }
    this.#run();
  }

  #firstId(): number {
    return this.#o.ids === "toggle" ? 0x8080_0800 : 0;
  }

  #nextId(id: number): number {
    return this.#o.ids === "toggle"
      ? ((id & ~0x800) ^ 1) >>> 0
      : (id + 2) >>> 0;
  }

  /** Sends a packet until it is acknowledged. */
  #send(type: number, payload: Uint8Array): Promise<void> {
    const turn = this.#sending.then(async () => {
      const net = this.net;
      const bytes = encodeKdPacket(type, this.#id, payload);
      const done = new Promise<boolean>((resolve) => {
        this.#acknowledged = () => resolve(true);
      });
      for (;;) {
        if (this.#closed || this.net !== net) return;
        await net.send(bytes);
        let timer: ReturnType<typeof setTimeout>;
        const late = new Promise<boolean>((resolve) => {
          timer = setTimeout(() => resolve(false), this.#o.interval);
        });
        const acknowledged = await Promise.race([done, late]);
        clearTimeout(timer!);
        if (acknowledged) break;
      }
      if (this.net === net) this.#id = this.#nextId(this.#id);
      this.#acknowledged = undefined;
    });
    this.#sending = turn;
    return turn;
  }

  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    for (let data; (data = this.#o.transport.receive()) !== undefined;) {
      const event = await this.net.receive(data);
      if (event?.kind === "connected") {
        this.#lastReceived = undefined;
        await this.net.send(encodeOpening(0));
      }
      if (event?.kind === "wanted") await this.net.poke(true);
      if (event?.kind === "data") await this.#receive(event.payload);
    }
    this.#pumping = false;
  }

  async #receive(payload: Uint8Array): Promise<void> {
    const content = parseKdContent(payload);
    if (content.kind === "break-in") void this.stop(NtStatus.Breakpoint);
    if (content.kind !== "packet") return;
    const { packet } = content;
    if (packet.control) {
      const id = this.#o.ids === "toggle" ? this.#id & ~0x800 : this.#id;
      if (
        packet.type === KdPacketType.Acknowledge && packet.id === id >>> 0
      ) this.#acknowledged?.();
      if (packet.type === KdPacketType.Reset) {
        if (this.#o.ids === "toggle") this.#lastReceived = undefined;
        await this.net.send(encodeKdControl(KdPacketType.Reset, this.#id));
        if (this.#stopPayload && !this.#acknowledged) {
          void this.#send(KdPacketType.StateChange64, this.#stopPayload);
        }
      }
      return;
    }
    if (this.#acknowledged) {
      // As Windows does while it waits itself.
      await this.net.send(encodeKdControl(KdPacketType.Resend, 0));
      return;
    }
    await this.net.send(encodeKdControl(KdPacketType.Acknowledge, packet.id));
    if (packet.id === this.#lastReceived) {
      if (this.#lastReply) {
        void this.#send(KdPacketType.StateManipulate, this.#lastReply);
      }
      return;
    }
    this.#lastReceived = packet.id;
    this.#lastReply = undefined;
    if (packet.type !== KdPacketType.StateManipulate) this.#wanted?.(packet);
    else if (this.stopped) this.#manipulate(parseManipulate(packet.payload)!);
  }

  #manipulate(request: Manipulate): void {
    const { name } = request;
    if (name === undefined) return;
    this.executed.set(name, (this.executed.get(name) ?? 0) + 1);
    const reply = this.#reply(name, request);
    if (reply !== undefined) {
      this.#lastReply = reply;
      void this.#send(KdPacketType.StateManipulate, reply);
    }
  }

  #reply(name: ManipulateName, request: Manipulate): Uint8Array | undefined {
    const { header, data } = request;
    const answer = <N extends ManipulateName>(
      which: N,
      fields: Partial<ReplyFields<N>>,
      bytes?: Uint8Array,
      status: number = NtStatus.Success,
    ): Uint8Array => encodeReply(which, status, fields, bytes);
    switch (name) {
      case "ReadVirtualMemory":
      case "ReadPhysicalMemory": {
        const { address, count } = requestFields("ReadVirtualMemory", header);
        const bytes = this.cpu.bytes(address, Math.min(count, MAX_READ));
        const status = bytes.length > 0
          ? NtStatus.Success
          : NtStatus.Unsuccessful;
        const actual = bytes.length;
        return answer(name, { address, count, actual }, bytes, status);
      }
      case "WriteVirtualMemory":
      case "WritePhysicalMemory": {
        const { address, count } = requestFields("WriteVirtualMemory", header);
        const target = this.cpu.bytes(address, Math.min(count, data.length));
        target.set(data.subarray(0, target.length));
        return answer(name, { address, count, actual: target.length });
      }
      case "GetContext":
        return answer(name, {}, this.#context());
      case "SetContext": {
        const context = new KdRegisters(AMD64_CONTEXT_LAYOUT, data);
        for (const key of Object.keys(this.cpu.registers)) {
          this.cpu.registers[key] = context.get(key);
        }
        return answer(name, {});
      }
      case "ReadControlSpace": {
        const special = new KdRegisters(
          AMD64_SPECIAL_LAYOUT,
          new Uint8Array(AMD64_SPECIAL_LENGTH),
        );
        special.set("cr3", 0x1000n);
        const fields = requestFields(name, header);
        const bytes = special.bytes.subarray(0, fields.count);
        return answer(name, { ...fields, actual: bytes.length }, bytes);
      }
      case "GetVersion":
        return answer(name, {
          major: 0xf,
          minor: 1,
          protocol: 6,
          secondary: 2,
          flags: 4,
          machine: KdMachine.Amd64,
          kernelBase: this.#o.base,
        });
      case "WriteBreakPoint": {
        const { address } = requestFields(name, header);
        const old = this.cpu.bytes(address, 1)[0];
        if (old === undefined) {
          return answer(name, { address }, undefined, NtStatus.Unsuccessful);
        }
        let handle = 1;
        while (this.#breakpoints.has(handle)) handle++;
        this.#breakpoints.set(handle, [address, old]);
        return answer(name, { address, handle });
      }
      case "RestoreBreakPoint": {
        const { handle } = requestFields(name, header);
        const status = this.#breakpoints.delete(handle)
          ? NtStatus.Success
          : NtStatus.Unsuccessful;
        return answer(name, { handle }, undefined, status);
      }
      case "ReadMachineSpecificRegister": {
        const { msr } = requestFields(name, header);
        const value = this.msrs.get(msr);
        return answer(
          name,
          {
            msr,
            low: Number(BigInt.asUintN(32, value ?? 0n)),
            high: Number((value ?? 0n) >> 32n),
          },
          undefined,
          value === undefined ? NtStatus.Unsuccessful : NtStatus.Success,
        );
      }
      case "WriteMachineSpecificRegister": {
        const fields = requestFields(name, header);
        const value = BigInt(fields.high) << 32n | BigInt(fields.low);
        this.msrs.set(fields.msr, value);
        return answer(name, fields);
      }
      case "SearchMemory": {
        const { address, length } = requestFields(name, header);
        const bytes = this.cpu.bytes(address, Number(length));
        const at = bytes.findIndex((_, n) =>
          data.every((byte, k) => bytes[n + k] === byte)
        );
        return answer(
          name,
          { address: address + BigInt(Math.max(at, 0)) },
          undefined,
          at < 0 ? NtStatus.NotFound : NtStatus.Success,
        );
      }
      case "Continue":
      case "Continue2":
        this.#step = name === "Continue2" &&
          requestFields(name, header).trace === 1;
        this.#resume();
        return undefined;
      case "Reboot":
        void this.restart();
        return undefined;
      case "CauseBugCheck":
        this.stopped = false;
        void this.print("*** Fatal System Error: 0x000000e2\n").then(() =>
          this.stop(NtStatus.Breakpoint)
        );
        return undefined;
      default:
        return encodeReply(name, NtStatus.NotImplemented, {});
    }
  }

  #context(): Uint8Array {
    const context = new KdRegisters(
      AMD64_CONTEXT_LAYOUT,
      new Uint8Array(AMD64_CONTEXT_LENGTH),
    );
    context.set("contextFlags", 0x10_001fn);
    for (const [key, value] of Object.entries(this.cpu.registers)) {
      context.set(key, value);
    }
    return context.bytes;
  }
}
