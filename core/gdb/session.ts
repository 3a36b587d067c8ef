import type { Vcpu } from "../backend.ts";
import { type Hardware, Watch } from "./breakpoints.ts";
import {
  type Action,
  type DebuggedMachine,
  type Execution,
  type Stop,
  translate,
} from "./execution.ts";
import { DebugMemory } from "./memory.ts";
import { fromBytes, PACKET_SIZE, toBytes } from "./packet.ts";
import {
  type Layout,
  layoutFor,
  readAll,
  readOne,
  writeAll,
  writeOne,
} from "./registers.ts";

/** What a {@linkcode Session} works with. */
export interface SessionOptions {
  machine: DebuggedMachine;
  execution: Execution;
  /** Registers of 64 bits even before long mode is active. */
  amd64: boolean;
  /** Takes `monitor` commands; returns what to print. */
  monitor: (command: string, vcpu: Vcpu) => string;
  /** Sends a packet. */
  send: (data: string) => void;
}

/** What becomes of the connection after a packet. */
export type Verdict = "go on" | "no acks" | "close";

/** Errors as GDB numbers them (errno.h). */
const Errno = { Fault: "E0e", Invalid: "E16", NoSpace: "E1c" } as const;
const KINDS: Record<string, Watch> = {
  "1": Watch.Execute,
  "2": Watch.Write,
  "4": Watch.Access,
};

function hex(bytes: Uint8Array): string {
  return bytes.toHex();
}

/** Bytes of hexadecimal digits, or undefined. */
function unhex(text: string): Uint8Array | undefined {
  return /^([0-9a-f]{2})*$/i.test(text) ? Uint8Array.fromHex(text) : undefined;
}

/** A 64-bit number of hexadecimal digits. */
function number(digits: string): bigint {
  return BigInt.asUintN(64, BigInt(`0x${digits}`));
}

/** The commands of one client of the stub (GDB manual, E.2 to E.4). */
export class Session {
  readonly #o: SessionOptions;
  readonly #memory: DebugMemory;
  readonly #layout: Layout;
  /** Whom `g`, `G`, `p`, `P`, `m`, `M` and `X` are about. */
  #vcpu: Vcpu;
  /** The client understands these reasons of stops. */
  #reasons = new Set<string>();
  /** Asked for a resumption whose stop was not told yet. */
  #waiting = false;

  /** Stops the guest. */
  constructor(options: SessionOptions) {
    const { machine, execution } = options;
    this.#o = options;
    this.#vcpu = machine.vcpus[0]!;
    this.#memory = new DebugMemory(machine.vm.memory, execution.breakpoints);
    this.#layout = layoutFor(this.#vcpu, options.amd64);
    execution.onStop = (stop) => this.#stopped(stop);
    execution.attach();
  }

  /** The guest's run is over: for a client that waits it was a process that exited. */
  ended(code: number): void {
    if (!this.#waiting) return;
    this.#o.send(`W${(code & 255).toString(16).padStart(2, "0")}`);
  }

  /** Ctrl-C. */
  interrupt(): void {
    this.#o.execution.interrupt(this.#vcpu);
  }

  /** A packet; answers it unless the answer is a later stop. */
  packet(data: string): Verdict {
    const { execution, machine } = this.#o;
    switch (data) {
      case "QStartNoAckMode":
        this.#o.send("OK");
        return "no acks";
      case "k":
        machine.stop({ kind: "aborted" });
        execution.detach();
        return "close";
      case "D":
        execution.detach();
        this.#o.send("OK");
        return "close";
    }
    if (/^vKill;/.test(data)) {
      machine.stop({ kind: "aborted" });
      execution.detach();
      this.#o.send("OK");
      return "close";
    }
    let answer: string | undefined;
    try {
      answer = this.#answer(data);
    } catch {
      // A backend refuses what cannot be, such as a CR0 that no CPU has.
      answer = Errno.Invalid;
    }
    if (answer !== undefined) this.#o.send(answer);
    return "go on";
  }

  /** Undefined: it comes later. An empty answer says that the packet is not known. */
  #answer(data: string): string | undefined {
    switch (data[0]) {
      case "?":
        return this.#stopReply({ vcpu: this.#vcpu, signal: 5 });
      case "g":
        return readAll(this.#layout, this.#vcpu);
      case "p":
        return this.#readRegister(data);
      case "G":
      case "P":
        return this.#writeRegisters(data);
      case "m":
      case "M":
      case "X":
        return this.#access(data);
      case "H":
        return this.#selectThread(data);
      case "T":
        return this.#thread(data.slice(1)) ? "OK" : Errno.Invalid;
      case "Z":
      case "z":
        return this.#breakpoint(data);
      case "c":
      case "C":
      case "s":
      case "S":
        return this.#resumeOne(data);
      case "v":
        return this.#resume(data);
      case "q":
      case "Q":
        return this.#query(data);
      default:
        return "";
    }
  }

  // Stops. -----------------------------------------------------------------------

  #stopped(stop: Stop): void {
    if (!this.#waiting) return;
    this.#waiting = false;
    this.#vcpu = stop.vcpu;
    if (stop.message !== undefined) this.#print(`syndbg: ${stop.message}\n`);
    this.#o.send(this.#stopReply(stop));
  }

  #stopReply({ vcpu, signal, reason, watch }: Stop): string {
    let reply = `T${signal.toString(16).padStart(2, "0")}`;
    reply += `thread:${this.#threadId(vcpu)};`;
    if (watch) reply += `${watch.kind}:${watch.address.toString(16)};`;
    if (reason && this.#reasons.has(reason)) reply += `${reason}:;`;
    return reply;
  }

  /** Text for the user. */
  #print(text: string): void {
    const bytes = new TextEncoder().encode(text);
    const most = PACKET_SIZE / 2 - 1;
    for (let at = 0; at < bytes.length; at += most) {
      this.#o.send(`O${hex(bytes.subarray(at, at + most))}`);
    }
  }

  // Threads. ---------------------------------------------------------------------

  #threadId(vcpu: Vcpu): string {
    return (vcpu.id + 1).toString(16);
  }

  #thread(text: string): Vcpu | undefined {
    return this.#o.machine.vcpus.find((vcpu) =>
      /^[0-9a-f]{1,8}$/i.test(text) && vcpu.id + 1 === parseInt(text, 16)
    );
  }

  /** Those that a thread id means: -1 is all, 0 any. */
  #threads(text: string): readonly Vcpu[] {
    if (text === "-1") return this.#o.machine.vcpus;
    if (/^0+$/.test(text)) return [this.#vcpu];
    const vcpu = this.#thread(text);
    return vcpu ? [vcpu] : [];
  }

  #selectThread(data: string): string {
    const [vcpu] = this.#threads(data.slice(2));
    if (vcpu === undefined) return Errno.Invalid;
    // Hc is for c and s, of which every GDB here has vCont instead.
    if (data[1] === "g") this.#vcpu = vcpu;
    return "OK";
  }

  // Execution. -------------------------------------------------------------------

  #go(actions: ReadonlyMap<Vcpu, Action>): undefined {
    this.#o.execution.resume(actions);
    this.#waiting = true;
  }

  /** `c` and `s` with an optional address, `C` and `S` with a signal before it. */
  #resumeOne(data: string): string | undefined {
    const match = /^(?:([cs])|([CS])[0-9a-f]{1,2}(?:;(?=.))?)([0-9a-f]{1,16})?$/
      .exec(data);
    if (match === null) return Errno.Invalid;
    const [, plain, signalled, address] = match;
    if (address !== undefined) {
      this.#vcpu.setRegisters({ rip: number(address) });
      this.#o.execution.moved(this.#vcpu);
    }
    const step = (plain ?? signalled)!.toLowerCase() === "s";
    const moving = step ? [this.#vcpu] : this.#o.machine.vcpus;
    return this.#go(new Map(moving.map((vcpu) => [vcpu, { step }])));
  }

  #resume(data: string): string | undefined {
    if (data === "vCont?") return "vCont;c;C;s;S;t;r";
    if (!data.startsWith("vCont;")) return "";
    const actions = new Map<Vcpu, Action | undefined>();
    for (const part of data.slice(6).split(";")) {
      const match =
        /^(?:([cst])|([CS])[0-9a-f]{2}|r([0-9a-f]{1,16}),([0-9a-f]{1,16}))(?::(-1|[0-9a-f]{1,8}))?$/
          .exec(part);
      if (match === null) return Errno.Invalid;
      const [, plain, signalled, from, to, thread = "-1"] = match;
      const letter = (plain ?? signalled ?? "s").toLowerCase();
      const action: Action | undefined = letter === "t" ? undefined : {
        step: letter === "s",
        ...(from !== undefined && { range: [number(from), number(to!)] }),
      };
      for (const vcpu of this.#threads(thread)) {
        // The leftmost that fits counts.
        if (!actions.has(vcpu)) actions.set(vcpu, action);
      }
    }
    const moving = [...actions].filter((entry): entry is [Vcpu, Action] =>
      entry[1] !== undefined
    );
    return moving.length === 0 ? Errno.Invalid : this.#go(new Map(moving));
  }

  #breakpoint(data: string): string {
    const match = /^([Zz])([0-9]),([0-9a-f]{1,16}),([0-9a-f]{1,8})(?:;.*)?$/
      .exec(data);
    if (match === null) return Errno.Invalid;
    const [, action, type] = match;
    const address = number(match[3]!);
    const { breakpoints } = this.#o.execution;
    const add = action === "Z";
    if (type === "0") {
      if (!add) {
        breakpoints.removeSoftware(address);
        return "OK";
      }
      const gpa = translate(this.#vcpu, address);
      if (gpa === undefined) return Errno.Fault;
      return breakpoints.addSoftware(address, gpa) ? "OK" : Errno.NoSpace;
    }
    // No debug register stops at reads alone: GDB then takes an access watchpoint.
    const kind = KINDS[type!];
    if (kind === undefined) return "";
    const length = kind === Watch.Execute ? 1 : parseInt(match[4]!, 16);
    const hardware: Hardware = { kind, address, length };
    if (add && !breakpoints.addHardware(hardware)) return Errno.NoSpace;
    if (!add) breakpoints.removeHardware(hardware);
    return "OK";
  }

  // State. -----------------------------------------------------------------------

  #readRegister(data: string): string {
    const match = /^p([0-9a-f]{1,4})$/.exec(data);
    const value = match &&
      readOne(this.#layout, this.#vcpu, parseInt(match[1]!, 16));
    return value ?? Errno.Invalid;
  }

  #writeRegisters(data: string): string {
    const vcpu = this.#vcpu;
    const layout = this.#layout;
    const one = /^P([0-9a-f]{1,4})=(.*)$/.exec(data);
    const { rip } = vcpu.getRegisters();
    const done = one !== null
      ? writeOne(layout, vcpu, parseInt(one[1]!, 16), one[2]!)
      : data.startsWith("G") && writeAll(layout, vcpu, data.slice(1));
    if (vcpu.getRegisters().rip !== rip) this.#o.execution.moved(vcpu);
    return done ? "OK" : Errno.Invalid;
  }

  #access(data: string): string {
    const match = /^([mMX])([0-9a-f]{1,16}),([0-9a-f]{1,8})(?::([^]*))?$/.exec(
      data,
    );
    if (match === null) return Errno.Invalid;
    const [, action, , , payload = ""] = match;
    const address = number(match[2]!);
    const length = parseInt(match[3]!, 16);
    if (action === "m") {
      const most = Math.min(length, PACKET_SIZE / 2);
      const bytes = this.#memory.read(this.#vcpu, address, most);
      return bytes.length === 0 && length > 0 ? Errno.Fault : hex(bytes);
    }
    const bytes = action === "M" ? unhex(payload) : toBytes(payload);
    if (bytes?.length !== length) return Errno.Invalid;
    return this.#memory.write(this.#vcpu, address, bytes) ? "OK" : Errno.Fault;
  }

  // Queries. ---------------------------------------------------------------------

  #query(data: string): string {
    const [name, rest] = /^([^:,]*)[:,]?([^]*)$/.exec(data)!.slice(1);
    switch (name) {
      case "qSupported":
        for (const reason of ["swbreak", "hwbreak"]) {
          if (rest!.split(";").includes(`${reason}+`)) {
            this.#reasons.add(reason);
          }
        }
        return `PacketSize=${
          PACKET_SIZE.toString(16)
        };qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+`;
      case "qXfer":
        return this.#description(rest!);
      case "qAttached":
        return "1";
      case "qC":
        return `QC${this.#threadId(this.#vcpu)}`;
      case "qfThreadInfo":
        return `m${
          this.#o.machine.vcpus.map((vcpu) => this.#threadId(vcpu)).join(",")
        }`;
      case "qsThreadInfo":
        return "l";
      case "qThreadExtraInfo": {
        const vcpu = this.#thread(rest!);
        if (vcpu === undefined) return Errno.Invalid;
        return hex(toBytes(`vCPU ${vcpu.id}`));
      }
      case "qRcmd":
        return this.#command(rest!);
      // QEMU's names for addresses that are not translated.
      case "qqemu.PhyMemMode":
        return this.#memory.physical ? "1" : "0";
      case "Qqemu.PhyMemMode":
        this.#memory.physical = rest !== "0";
        return "OK";
      default:
        return "";
    }
  }

  #description(request: string): string {
    const match = /^features:read:target\.xml:([0-9a-f]{1,8}),([0-9a-f]{1,8})$/
      .exec(
        request,
      );
    if (match === null) return "E00";
    const from = parseInt(match[1]!, 16);
    // Room for the letter, and for an escape before each character.
    const most = Math.min(parseInt(match[2]!, 16), PACKET_SIZE / 2 - 1);
    const { xml } = this.#layout;
    const part = xml.slice(from, from + most);
    return `${from + part.length < xml.length ? "m" : "l"}${part}`;
  }

  #command(request: string): string {
    const bytes = unhex(request);
    if (bytes === undefined) return Errno.Invalid;
    this.#print(this.#o.monitor(fromBytes(bytes).trim(), this.#vcpu));
    return "OK";
  }
}
