import type { GuestMemory } from "../core/guest_memory.ts";
import type { DebugTransport } from "./debug_transport.ts";
import { DEBUG_MAX_DATA, DebugOption, HvStatus } from "./defs/hypercall.ts";
import { SYNDBG_PAGE, SyndbgControl, SyndbgStatus } from "./defs/syndbg.ts";
import { FrameLayer, type FrameState } from "./frames/frame_layer.ts";

/** Behaviour profiles: what a guest of KVM with QEMU sees, or what TLFS says. */
export type Profile = "hyperv" | "kvm";

/** Most payload bytes QEMU receives: a page less Ethernet, IPv4 and UDP headers. */
const KVM_RECEIVE_MAX = 4054;
/** Largest payload of UDP over IPv4. */
const UDP_MAX = 65_507;
/** Not a status code: the call has to be tried again. */
const RETRY = -1;

/** State as plain data. */
export interface SynDbgState {
  /** GPA of the pending byte, 0 if none. */
  pendingPage: number;
  /** State of the frame layer. */
  frames: FrameState;
}

/**
 * The debug device behind both front ends: MSR commands with bare payloads, and the
 * hypercalls with Ethernet frames. One of these serves a whole partition.
 */
export class SynDbg {
  readonly #memory: GuestMemory;
  readonly #transport: DebugTransport;
  readonly #tlfs: boolean;
  readonly #frames: FrameLayer;
  /** Time in units of 100 ns. */
  readonly #now: () => number;
  /** GPA of the pending byte; 0 is "none". */
  #pendingPage = 0;
  /** What a RETRIEVE with a small count left of a frame. */
  #rest: Uint8Array | undefined;
  /** Something was received since the last RETRIEVE. */
  #activity = false;
  /** When each vCPU that loops in RETRIEVE began. */
  readonly #waiting = new Map<number, number>();

  constructor(
    memory: GuestMemory,
    transport: DebugTransport,
    profile: Profile,
    now: () => number,
  ) {
    this.#memory = memory;
    this.#transport = transport;
    this.#tlfs = profile === "hyperv";
    this.#now = now;
    this.#frames = new FrameLayer({
      serveAddresses: this.#tlfs,
      swapPorts: this.#tlfs,
      ...(transport.peer && { debugger: transport.peer }),
    });
    transport.onActivity = () => {
      this.#activity ||= transport.pending > 0;
      this.#updatePending();
    };
  }

  // MSR mode. ----------------------------------------------------------------

  /** Sets the place of the pending byte and brings it up to date. */
  setPendingPage(gpa: number): void {
    this.#pendingPage = gpa;
    this.#updatePending();
  }

  /**
   * Executes a command.
   *
   * @param control Low word of CONTROL.
   * @returns Low word of STATUS; the high word is 0.
   */
  command(control: number, sendGpa: number, receiveGpa: number): number {
    const send = (control & SyndbgControl.Send) !== 0;
    const receive = (control & SyndbgControl.Receive) !== 0;
    let status = 0;
    if (send) {
      const length = control >>> SyndbgControl.LengthShift;
      if (this.#send(sendGpa, length)) status |= SyndbgStatus.Sent;
    }
    // QEMU looks at the first bit only.
    if (receive && (this.#tlfs || !send)) status |= this.#receive(receiveGpa);
    if (this.#tlfs && (send || receive) && this.#transport.takeReset()) {
      status |= SyndbgStatus.Reset;
    }
    return status;
  }

  #send(gpa: number, length: number): boolean {
    const memory = this.#memory;
    if (!memory.contains(gpa, length)) return false;
    // The buffer is one page, and an empty packet is none.
    if (
      this.#tlfs && (length === 0 || (gpa % SYNDBG_PAGE) + length > SYNDBG_PAGE)
    ) return false;
    return this.#transport.send(memory.bytes.subarray(gpa, gpa + length));
  }

  #receive(gpa: number): number {
    // QEMU has taken the packet before it looks at the buffer; here it stays.
    if (this.#tlfs && !this.#memory.contains(gpa, 1)) return 0;
    const data = this.#transport.receive();
    this.#updatePending();
    if (data === undefined || data.length === 0) return 0;
    // Never beyond the page of the buffer; what does not fit is lost, as with a short UDP read.
    const room = SYNDBG_PAGE - gpa % SYNDBG_PAGE;
    const most = this.#tlfs ? room : Math.min(room, KVM_RECEIVE_MAX);
    const length = Math.min(data.length, most);
    if (!this.#memory.contains(gpa, length)) return 0;
    this.#memory.write(gpa, data.subarray(0, length));
    return (length << SyndbgStatus.LengthShift) | SyndbgStatus.Received;
  }

  /** Writes the pending byte: 1 while a packet waits, else 0. */
  #updatePending(): void {
    const gpa = this.#pendingPage;
    if (gpa === 0 || !this.#memory.contains(gpa, 1)) return;
    const value = this.#transport.pending > 0 ? 1 : 0;
    if (this.#memory.bytes[gpa] !== value) this.#memory.writeU8(gpa, value);
  }

  // Hypercall mode. -------------------------------------------------------------

  /** HvPostDebugData: a status code. */
  post(input: number, output: number): number {
    const memory = this.#memory;
    // QEMU's output is 4 bytes, and it looks at the count before the output.
    const outputSize = this.#tlfs ? 8 : 4;
    const status = this.#tlfs
      ? this.#checkLists(input, 8, output, outputSize)
      : this.#checkLists(input, 8, 0, 0);
    if (status !== HvStatus.Success) return status;
    const count = memory.view.getUint32(input, true);
    if (
      count > DEBUG_MAX_DATA || (this.#tlfs && !inPage(input, 8 + count))
    ) return HvStatus.InvalidParameter;
    if (
      !memory.contains(input, 8 + count) ||
      !memory.contains(output, outputSize)
    ) return HvStatus.InsufficientMemory;
    const frame = memory.bytes.slice(input + 8, input + 8 + count);
    const payload = count === 0 ? undefined : this.#frames.fromGuest(frame);
    // All or nothing: a frame that cannot go out now is not posted at all.
    if (payload !== undefined && !this.#transport.send(payload)) {
      return this.#tlfs
        ? HvStatus.InsufficientBuffers
        : HvStatus.InsufficientMemory;
    }
    // The transport has taken all: nothing is waiting to go out.
    memory.fill(output, outputSize);
    return HvStatus.Success;
  }

  /**
   * HvRetrieveDebugData.
   *
   * @param mayWait False: with LOOP too the call ends at once.
   * @returns A status code, or -1 where the call has to be tried again.
   */
  retrieve(
    vcpu: number,
    input: number,
    output: number,
    mayWait: boolean,
  ): number {
    const status = this.#checkLists(input, 16, output, 8);
    if (status !== HvStatus.Success) return status;
    const view = this.#memory.view;
    const count = view.getUint32(input, true);
    const options = view.getUint32(input + 4, true);
    if (!this.#tlfs) return this.#retrieveAsQemu(count, output);
    if (count > DEBUG_MAX_DATA || !inPage(output, 8 + count)) {
      return HvStatus.InvalidParameter;
    }
    if ((options & DebugOption.RetrieveTestActivity) !== 0) {
      const active = this.#activity || this.#frames.replyWaiting;
      if (!active) return HvStatus.Inactive;
    }
    const waiting = this.#incomingBytes();
    if (waiting === 0) {
      const timeout = view.getUint32(input + 8, true) +
        view.getUint32(input + 12, true) * 0x1_0000_0000;
      if (
        mayWait && (options & DebugOption.RetrieveLoop) !== 0 &&
        this.#loops(vcpu, timeout)
      ) return RETRY;
      this.#waiting.delete(vcpu);
      this.#activity = false;
      this.#retrieved(output, 0, 0);
      return HvStatus.NoData;
    }
    this.#waiting.delete(vcpu);
    this.#activity = false;
    const data = count === 0 ? new Uint8Array(0) : this.#take(count);
    this.#memory.write(output + 8, data);
    this.#retrieved(output, data.length, waiting - data.length);
    return HvStatus.Success;
  }

  /** Whether a vCPU may still wait for its timeout. */
  #loops(vcpu: number, timeout: number): boolean {
    const now = this.#now();
    const since = this.#waiting.get(vcpu) ?? now;
    if (now - since >= timeout) return false;
    this.#waiting.set(vcpu, since);
    return true;
  }

  #retrieveAsQemu(count: number, output: number): number {
    const memory = this.#memory;
    // A frame that is cut would have wrong lengths: QEMU's last 8 bytes never fit.
    const reply = this.#nextFrame(this.#frames.maxPayload);
    if (reply === undefined) {
      this.#retrieved(output, 0, count);
      return HvStatus.NoData;
    }
    // Up to 4088 bytes whatever the guest's count, but never beyond the page.
    const room = SYNDBG_PAGE - output % SYNDBG_PAGE - 8;
    const data = reply.subarray(0, Math.max(0, Math.min(room, DEBUG_MAX_DATA)));
    if (!memory.contains(output + 8, data.length)) {
      return HvStatus.InsufficientMemory;
    }
    memory.write(output + 8, data);
    this.#retrieved(output, data.length, Math.max(0, count - data.length));
    return HvStatus.Success;
  }

  #retrieved(output: number, count: number, remaining: number): void {
    this.#memory.writeU32(output, count);
    this.#memory.writeU32(output + 4, remaining);
  }

  /** HvResetDebugSession with its options in memory: a status code. */
  resetSessionSlow(input: number, output: number): number {
    if (!this.#tlfs) return this.#reportSession(output);
    const status = this.#checkLists(input, 8, 0, 0);
    return status === HvStatus.Success
      ? this.resetSession(this.#memory.view.getUint32(input, true), output)
      : status;
  }

  /** HvResetDebugSession: a status code. `output` is where QEMU reports addresses. */
  resetSession(options: number, output: number): number {
    if (!this.#tlfs) return this.#reportSession(output);
    const incoming = (options & DebugOption.ResetPurgeIncoming) !== 0;
    const outgoing = (options & DebugOption.ResetPurgeOutgoing) !== 0;
    if ((!incoming && !outgoing) || (options & ~3) !== 0) {
      return HvStatus.InvalidParameter;
    }
    let purged = 0;
    if (incoming) {
      purged += this.#transport.purgeIncoming();
      if (this.#rest !== undefined || this.#frames.replyWaiting) purged++;
      this.#rest = undefined;
      this.#frames.nextReply();
      this.#activity = false;
      this.#updatePending();
    }
    return purged > 0 ? HvStatus.Success : HvStatus.NoData;
  }

  /** QEMU's 24-byte output: addresses in host order, hardware addresses 0. */
  #reportSession(output: number): number {
    if (!this.#memory.contains(output, 24)) return HvStatus.InsufficientMemory;
    const block = new Uint8Array(24);
    const view = new DataView(block.buffer);
    const peer = this.#transport.peer;
    view.setUint32(0, peer?.ipv4 ?? 0, true);
    view.setUint32(4, peer?.ipv4 ?? 0, true);
    view.setUint16(8, peer?.port ?? 0, true);
    view.setUint16(10, peer?.port ?? 0, true);
    this.#memory.write(output, block);
    return HvStatus.Success;
  }

  /** Alignment, page and RAM checks of both parameter lists. */
  #checkLists(
    input: number,
    inputSize: number,
    output: number,
    outputSize: number,
  ): number {
    const memory = this.#memory;
    const inRam = memory.contains(input, inputSize) &&
      memory.contains(output, outputSize);
    if (!this.#tlfs) {
      return inRam ? HvStatus.Success : HvStatus.InsufficientMemory;
    }
    if (input % 8 !== 0 || output % 8 !== 0) return HvStatus.InvalidAlignment;
    return inRam && inPage(input, inputSize) && inPage(output, outputSize)
      ? HvStatus.Success
      : HvStatus.InvalidParameter;
  }

  /** Bytes that RETRIEVE could give, headers included. */
  #incomingBytes(): number {
    const transport = this.#transport;
    return (this.#rest?.length ?? 0) + this.#frames.replyLength +
      transport.pendingBytes + this.#frames.frameLength(0) * transport.pending;
  }

  /** The next frame for the guest, its payload cut to `most` bytes. */
  #nextFrame(most: number): Uint8Array | undefined {
    const reply = this.#frames.nextReply();
    if (reply !== undefined) return reply;
    const payload = this.#transport.receive();
    this.#updatePending();
    return payload && this.#frames.toGuest(payload.subarray(0, most));
  }

  /** Up to `count` bytes of the first frame; the rest waits for the next call. */
  #take(count: number): Uint8Array {
    const frame = this.#rest ?? this.#nextFrame(UDP_MAX) ??
      new Uint8Array(0);
    this.#rest = frame.length > count ? frame.subarray(count) : undefined;
    return frame.subarray(0, count);
  }

  // Life. ------------------------------------------------------------------------

  /** Forgets that a vCPU waits in RETRIEVE. */
  stopWaiting(vcpu: number): void {
    this.#waiting.delete(vcpu);
  }

  /** Puts the session and the device into their state at power-on. */
  reset(): void {
    this.#pendingPage = 0;
    this.#rest = undefined;
    this.#activity = false;
    this.#waiting.clear();
    this.#frames.reset();
    this.#transport.purgeIncoming();
    this.#transport.takeReset();
  }

  /** Copies the state out. Packets on the way are not part of it (TLFS 2.0a, 20.1). */
  save(): SynDbgState {
    return { pendingPage: this.#pendingPage, frames: this.#frames.save() };
  }

  /** Takes state back; the session begins anew. */
  restore(state: SynDbgState): void {
    this.reset();
    this.#frames.restore(state.frames);
    this.setPendingPage(state.pendingPage);
  }
}

/** Whether a value is the state of a debug device. */
export function isSynDbg(value: unknown): value is SynDbgState {
  const state = value as Partial<SynDbgState> | null;
  const frames: Partial<FrameState> = state?.frames ?? {};
  const { guest, guestPort, hostPort } = frames;
  return [state?.pendingPage, guest, guestPort, hostPort].every((number) =>
    Number.isFinite(number)
  );
}

/** Whether `length` bytes from `gpa` on are in one page. */
function inPage(gpa: number, length: number): boolean {
  return gpa % SYNDBG_PAGE + length <= SYNDBG_PAGE;
}
